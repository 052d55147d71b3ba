"""The driver: hands shards to actors as they have room, until all are settled.

It holds no trace and decides nothing about data: an actor reads its shard from the store and writes
it back there. If the driver dies, the next one reads from storage what is done and goes on.
"""

import time
from collections.abc import Callable

import ray
from ray.exceptions import RayActorError, RayTaskError

from jobs.cluster.actors import Reference, RemoteActor, start_actor
from jobs.cluster.deaths import Deaths
from jobs.cluster.shard_book import ShardBook, ShardState, Turn
from jobs.cluster.snapshot import Snapshot, Summary, Tally
from pipeline.engine.soundness import Device
from pipeline.plan.reruns import OpenRerun
from pipeline.store.objects import Store
from pipeline.store.status import take_stock
from schemas.errors import (
    CoppiceError,
    FailureKind,
    StoreUnavailable,
    TooManyDead,
    fatal_failure,
)
from schemas.runs import (
    Assignment,
    BringBack,
    Grow,
    Probe,
    Remedy,
    RunManifest,
    ShardEnd,
    ShardFailure,
    ShardReport,
)

_POLL_SECONDS = 0.5


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
        self._book, self._tally = (
            _begin_rerun(manifest, rerun) if rerun else _begin_run(store, manifest)
        )
        self._num_left_out = manifest.num_shards - self._tally.num_shards
        self._actors: list[RemoteActor] = []
        self._deaths = Deaths(
            node_check_seconds=self._execution.node_check_seconds,
            living_nodes=_living_nodes,
            clock=clock,
        )
        self._growing_since: float | None = None

    def run(self) -> Summary:
        """Grow what is missing. Ends when every shard is settled, or soon after a stop.

        Raises StoreUnavailable if the store did not come back in time, TooManyDead, FatalFailure.
        """
        device, num_actors = self._actors_wanted()
        stop_by = float("inf")
        try:
            while self._has_work() and self._clock() < stop_by:
                if self._is_stopping():
                    stop_by = min(stop_by, self._clock() + self._execution.grace_seconds)
                else:
                    while len(self._actors) < num_actors:
                        self._actors.append(start_actor(self._url, self._manifest, device=device))
                    self._hand_out()
                self._collect()
                self._end_silent_actors()
                self._deaths.judge(self._book)
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
        # A status may be older than a report: what it counts of settled shards is no work any more.
        num_unsettled = sum(
            min(actor.num_finished, sum(map(self._size_of, actor.open_shards)))
            for actor in self._actors
        )
        since = self._growing_since
        return self._tally.snapshot(
            num_unsettled=num_unsettled,
            num_committed=self._book.count(ShardState.DONE) - self._num_left_out,
            num_actors=sum(actor.is_ready for actor in self._actors),
            growing_seconds=0.0 if since is None else self._clock() - since,
            is_store_away=any(actor.is_store_away for actor in self._actors),
        )

    def _has_work(self) -> bool:
        if self._is_stopping():
            return any(actor.open_shards for actor in self._actors)
        return bool(self._book.count(ShardState.WAITING) or self._book.count(ShardState.TAKEN))

    def _actors_wanted(self) -> tuple[Device, int]:
        """What actors compute on, and how many actors there should be."""
        execution = self._execution
        resources: dict[str, float] = ray.cluster_resources()
        gpus = resources.get("GPU", 0.0)
        decided: Device = "gpu" if gpus > 0 else "cpu"
        device = decided if execution.device == "auto" else execution.device
        fitting = (
            gpus / execution.gpus_per_actor
            if device == "gpu"
            else resources.get("CPU", 1.0) / execution.cpus_per_actor
        )
        wanted = execution.num_actors or max(1, int(fitting))
        return device, min(wanted, self._book.count(ShardState.WAITING))

    def _hand_out(self) -> None:
        """One shard at a time to each actor with room, so that the last ones spread evenly."""
        max_open = self._execution.open_shards_per_actor
        for _ in range(max_open):
            for actor in sorted(self._actors, key=lambda actor: len(actor.open_shards)):
                if not actor.has_room(max_open):
                    continue
                turn = self._book.take(is_free=not actor.open_shards)
                if turn is not None:
                    actor.hand(self._assignment_of(turn))

    def _assignment_of(self, turn: Turn) -> Assignment:
        whole = self._whole_of(turn)
        if turn.suspects is None:
            return whole
        start, stop = turn.suspects
        return Probe(whole=whole, start=start, stop=stop)

    def _whole_of(self, turn: Turn) -> Grow | BringBack:
        attempt, tally, rerun = turn.attempt, self._tally, self._rerun
        if rerun is None:
            return Grow(attempt=attempt, num_ok=tally.num_ok, num_dead=tally.num_dead)
        keys = rerun.left[attempt.shard]
        return BringBack(attempt=attempt, rerun_id=rerun.rerun.rerun_id, keys=keys)

    def _collect(self) -> None:
        """Wait a little for actors to answer, and act on what they say."""
        for actor in self._actors:
            actor.ask(self._clock())
        owner = {reference: actor for actor in self._actors for reference in actor.references()}
        if not owner:
            time.sleep(_POLL_SECONDS)
            return
        ready, _ = ray.wait(list(owner), num_returns=len(owner), timeout=_POLL_SECONDS)
        for reference in ready:
            actor = owner[reference]
            if actor in self._actors:  # it may have been buried by an earlier reference
                self._receive(actor, reference)

    def _end_silent_actors(self) -> None:
        """End actors that do not even say how they are: frozen, or hanging in one long call."""
        for actor in list(self._actors):
            silent_seconds = actor.silent_seconds(self._clock())
            if silent_seconds > self._execution.no_progress_seconds:
                actor.end()
                message = f"the worker has not answered for {silent_seconds:.0f} s"
                self._bury(actor, actor.open_shards, message)

    def _receive(self, actor: RemoteActor, reference: Reference) -> None:
        """Take an answer of an actor, or find that it died."""
        assignment = actor.growing.pop(reference, None)
        try:
            answer = ray.get(reference)
        except RayActorError as error:
            lost = [*([assignment] if assignment else []), *actor.open_shards]
            self._bury(actor, lost, str(error), is_preempted=error.preempted)
        except RayTaskError as error:
            if assignment is None:
                raise _cause(error) from None
            self._book.failed(assignment.attempt.shard, FailureKind.TASK, str(error.cause))
        else:
            if assignment is not None:
                self._settle(actor, assignment, answer)
            elif reference == actor.asking:
                actor.note_status(answer)
            else:
                actor.opening, actor.address = None, answer
                self._growing_since = self._growing_since or self._clock()

    def _settle(self, actor: RemoteActor, assignment: Assignment, report: ShardReport) -> None:
        """An attempt at a shard came to its end on an actor."""
        # Until the next status, what was its is not among the rollouts of open shards any more.
        actor.num_finished = max(0, actor.num_finished - self._size_of(assignment))
        if report.failure:
            self._settle_failed(actor, assignment, report.failure)
            return
        self._deaths.break_row()
        if report.end is ShardEnd.SURVIVED:
            self._book.survived(report.shard)
        else:
            self._book.done(report.shard)
            self._tally.add(report)

    def _size_of(self, assignment: Assignment) -> int:
        """How many rollouts an attempt is to end."""
        match assignment:
            case Grow(attempt=attempt):
                return self._manifest.num_rollouts_of(attempt.shard)
            case BringBack(keys=keys):
                return len(keys)
            case Probe():
                return 0  # its rollouts do not count

    def _settle_failed(
        self, actor: RemoteActor, assignment: Assignment, failure: ShardFailure
    ) -> None:
        match failure.remedy:
            case Remedy.STOP_FOR_DEAD:
                raise TooManyDead(failure.message)
            case Remedy.STOP_FOR_STORE:
                raise StoreUnavailable(failure.message)
            case Remedy.STOP:
                raise fatal_failure(failure.message, reason=failure.reason)
            case Remedy.SUSPECT_RECORDS:
                actor.end()
                self._bury(actor, [assignment, *actor.open_shards], failure.message)
            case Remedy.REPLACE_WORKER:
                actor.end()
                self._actors.remove(actor)
                self._give_back([*actor.open_shards, assignment], failure.kind, failure.message)
            case Remedy.GIVE_BACK:
                self._give_back([assignment], failure.kind, failure.message)

    def _bury(
        self,
        actor: RemoteActor,
        lost: list[Assignment],
        message: str,
        *,
        is_preempted: bool = False,
    ) -> None:
        """An actor died with these shards in hand; another takes its place."""
        self._actors.remove(actor)
        if is_preempted:
            self._give_back(lost, FailureKind.INFRASTRUCTURE, message)
            return
        node_id = actor.address.node_id if actor.address else ""
        self._deaths.add(node_id, [assignment.attempt.shard for assignment in lost], message)

    def _give_back(self, assignments: list[Assignment], kind: FailureKind, message: str) -> None:
        for assignment in assignments:
            self._book.failed(assignment.attempt.shard, kind, message)


