"""How far a run is, as its driver counts. Numbers are of rollouts where nothing else is said."""

from collections.abc import Collection
from dataclasses import dataclass, field

from schemas.runs import Ends, ShardReport, Wait, Work


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """How far a run is, as its driver sees it."""

    num_shards: int
    num_committed: int  # shards
    num_planned: int
    num_finished: int  # committed, or ended on an actor
    num_ok: int  # committed
    num_dead: int  # committed
    num_actors: int  # with their models loaded
    num_new: int  # finished since this driver began
    ends: Ends  # of these
    num_bytes: int  # committed since this driver began
    growing_seconds: float  # since the first actor had its models loaded
    store_wait: Wait | None = None  # of some actor
    endpoints_away: tuple[str, ...] = ()  # some actor waits for them
    waiting: str = ""  # for what actors have no place yet, in words
    work: Work = field(default_factory=Work)  # of all actors, those that are gone, too

    @property
    def rollouts_per_second(self) -> float:
        return self.num_new / self.growing_seconds if self.growing_seconds else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """How a driver's work ended."""

    snapshot: Snapshot
    given_up: dict[int, str]  # shard -> its last failure
    was_stopped: bool
    is_damaged: bool = False  # some shard was given up on since an object of it is damaged


@dataclass(kw_only=True, slots=True)
class Tally:
    """What is settled of a driver's work: all of a run, or what a rerun has left."""

    num_shards: int
    num_planned: int
    num_ok: int = 0  # committed, as the following
    num_dead: int = 0
    num_before: int = 0  # of both, by others than this driver
    num_bytes: int = 0  # by this driver
    ends: Ends = field(default_factory=Ends)  # by this driver

    def add(self, report: ShardReport) -> None:
        """A shard was settled."""
        self.num_ok += report.num_ok
        self.num_dead += report.num_dead
        self.num_bytes += report.num_bytes
        self.ends += report.ends

    def snapshot(
        self,
        *,
        unsettled: Ends,
        num_committed: int,
        num_actors: int,
        growing_seconds: float,
        store_wait: Wait | None,
        endpoints_away: Collection[str] = (),
        waiting: str,
        work: Work,
    ) -> Snapshot:
        """`unsettled`: how rollouts ended on actors, in shards that are open."""
        num_finished = self.num_ok + self.num_dead + unsettled.total
        return Snapshot(
            num_shards=self.num_shards,
            num_committed=num_committed,
            num_planned=self.num_planned,
            num_finished=num_finished,
            num_ok=self.num_ok,
            num_dead=self.num_dead,
            num_actors=num_actors,
            num_new=num_finished - self.num_before,
            ends=self.ends + unsettled,
            num_bytes=self.num_bytes,
            growing_seconds=growing_seconds,
            store_wait=store_wait,
            endpoints_away=tuple(sorted(endpoints_away)),
            waiting=waiting,
            work=work,
        )
