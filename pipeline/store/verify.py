"""Whether a run is whole: every planned key exactly once, in objects that can be read.

Goes through the run shard by shard and holds a few at a time. Of the plan it keeps 16 bytes a row,
to see that no key is planned twice; of the names in `traces/`, those of supplements.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from pipeline.file_names import quoted
from pipeline.store import layout
from pipeline.store.contents import Sidecar, read_sidecar
from pipeline.store.evidence.digests import Digests, DigestState, exists
from pipeline.store.objects import Store
from pipeline.store.plans import PlanRow, look_at_plan, read_manifest
from pipeline.store.shard_check import Finding, ShardCheck, check_shard, name_some
from pipeline.store.status import LoggedShards, logged_shards
from pipeline.store.traces import UNREADABLE
from schemas.errors import ObjectMissing
from schemas.runs import RunManifest

_READERS = 8  # each waits for the store most of its time
_DEEP_READERS = 2  # which decode every picture
_ROW = np.dtype([("record", "<u8"), ("start", "<i4"), ("stop", "<i4")])


@dataclass(slots=True, eq=False)
class Verification:
    """One pass over a run. The counts are of what the pass has seen so far."""

    store: Store
    manifest: RunManifest
    is_deep: bool = False
    num_committed: int = 0  # shards
    num_planned: int = 0  # rollouts, as all of the following
    num_ok: int = 0
    num_dead: int = 0
    num_missing: int = 0
    num_seen: int = 0  # shards that were gone through
    num_without_digest: int = 0  # objects; told only if deep

    def findings(self) -> Iterator[Finding]:
        """All that is wrong with the run, as it is found: nothing, if the run is whole.

        May run beside a live run: what comes meanwhile is not taken for damage. Raises
        StoreUnavailable and StoreRefused.
        """
        yield from self._check_parts()
        # Listed before the shards are read: then every supplement that a listed one builds on has
        # been put by the time that its shard is read.
        names = list_names(self.store, self.manifest)
        yield from self._check_unplanned(names.unplanned)
        logged = logged_shards(self.store, self.manifest)
        keys, digests = PlannedKeys(), Digests(self.store)
        for check in self._checks(names, digests):
            self._count(check)
            keys.add(check.plan)
            yield from check.findings
            if logged:
                yield from self._check_logged(logged, check)
        yield from self._check_disjoint(keys.planned_twice())
        if self.is_deep:
            yield from self._check_scores(digests)

    def _checks(self, names: "Names", digests: Digests) -> Iterator[ShardCheck]:
        """Of each shard, in order; the next ones are being read meanwhile."""
        num_readers = _DEEP_READERS if self.is_deep else _READERS
        waiting: deque[Future[ShardCheck]] = deque()
        readers = ThreadPoolExecutor(num_readers)
        try:
            for shard in self._shards():
                waiting.append(
                    readers.submit(
                        check_shard,
                        self.store,
                        self.manifest,
                        shard,
                        last_listed=names.last_supplement.get(shard, 0),
                        is_deep=self.is_deep,
                        digests=digests,
                    )
                )
                if len(waiting) > num_readers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            readers.shutdown(cancel_futures=True)  # after a failure no other shard is begun

    def _shards(self) -> Iterator[int]:
        for part in self.manifest.parts:
            yield from range(part.first_shard, part.stop_shard)

    def _count(self, check: ShardCheck) -> None:
        self.num_seen += 1
        self.num_committed += check.is_committed
        self.num_planned += check.num_planned
        self.num_ok += check.num_ok
        self.num_dead += check.num_dead
        self.num_missing += check.num_missing
        self.num_without_digest += check.num_without_digest

    def _check_parts(self) -> Iterator[Finding]:
        """Each part begins where the one before it ends, and none is missing between them."""
        first_shard = 0
        for number, part in enumerate(self.manifest.parts, start=1):
            key = layout.MANIFEST if number == 1 else layout.extension_key(number)
            num_shards = -(-part.num_rollouts // part.rollouts_per_shard)
            planned = f"part {part.number}, shards {part.first_shard} to {part.stop_shard - 1}"
            last_shard = first_shard + num_shards - 1
            expected = f"part {number}, shards {first_shard} to {last_shard}"
            if planned != expected:
                yield _plan_finding(key, found=planned, expected=expected)
            first_shard = part.stop_shard
        yield from self._check_parts_beyond()

    def _check_parts_beyond(self) -> Iterator[Finding]:
        """Parts that are on storage, and not reached since one before them is gone."""
        listed = list(self.store.list_folder(layout.PLAN))
        numbers = filter(None, (layout.try_extension_of(entry.key) for entry in listed))
        beyond = sorted(number for number in numbers if number > len(self.manifest.parts))
        if not beyond:
            return
        last = len(read_manifest(self.store).parts)
        for number in beyond:
            if number > last and self._exists(layout.extension_key(number)):
                yield _plan_finding(
                    layout.extension_key(number),
                    found=f"part {number} of the plan",
                    expected=f"part {last + 1} before it, as {layout.extension_key(last + 1)}",
                )

    def _check_unplanned(self, keys: list[str]) -> Iterator[Finding]:
        """Objects in `traces/` that nobody planned."""
        if not keys:
            return
        # Read after the list: a shard is committed only after the part that planned it.
        num_shards = read_manifest(self.store).num_shards
        for key in keys:
            traces = layout.try_traces_of(key)
            if (traces and traces[0] < num_shards) or not self._exists(key):
                continue
            yield Finding(
                shard=None,
                key=key,
                found=f"shard {traces[0]}, which is not planned" if traces else "an unknown name",
                expected=f"shards 0 to {num_shards - 1} and their supplements",
                advice="if a part of the plan was lost, have it back: coppice repair "
                f"{quoted(self.store.url)} --run; else move it away by hand: whoever reads "
                f"{layout.TRACES}/*.parquet may take it for a part of the run",
            )

    def _check_logged(self, logged: LoggedShards, check: ShardCheck) -> Iterator[Finding]:
        """What a log says of a whole shard, against what was read of it."""
        num_ok, num_dead, num_supplements = logged.counts[check.shard].tolist()
        is_told = logged.is_known[check.shard] and num_supplements == check.num_supplements
        if is_told and not check.findings and (num_ok, num_dead) != (check.num_ok, check.num_dead):
            yield Finding(
                shard=check.shard,
                key=", ".join(logged.keys),
                found=f"{num_ok} ok and {num_dead} dead, by a log of footers",
                expected=f"{check.num_ok} ok and {check.num_dead} dead, as was read",
                advice="delete the log: nothing depends on it, and the next run makes it anew",
            )

    def _check_disjoint(self, suspects: set[int]) -> Iterator[Finding]:
        """Hashes alone prove nothing: the records behind them are read again, by their names."""
        if not suspects:
            return
        ranges: dict[str, list[tuple[int, int, int]]] = {}
        for shard in self._shards():
            for row in look_at_plan(self.store, self.manifest, shard).rows:
                if _hash(row.record_id) in suspects:
                    planned = (row.rollout_start, row.rollout_stop, shard)
                    ranges.setdefault(row.record_id, []).append(planned)
        for record_id, planned_of_record in ranges.items():
            reach, holder = 0, 0
            for start, stop, shard in sorted(planned_of_record):
                if start < reach:
                    yield _plan_finding(
                        layout.plan_key(self.manifest.part_of(shard).folder, shard),
                        shard=shard,
                        found=f"rollout {start} of record {record_id}, also in shard {holder}",
                        expected="each key in one shard",
                    )
                reach, holder = max((reach, holder), (stop, shard))

    def _check_scores(self, digests: Digests) -> Iterator[Finding]:
        """Sidecars that are not as they were written, and scores that are no numbers."""
        for folder in sorted(self.store.list_subfolders(layout.SCORES)):
            keys = sorted(entry.key for entry in self.store.list_folder(folder))
            for key in (key for key in keys if key.endswith(".parquet")):
                try:
                    sidecar = read_sidecar(self.store, key)
                except ObjectMissing:  # moved away meanwhile
                    continue
                except UNREADABLE as error:
                    found = f"a file that cannot be read ({type(error).__name__}: {error})"
                    yield self._scores_finding(key, found=found, expected="a sidecar of scores")
                    continue
                for found, expected in self._problems_of(key, sidecar, digests):
                    yield self._scores_finding(key, found=found, expected=expected)

    def _problems_of(
        self, key: str, sidecar: Sidecar, digests: Digests
    ) -> Iterator[tuple[str, str]]:
        """What was found in a sidecar, and what was expected."""
        for column, subjects in sidecar.not_finite.items():
            found = f"scores that are not finite in {column}: {name_some(subjects)}"
            yield found, "numbers, or null"
        for problem in sidecar.footer_problems:
            yield problem, "a footer that says what is there"
        match digests.state(key, sidecar.object_digest):
            case DigestState.NONE:
                self.num_without_digest += 1
            case DigestState.OTHER:
                yield f"bytes with digest {sidecar.object_digest}", "the bytes that were written"

    def _scores_finding(self, key: str, *, found: str, expected: str) -> Finding:
        folder, name = key.rpartition("/")[::2]
        scorer = layout.object_name(folder).partition("@")[0]
        traces = layout.try_traces_of(layout.traces_object_key(name))
        return Finding(
            shard=traces[0] if traces else None,
            key=key,
            found=found,
            expected=expected,
            advice="move the file away, and score again: coppice score "
            f"{self.store.url} --scorer {scorer}",
        )

    def _exists(self, key: str) -> bool:
        try:
            return exists(self.store, key)
        except ValueError:  # S3 has names that no store of ours would take
            return True


class PlannedKeys:
    """The keys of a plan, as 16 bytes a row: a hash of the record, and a range of rollouts."""

    def __init__(self) -> None:
        self._pieces: list[npt.NDArray[np.void]] = []

    def add(self, rows: list[PlanRow]) -> None:
        """Keep what rows of a plan say, and not the rows."""
        planned = [(_hash(row.record_id), row.rollout_start, row.rollout_stop) for row in rows]
        self._pieces.append(np.array(planned, dtype=_ROW))

    def planned_twice(self) -> set[int]:
        """The hashes whose ranges overlap: of records planned twice, or, rarely, of two records."""
        rows = np.concatenate([np.empty(0, _ROW), *self._pieces])
        rows = rows[np.lexsort((rows["start"], rows["record"]))]
        # Of ranges in order, if any two overlap, so do two neighbours.
        is_same = rows["record"][1:] == rows["record"][:-1]
        overlaps = is_same & (rows["start"][1:] < rows["stop"][:-1])
        return set(rows["record"][1:][overlaps].tolist())


@dataclass(slots=True)
class Names:
    """What a list of `traces/` has beside bases. It may lag."""

    unplanned: list[str] = field(default_factory=list)
    last_supplement: dict[int, int] = field(default_factory=dict)  # of shards that have any


def list_names(store: Store, manifest: RunManifest) -> Names:
    """Go through a list of `traces/`, of which bases are forgotten at once. Repeats nothing."""
    names = Names()
    for entry in store.list_folder(layout.TRACES):
        match layout.try_traces_of(entry.key):
            case (shard, supplement) if shard < manifest.num_shards:
                if supplement > names.last_supplement.get(shard, 0):
                    names.last_supplement[shard] = supplement
            case _:
                names.unplanned.append(entry.key)
    return names


def _plan_finding(key: str, *, found: str, expected: str, shard: int | None = None) -> Finding:
    advice = "the plan was changed by hand: put its objects back from a copy of the run"
    return Finding(shard=shard, key=key, found=found, expected=expected, advice=advice)


def _hash(record_id: str) -> int:
    return int.from_bytes(blake2b(record_id.encode(), digest_size=8).digest(), "little")