def _begin_run(store: Store, manifest: RunManifest) -> tuple[ShardBook, Tally]:
    """Read from the store what is done of a run."""
    stock = take_stock(store, manifest)
    tally = Tally(
        num_shards=manifest.num_shards,
        num_planned=manifest.num_rollouts,
        num_ok=stock.num_ok,
        num_dead=stock.num_dead,
        num_before=stock.num_ok + stock.num_dead,
    )
    execution = manifest.config.execution
    book = ShardBook(manifest.num_shards, stock.committed(), execution, manifest.num_rollouts_of)
    return book, tally


def _begin_rerun(manifest: RunManifest, rerun: OpenRerun) -> tuple[ShardBook, Tally]:
    """Of a rerun's shards none is done, and all others are."""
    left = rerun.left
    done = set(range(manifest.num_shards)) - left.keys()
    tally = Tally(num_shards=len(left), num_planned=sum(map(len, left.values())))
    execution = manifest.config.execution
    return ShardBook(manifest.num_shards, done, execution, lambda shard: len(left[shard])), tally


def _living_nodes() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _cause(error: RayTaskError) -> Exception:
    """What went wrong in the actor, as itself if it is ours: Ray wraps it in a traceback."""
    return error.cause if isinstance(error.cause, CoppiceError) else error
