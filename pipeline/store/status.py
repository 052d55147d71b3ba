"""How far a run is, from its storage alone: any process may ask, at any time."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from pipeline.store import layout
from pipeline.store.commits import check_run
from pipeline.store.objects import Store
from pipeline.store.supplements import ShardLog, read_log
from schemas.config import Frozen
from schemas.runs import RunManifest

_BATCH_SHARDS = 1024  # what is held of a large run at a time
_READERS = 8  # footers are small reads: what counts is how many are under way


class RunStatus(Frozen):
    """Counts of a run. planned = ok + dead + missing."""

    run_id: str
    url: str
    num_shards: int
    num_committed: int
    num_planned: int  # rollouts, as all of the following
    num_ok: int
    num_dead: int

    @property
    def num_missing(self) -> int:
        return self.num_planned - self.num_ok - self.num_dead


def committed_shards(store: Store, manifest: RunManifest) -> set[int]:
    """The planned shards whose base is listed. A list may lag: more may be committed."""
    entries = store.list_folder(layout.TRACES)
    shards = (layout.try_shard_of(entry.key) for entry in entries)
    return {shard for shard in shards if shard is not None and shard < manifest.num_shards}


def read_logs(store: Store, manifest: RunManifest, shards: Iterable[int]) -> Iterator[ShardLog]:
    """What is committed of these shards, in order; a batch of them is read ahead.

    Raises ObjectMissing for a shard that is not committed, FatalFailure for one of another run.
    """
    ordered = sorted(shards)
    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(ordered), _BATCH_SHARDS):
            batch = ordered[start : start + _BATCH_SHARDS]
            for log in readers.map(lambda shard: read_log(store, shard), batch):
                for footer in (log.base, *log.supplements):
                    check_run(
                        store, footer, run_id=manifest.run_id, fingerprint=manifest.fingerprint
                    )
                yield log


def read_status(store: Store, manifest: RunManifest) -> RunStatus:
    """Count what is committed: one small read a shard, and two where rows are dead.

    Raises as `read_logs` does, and no store's error is repeated here: `repeat` the whole call.
    """
    num_committed = num_ok = num_dead = 0
    for log in read_logs(store, manifest, committed_shards(store, manifest)):
        num_committed += 1
        num_ok += log.num_ok
        num_dead += log.num_dead
    return RunStatus(
        run_id=manifest.run_id,
        url=store.url,
        num_shards=manifest.num_shards,
        num_committed=num_committed,
        num_planned=manifest.num_rollouts,
        num_ok=num_ok,
        num_dead=num_dead,
    )
