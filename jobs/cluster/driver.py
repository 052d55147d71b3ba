"""The driver: hands shards to actors as they have room, until all are settled.

It holds no trace and decides nothing about data: an actor reads its shard from the store and writes
it back there. If the driver dies, the next one reads from storage what is done and goes on.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from jobs.cluster.actors import Place, end_actor, start_actor
from jobs.cluster.shard_book import ShardBook, ShardState
from pipeline.plan.reruns import OpenRerun
from pipeline.store.objects import Store
from pipeline.store.status import committed_shards, read_logs
from schemas.errors import (
    CoppiceError,
    FailureKind,
    FatalFailure,
    StoreUnavailable,
    TooManyDead,
)
from schemas.runs import Assignment, RunManifest, ShardEnd, ShardReport, WorkerStatus

_POLL_SECONDS = 0.5
_MAX_DEATHS_IN_A_ROW = 20  # actors that die without a commit or a survived probe between them


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """How far a run is, as its driver sees it."""

    num_shards: int
    num_committed: int
    num_planned: int  # rollouts, as all of the following
    num_finished: int  # committed, or ended on an actor
    num_ok: int  # committed
    num_dead: int  # committed
    num_actors: int  # with their models loaded
    num_new: int  # finished since this driver began
    num_bytes: int  # committed since this driver began
    growing_seconds: float  # since the first actor had its models loaded
    is_store_away: bool = False  # some actor waits for it

    @property
    def rollouts_per_second(self) -> float:
        return self.num_new / self.growing_seconds if self.growing_seconds else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """How a driver's work ended."""

    snapshot: Snapshot
    given_up: dict[int, str]  # shard -> its last failure
    was_stopped: bool


@dataclass(slots=True, eq=False)
class _Actor:
    """An actor as the driver knows it. `waits_for` holds every reference that will resolve."""

    handle: Any
    waits_for: dict[Any, Assignment | None] = field(default_factory=dict)  # None: not a shard
    opening: Any = None  # resolves to its place when the models are loaded
    asking: Any = None  # resolves to status()
    asked_at: float = 0.0
    place: Place | None = None
    num_finished: int = 0  # rollouts that ended there, in shards that are open
    is_store_away: bool = False

    @property
    def is_ready(self) -> bool:
        return self.opening is None

    @property
    def open_shards(self) -> list[Assignment]:
        return [assignment for assignment in self.waits_for.values() if assignment is not None]

    def expect(self, reference: Any, assignment: Assignment | None = None) -> Any:
        self.waits_for[reference] = assignment
        return reference


@dataclass(frozen=True, kw_only=True, slots=True)
class _Death:
    """A process that is gone, and what it had in hand. Was it its own fault, or its node's?"""

    node_id: str
    open_shards: list[Assignment]
    message: str
    judged_at: float


