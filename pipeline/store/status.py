"""How far a run is, from its storage alone: any process may ask, at any time.

A list of `traces/` decides what is committed. Counts come from the log of footers where it knows an
object as it is listed now, and from the object's own footer everywhere else. A list may lag: then
more is committed than is counted here, and whoever acts on a shard asks for its objects by names.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from pipeline.store import layout
from pipeline.store.commits import check_run
from pipeline.store.footers import (
    MAX_SUPPLEMENTS,
    NUM_DEAD,
    NUM_OK,
    SHARD,
    SIZE_BYTES,
    SUPPLEMENT,
    FooterLog,
    Mask,
    Rows,
    object_rows,
    ordered,
    read_footer_log,
    write_footer_log,
)
from pipeline.store.objects import Entry, Store
from pipeline.store.supplements import ShardLog, read_log
from pipeline.store.traces import read_footer
from schemas.config import Frozen
from schemas.errors import DamagedObject, ObjectMissing
from schemas.runs import EndpointUsage, RunManifest, ShardFooter

WORTH_KEEPING = 256  # footers; fewer are as quickly read again

OnDamage: TypeAlias = Callable[[int, DamagedObject], None]
"""Is told of a shard that cannot be read, and why."""

_READERS = 32  # footers are small reads: what counts is how many are under way
_BATCH = 4096  # names, or footers, held as Python's objects at a time


class RunStatus(Frozen):
    """Counts of a run. planned = ok + dead + missing + unreadable."""

    run_id: str
    url: str
    num_shards: int
    num_committed: int
    num_planned: int  # rollouts, as all of the following
    num_ok: int
    num_dead: int
    num_unreadable: int  # in damaged shards: whether they are ok or dead is not known
    num_bytes: int  # of all that lies beside the traces, too
    damage: dict[int, str]  # what was found of shards that cannot be read, and what to do
    num_unplanned: int  # objects of shards that nobody planned, at the time of this manifest

    @property
    def num_missing(self) -> int:
        return self.num_planned - self.num_ok - self.num_dead - self.num_unreadable


def committed_shards(store: Store, manifest: RunManifest) -> set[int]:
    """The planned shards whose base is listed. A list may lag: more may be committed."""
    entries = store.list_folder(layout.TRACES)
    shards = (layout.try_shard_of(entry.key) for entry in entries)
    return {shard for shard in shards if shard is not None and shard < manifest.num_shards}


def read_logs(
    store: Store,
    manifest: RunManifest,
    shards: Iterable[int],
    *,
    on_damage: OnDamage | None = None,
) -> Iterator[ShardLog]:
    """What is committed of these shards, in order, all of it read; a batch of them is read ahead.

    A shard with an object that is no shard file is left out, and `on_damage` is told; without it
    that raises DamagedObject. Raises ObjectMissing for a shard that is not committed, ForeignObject
    for one of another run.
    """

    def read(shard: int) -> ShardLog | DamagedObject:
        try:
            return read_log(store, shard)
        except DamagedObject as error:
            if on_damage is None:
                raise
            return error

    ordered = sorted(shards)
    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(ordered), _BATCH):
            batch = ordered[start : start + _BATCH]
            for shard, log in zip(batch, readers.map(read, batch), strict=True):
                if isinstance(log, DamagedObject):
                    assert on_damage is not None, "it raised"
                    on_damage(shard, log)
                    continue
                for footer in (log.base, *log.supplements):
                    check_run(
                        store, footer, run_id=manifest.run_id, fingerprint=manifest.fingerprint
                    )
                yield log


def read_status(store: Store, manifest: RunManifest) -> RunStatus:
    """Count what is committed, by a list of it and by what `take_stock` knows and reads.

    Raises as `take_stock` does, and no store's error is repeated here: `repeat` the whole call.
    """
    return status_of(store, manifest, take_stock(store, manifest))


def status_of(store: Store, manifest: RunManifest, stock: "Stock") -> RunStatus:
    """The counts of a run, of which stock was taken."""
    return RunStatus(
        run_id=manifest.run_id,
        url=store.url,
        num_shards=manifest.num_shards,
        num_committed=stock.num_committed,
        num_planned=manifest.num_rollouts,
        num_ok=stock.num_ok,
        num_dead=stock.num_dead,
        num_unreadable=stock.num_unreadable,
        num_bytes=stock.num_bytes,
        damage=stock.damage,
        num_unplanned=stock.num_unplanned,
    )


def read_usage(store: Store, manifest: RunManifest) -> dict[str, EndpointUsage]:
    """What the answers of endpoints took that stand in a run, by endpoint; of a run without any
    nothing is read. Reads every footer, and raises as `read_logs` does.
    """
    usage = dict.fromkeys(manifest.config.method.endpoints_in_use, EndpointUsage())
    if usage:
        for log in read_logs(store, manifest, committed_shards(store, manifest)):
            for footer in (log.base, *log.supplements):
                for name, taken in footer.endpoints.items():
                    usage[name] = usage.get(name, EndpointUsage()) + taken
    return usage


@dataclass(frozen=True, kw_only=True, slots=True)
class Stock:
    """What is committed of a run, and what of it no log knew."""

    rows: Rows  # of the objects that count, ordered
    num_planned: int  # rollouts, as the following
    num_ok: int
    num_dead: int  # that no supplement brought back
    num_bytes: int  # of all that lies in `traces/`
    num_read: int  # footers that were read
    num_unreadable: int  # rollouts of damaged shards, which count nowhere else
    damage: dict[int, str]  # by shard: an object that cannot be read, and what to do about it
    num_unplanned: int  # objects of shards that nobody had planned when the manifest was read
    log: FooterLog

    @property
    def num_missing(self) -> int:
        """How many rollouts are still to be made, of so many planned."""
        return self.num_planned - self.num_ok - self.num_dead - self.num_unreadable

    @property
    def num_committed(self) -> int:
        """How many shards."""
        return int(np.count_nonzero(self.rows[:, SUPPLEMENT] == 0))

    def committed(self) -> list[int]:
        """The shards whose base is there, ascending."""
        shards: list[int] = self.rows[self.rows[:, SUPPLEMENT] == 0, SHARD].tolist()
        return shards


def take_stock(store: Store, manifest: RunManifest) -> Stock:
    """List the data objects of a run, and read the footers that no log knows. Changes nothing.

    An object that is no shard file is told of, and its shard counts neither as committed nor as
    missing. Raises ForeignObject for an object of another run, and what a store says, of which
    nothing is repeated: `repeat` the whole call.
    """
    log = read_footer_log(store, manifest)
    listed = list_objects(store, manifest)
    return _Count(store, manifest, listed, log).stock()


def keep_footers(store: Store, manifest: RunManifest, *, worth: int = WORTH_KEEPING) -> Stock:
    """As `take_stock`; what was read of so many footers goes into a log, for the next one."""
    stock = take_stock(store, manifest)
    has_one_log = len(stock.log.keys) <= 1
    if stock.num_read >= worth or not has_one_log:
        write_footer_log(store, manifest, stock.rows, stock.log)
    return stock


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """What a list of `traces/` shows."""

    rows: Rows  # of the data objects of planned shards, in order; counts are not filled in
    num_bytes: int  # of all that lies there
    num_unplanned: int  # objects of other shards


def list_objects(store: Store, manifest: RunManifest) -> Listed:
    """The data objects of a run, as they are listed."""
    num_bytes = num_unplanned = 0

    def ours() -> Iterator[tuple[int, int, Entry]]:
        nonlocal num_bytes, num_unplanned
        for entry in store.list_folder(layout.TRACES):
            num_bytes += entry.size_bytes
            traces = layout.try_traces_of(entry.key)
            if traces and traces[0] >= manifest.num_shards:
                num_unplanned += 1
            elif traces and traces[1] < MAX_SUPPLEMENTS:
                yield (*traces, entry)

    rows = ordered(object_rows(ours()))
    return Listed(rows=rows, num_bytes=num_bytes, num_unplanned=num_unplanned)


class _Count:
    """One `take_stock`, over the listed objects in order; masks are of these."""

    def __init__(self, store: Store, manifest: RunManifest, listed: Listed, log: FooterLog) -> None:
        self._store, self._manifest = store, manifest
        self._listed, self._rows, self._log = listed, (rows := listed.rows), log
        self._shard, self._supplement = rows[:, SHARD], rows[:, SUPPLEMENT]
        self._is_known = log.fill_in(rows)
        self._num_read = 0
        self._damage: dict[int, str] = {}

    def stock(self) -> Stock:
        is_base = self._supplement == 0
        is_base &= self._learn(is_base)
        follows, has_gap = self._supplements(is_base)
        follows &= self._learn(follows & ~has_gap)
        logs = self._logs_with_gaps(has_gap)
        is_readable = ~np.isin(self._shard, list(self._damage))
        is_base, follows = is_base & is_readable, follows & is_readable
        num_ok, num_dead = self._totals(is_base & ~has_gap, follows & ~has_gap)
        num_rollouts_of = self._manifest.num_rollouts_of
        return Stock(
            rows=self._kept(is_base | (follows & ~has_gap)),
            num_planned=self._manifest.num_rollouts,
            num_ok=num_ok + sum(log.num_ok for log in logs),
            num_dead=num_dead + sum(log.num_dead for log in logs),
            num_bytes=self._listed.num_bytes,
            num_unplanned=self._listed.num_unplanned,
            num_read=self._num_read,
            num_unreadable=sum(map(num_rollouts_of, self._damage)),
            damage=dict(sorted(self._damage.items())),
            log=self._log,
        )

    def _logs_with_gaps(self, has_gap: Mask) -> list[ShardLog]:
        """Of shards of which a supplement is not listed before another: they are asked by name."""
        logs = []
        for shard in np.unique(self._shard[has_gap]).tolist():
            try:
                log = read_log(self._store, shard)
            except DamagedObject as error:
                self._damage[shard] = str(error)
                continue
            for footer in (log.base, *log.supplements):
                self._check(footer)
            logs.append(log)
        return logs

    def _kept(self, mask: Mask) -> Rows:
        return self._rows if mask.all() else self._rows[mask]

    def _supplements(self, is_base: Mask) -> tuple[Mask, Mask]:
        """Which objects are supplements that count, and which are of a shard with a gap in them.

        Only a base with dead rows can have supplements, and each builds on those before it.
        """
        first = np.searchsorted(self._shard, self._shard)  # the first object of each one's shard
        has_dead = (is_base & (self._rows[:, NUM_DEAD] > 0))[first]
        is_supplement = has_dead & (self._supplement > 0)
        is_next = self._supplement == np.arange(len(first)) - first
        gaps = np.unique(self._shard[is_supplement & ~is_next])
        return is_supplement & is_next, np.isin(self._shard, gaps)

    def _totals(self, is_base: Mask, is_supplement: Mask) -> tuple[int, int]:
        """Rollouts that are ok, and that are dead."""
        num_brought_back = int(self._rows[is_supplement, NUM_OK].sum())
        num_ok = int(self._rows[is_base, NUM_OK].sum()) + num_brought_back
        return num_ok, int(self._rows[is_base, NUM_DEAD].sum()) - num_brought_back

    def _learn(self, wanted: Mask) -> Mask:
        """Read the footers that are wanted and not known. Which objects are there still."""
        is_there = np.ones(len(wanted), np.bool_)
        unknown: Sequence[int] = np.flatnonzero(wanted & ~self._is_known).tolist()
        self._num_read += len(unknown)
        for row, footer in zip(unknown, self._read(unknown), strict=True):
            is_there[row] = footer is not None
            if footer:
                self._rows[row, [NUM_OK, NUM_DEAD]] = footer.num_ok, footer.num_dead
        return is_there

    def _read(self, rows: Sequence[int]) -> Iterator[ShardFooter | None]:
        """The footers of these objects, in order; a batch of them is read ahead."""
        with ThreadPoolExecutor(_READERS) as readers:
            for start in range(0, len(rows), _BATCH):
                batch = rows[start : start + _BATCH]
                yield from readers.map(self._try_read, batch)

    def _try_read(self, row: int) -> ShardFooter | None:
        columns = [SHARD, SUPPLEMENT, SIZE_BYTES]
        shard, supplement, size_bytes = self._rows[row, columns].tolist()
        try:
            footer = read_footer(self._store, shard, supplement, size_bytes=size_bytes)
        except ObjectMissing:  # moved aside since it was listed
            return None
        except DamagedObject as error:
            self._damage[shard] = str(error)
            return None
        self._check(footer)
        return footer

    def _check(self, footer: ShardFooter) -> None:
        run_id, fingerprint = self._manifest.run_id, self._manifest.fingerprint
        check_run(self._store, footer, run_id=run_id, fingerprint=fingerprint)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedShards:
    """What logs say of shards, for who has read the shards: `verify` trusts no log."""

    counts: Rows  # (num_shards, 3): rows that are ok, rows that are dead still, supplements
    is_known: Mask  # (num_shards,): all listed objects of the shard are in the logs
    keys: tuple[str, ...]  # of the logs


def logged_shards(store: Store, manifest: RunManifest) -> LoggedShards | None:
    """What the logs of a run say of each shard as it is listed now; None without a log."""
    log = read_footer_log(store, manifest)
    if not log.keys:
        return None
    rows = list_objects(store, manifest).rows
    is_known = log.fill_in(rows)
    shard, is_base, num_ok = rows[:, SHARD], rows[:, SUPPLEMENT] == 0, rows[:, NUM_OK]
    counts = np.zeros((manifest.num_shards, 3), np.int64)
    np.add.at(counts[:, 0], shard, num_ok)
    np.add.at(counts[:, 1], shard, np.where(is_base, rows[:, NUM_DEAD], -num_ok))
    np.add.at(counts[:, 2], shard, ~is_base)
    known = np.zeros(manifest.num_shards, np.bool_)
    known[shard[is_base]] = True
    known[shard[~is_known]] = False
    return LoggedShards(counts=counts, is_known=known, keys=log.keys)
