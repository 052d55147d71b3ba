"""How far a run is, from its storage alone: any process may ask, at any time."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from pipeline.store import layout
from pipeline.store.commits import check_run
from pipeline.store.objects import Store
from pipeline.store.traces import read_footer
from schemas.config import Frozen
from schemas.runs import RunManifest, ShardFooter

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
    """The shards whose data object is listed. A list may lag: one not in it may be committed."""
    entries = store.list_folder(layout.TRACES)
    shards = (layout.try_shard_of(entry.key) for entry in entries)
    return {shard for shard in shards if shard is not None and shard < manifest.plan.num_shards}


def read_footers(store: Store, manifest: RunManifest, shards: Iterable[int]) -> list[ShardFooter]:
    """The footers of committed shards, in order. Raises FatalFailure for one of another run."""
    with ThreadPoolExecutor(_READERS) as readers:
        footers = list(readers.map(lambda shard: read_footer(store, shard), sorted(shards)))
    for footer in footers:
        check_run(store, footer, run_id=manifest.run_id, fingerprint=manifest.fingerprint)
    return footers


def read_status(store: Store, manifest: RunManifest) -> RunStatus:
    """Count what is committed: one small read a shard."""
    footers = read_footers(store, manifest, committed_shards(store, manifest))
    return RunStatus(
        run_id=manifest.run_id,
        url=store.url,
        num_shards=manifest.plan.num_shards,
        num_committed=len(footers),
        num_planned=manifest.plan.num_rollouts,
        num_ok=sum(footer.num_ok for footer in footers),
        num_dead=sum(footer.num_dead for footer in footers),
    )