class Driver:
    """Runs the shards of one run on Ray, which must be initialised; or reruns dead keys of some."""

    def __init__(
        self,
        store: Store,
        manifest: RunManifest,
        *,
        show: Callable[[Snapshot], None],
        is_stopping: Callable[[], bool],
        rerun: OpenRerun | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = store.url
        self._manifest = manifest
        self._execution = manifest.config.execution
        self._show = show
        self._is_stopping = is_stopping
        self._rerun = rerun
        self._clock = clock
        self._num_ok = self._num_dead = self._num_before = 0
        self._book = self._open_book(store)
        self._actors: list[_Actor] = []
        self._deaths: list[_Death] = []
        self._num_deaths_in_a_row = 0
        self._num_bytes = 0
        self._growing_since: float | None = None

    def run(self) -> Summary:
        """Grow what is missing. Ends when every shard is settled, or soon after a stop.

        Raises StoreUnavailable if the store did not come back in time, TooManyDead, FatalFailure.
        """
        on_gpu, num_actors = self._places()
        stop_by = float("inf")
        try:
            while self._has_work() and self._clock() < stop_by:
                if self._is_stopping():
                    stop_by = min(stop_by, self._clock() + self._execution.grace_seconds)
                else:
                    self._start_actors(num_actors, on_gpu)
                    self._hand_out()
                self._collect()
                self._judge_deaths()
                self._show(self.snapshot())
        finally:
            for actor in self._actors:
                ray.kill(actor.handle)
        return Summary(
            snapshot=self.snapshot(),
            given_up=dict(self._book.given_up),
            was_stopped=self._is_stopping(),
        )

    def snapshot(self) -> Snapshot:
        """How far the run is now."""
        num_settled = self._num_ok + self._num_dead
        # A status may be older than a report: what it counts of settled shards is no work any more.
        num_ended = sum(
            min(actor.num_finished, sum(map(self._size_of, actor.open_shards)))
            for actor in self._actors
        )
        since = self._growing_since
        return Snapshot(
            num_shards=len(self._rerun.left) if self._rerun else self._manifest.num_shards,
            num_committed=self._book.count(ShardState.DONE) - self._num_left_out,
            num_planned=self._num_planned,
            num_finished=num_settled + num_ended,
            num_ok=self._num_ok,
            num_dead=self._num_dead,
            num_actors=sum(actor.is_ready for actor in self._actors),
            num_new=num_settled + num_ended - self._num_before,
            num_bytes=self._num_bytes,
            growing_seconds=0.0 if since is None else self._clock() - since,
            is_store_away=any(actor.is_store_away for actor in self._actors),
        )

    def _open_book(self, store: Store) -> ShardBook:
        """Read from the store what is done. In a rerun, all but its own shards are."""
        manifest, rerun = self._manifest, self._rerun
        num_shards = manifest.num_shards
        if rerun:
            done = set(range(num_shards)) - rerun.left.keys()
            self._num_left_out = len(done)
            self._num_planned = sum(len(keys) for keys in rerun.left.values())
            return ShardBook(
                num_shards, done, self._execution, lambda shard: len(rerun.left[shard])
            )
        done = committed_shards(store, manifest)
        for log in read_logs(store, manifest, done):
            self._num_ok += log.num_ok
            self._num_dead += log.num_dead
        self._num_left_out = 0
        self._num_planned = manifest.num_rollouts
        self._num_before = self._num_ok + self._num_dead
        return ShardBook(num_shards, done, self._execution, manifest.num_rollouts_of)

    def _has_work(self) -> bool:
        if self._is_stopping():
            return any(actor.open_shards for actor in self._actors)
        return bool(self._book.count(ShardState.WAITING) or self._book.count(ShardState.TAKEN))

    def _places(self) -> tuple[bool, int]:
        """Whether actors take GPUs, and how many actors there should be."""
        execution = self._execution
        resources: dict[str, float] = ray.cluster_resources()
        gpus = resources.get("GPU", 0.0)
        on_gpu = execution.device == "gpu" or (execution.device == "auto" and gpus > 0)
        fitting = (
            gpus / execution.gpus_per_actor
            if on_gpu
            else resources.get("CPU", 1.0) / execution.cpus_per_actor
        )
        wanted = execution.num_actors or max(1, int(fitting))
        return on_gpu, min(wanted, self._book.count(ShardState.WAITING))

    def _start_actors(self, num_actors: int, on_gpu: bool) -> None:
        while len(self._actors) < num_actors:
            actor = _Actor(start_actor(self._url, self._manifest, on_gpu=on_gpu))
            actor.opening = actor.expect(actor.handle.open.remote())
            self._actors.append(actor)

    def _hand_out(self) -> None:
        """One shard at a time to each actor with room, so that the last ones spread evenly."""
        for _ in range(self._execution.open_shards_per_actor):
            for actor in sorted(self._actors, key=lambda actor: len(actor.open_shards)):
                if actor.is_ready and self._has_room(actor):
                    self._try_hand_to(actor)

    def _has_room(self, actor: _Actor) -> bool:
        is_alone = any(assignment.is_alone for assignment in actor.open_shards)
        return not is_alone and len(actor.open_shards) < self._execution.open_shards_per_actor

    def _try_hand_to(self, actor: _Actor) -> None:
        assignment = self._book.take(is_free=not actor.open_shards)
        if assignment is None:
            return
        if self._rerun:
            keys = self._rerun.left[assignment.shard]
            assignment = replace(assignment, rerun_id=self._rerun.rerun.rerun_id, keys=keys)
        else:
            assignment = replace(assignment, num_ok=self._num_ok, num_dead=self._num_dead)
        actor.expect(actor.handle.run_shard.remote(assignment), assignment)

    def _collect(self) -> None:
        """Wait a little for actors to answer, and act on what they say."""
        for actor in self._actors:
            if actor.is_ready and actor.asking is None:
                actor.asking = actor.expect(actor.handle.status.remote())
                actor.asked_at = self._clock()
        owner = {reference: actor for actor in self._actors for reference in actor.waits_for}
        if not owner:
            time.sleep(_POLL_SECONDS)
            return
        ready, _ = ray.wait(list(owner), num_returns=len(owner), timeout=_POLL_SECONDS)
        for reference in ready:
            actor = owner[reference]
            if actor in self._actors:  # it may have been buried by an earlier reference
                self._receive(actor, reference)
        self._end_silent_ones()

    def _end_silent_ones(self) -> None:
        """End actors that do not even say how they are: frozen, or hanging in one long call."""
        limit = self._execution.no_progress_seconds
        for actor in list(self._actors):
            silent = self._clock() - actor.asked_at if actor.asking else 0.0
            if silent > limit:
                end_actor(actor.handle, actor.place)
                self._bury(actor, None, f"the worker has not answered for {silent:.0f} s")

    def _receive(self, actor: _Actor, reference: Any) -> None:
        assignment = actor.waits_for.pop(reference)
        try:
            answer = ray.get(reference)
        except RayActorError as error:
            self._bury(actor, assignment, str(error), is_preempted=error.preempted)
        except RayTaskError as error:
            if assignment is None:
                raise _cause(error) from None
            self._book.failed(assignment.shard, FailureKind.TASK, str(error.cause))
        else:
            if reference == actor.opening:
                actor.opening, actor.place = None, answer
                self._growing_since = self._growing_since or self._clock()
            elif reference == actor.asking:
                self._note_status(actor, answer)
            else:
                assert assignment is not None, "what else it waits for are shards"
                self._settle(actor, assignment, answer)

    def _note_status(self, actor: _Actor, status: WorkerStatus) -> None:
        actor.asking = None
        actor.num_finished, actor.is_store_away = status.num_finished, status.is_store_away

    def _settle(self, actor: _Actor, assignment: Assignment, report: ShardReport) -> None:
        """An attempt at a shard came to its end on an actor."""
        # Until the next status, what was its is not among the rollouts of open shards any more.
        actor.num_finished = max(0, actor.num_finished - self._size_of(assignment))
        match report.end:
            case ShardEnd.FAILED:
                self._settle_failed(actor, assignment, report)
            case ShardEnd.SURVIVED:
                self._num_deaths_in_a_row = 0
                self._book.survived(report.shard)
            case _:
                self._num_deaths_in_a_row = 0
                self._book.done(report.shard)
                self._num_ok += report.num_ok
                self._num_dead += report.num_dead
                self._num_bytes += report.num_bytes

    def _size_of(self, assignment: Assignment) -> int:
        """How many rollouts an attempt is to end."""
        if assignment.only:
            return 0  # a probe's rollouts do not count
        return len(assignment.keys) or self._manifest.num_rollouts_of(assignment.shard)

    def _settle_failed(self, actor: _Actor, assignment: Assignment, report: ShardReport) -> None:
        assert report.kind is not None, "a failure has a kind"
        if report.reason == "too_many_dead":
            raise TooManyDead(report.message)
        if report.reason == "store":  # it was waited for long enough
            raise StoreUnavailable(report.message)
        if report.kind is FailureKind.FATAL:
            raise FatalFailure(report.message, reason=report.reason)
        if report.is_worker_broken and report.kind is FailureKind.TASK:
            end_actor(actor.handle, actor.place)
            self._bury(actor, assignment, report.message)
            return
        if report.is_worker_broken:
            end_actor(actor.handle, actor.place)
            self._actors.remove(actor)
            for other in actor.open_shards:
                self._book.failed(other.shard, report.kind, report.message)
        self._book.failed(report.shard, report.kind, report.message)

    def _bury(
        self,
        actor: _Actor,
        assignment: Assignment | None,
        message: str,
        *,
        is_preempted: bool = False,
    ) -> None:
        """An actor died, with these shards in hand; another takes its place."""
        self._actors.remove(actor)
        open_shards = [*([assignment] if assignment else []), *actor.open_shards]
        if is_preempted:
            for lost in open_shards:
                self._book.failed(lost.shard, FailureKind.INFRASTRUCTURE, message)
            return
        self._num_deaths_in_a_row += 1
        if self._num_deaths_in_a_row >= _MAX_DEATHS_IN_A_ROW:
            raise FatalFailure(
                f"{self._num_deaths_in_a_row} actors died without a single commit between them; "
                f"the last one: {message}",
                reason="actors_die",
            )
        self._deaths.append(
            _Death(
                node_id=actor.place.node_id if actor.place else "",
                open_shards=open_shards,
                message=message,
                judged_at=self._clock() + self._execution.node_check_seconds,
            )
        )

    def _judge_deaths(self) -> None:
        """Suspect the records of a process that died while its node lives, and of no other.

        Ray's node table decides, some time later: exceptions do not tell, and a lost node is seen
        by its processes' ends first.
        """
        due = [death for death in self._deaths if death.judged_at <= self._clock()]
        if not due:
            return
        is_alive = {node["NodeID"]: node["Alive"] for node in ray.nodes()}
        for death in due:
            self._deaths.remove(death)
            for lost in death.open_shards:
                if is_alive.get(death.node_id):
                    self._book.died(lost.shard, death.message)
                else:
                    message = f"its node was lost: {death.message}"
                    self._book.failed(lost.shard, FailureKind.INFRASTRUCTURE, message)


def _cause(error: RayTaskError) -> Exception:
    """What went wrong in the actor, as itself if it is ours: Ray wraps it in a traceback."""
    return error.cause if isinstance(error.cause, CoppiceError) else error
