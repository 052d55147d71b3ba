"""How far a run is, from its storage alone: any process may ask, at any time."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from pipeline.store import layout
from pipeline.store.commits import check_run
from pipeline.store.objects import Store
from pipeline.store.stock import READERS, take_stock
from pipeline.store.supplements import ShardLog, read_log
from schemas.config import Frozen
from schemas.runs import RunManifest

_BATCH_SHARDS = 1024  # what is held of a large run at a time


class RunStatus(Frozen):
    """Counts of a run. planned = ok + dead + missing."""

    run_id: str
    url: str
    num_shards: int
    num_committed: int
    num_planned: int  # rollouts, as all of the following
    num_ok: int
    num_dead: int
    num_bytes: int  # of all that lies beside the traces, too

    @property
    def num_missing(self) -> int:
        return self.num_planned - self.num_ok - self.num_dead


def committed_shards(store: Store, manifest: RunManifest) -> set[int]:
    """The planned shards whose base is listed. A list may lag: more may be committed."""
    entries = store.list_folder(layout.TRACES)
    shards = (layout.try_shard_of(entry.key) for entry in entries)
    return {shard for shard in shards if shard is not None and shard < manifest.num_shards}


def read_logs(store: Store, manifest: RunManifest, shards: Iterable[int]) -> Iterator[ShardLog]:
    """What is committed of these shards, in order, all of it read; a batch of them is read ahead.

    Raises ObjectMissing for a shard that is not committed, ForeignObject for one of another run,
    DamagedObject for one that is no shard file.
    """
    ordered = sorted(shards)
    with ThreadPoolExecutor(READERS) as readers:
        for start in range(0, len(ordered), _BATCH_SHARDS):
            batch = ordered[start : start + _BATCH_SHARDS]
            for log in readers.map(lambda shard: read_log(store, shard), batch):
                for footer in (log.base, *log.supplements):
                    check_run(
                        store, footer, run_id=manifest.run_id, fingerprint=manifest.fingerprint
                    )
                yield log


def read_status(store: Store, manifest: RunManifest) -> RunStatus:
    """Count what is committed, by a list of it and by what `take_stock` knows and reads.

    Raises as `take_stock` does, and no store's error is repeated here: `repeat` the whole call.
    """
    stock = take_stock(store, manifest)
    return RunStatus(
        run_id=manifest.run_id,
        url=store.url,
        num_shards=manifest.num_shards,
        num_committed=stock.num_committed,
        num_planned=manifest.num_rollouts,
        num_ok=stock.num_ok,
        num_dead=stock.num_dead,
        num_bytes=stock.num_bytes,
    )
