"""The driver: hands shards to actors as they have room, until all are settled.

It holds no trace and decides nothing about data: an actor reads its shard from the store and writes
it back there. If the driver dies, the next one reads from storage what is done and goes on.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import ray
from ray.exceptions import RayError, RayTaskError

from jobs.cluster.actors import ActorAddress, Reference, RemoteActor
from jobs.cluster.crew import Crew
from jobs.cluster.deaths import Deaths
from jobs.cluster.ray_errors import Loss, loss_of, may_live, told
from jobs.cluster.ray_state import living_nodes
from jobs.cluster.serving.fleet import Fleet
from jobs.cluster.shard_book import ShardBook, ShardState, Turn
from jobs.cluster.snapshot import Snapshot, Summary, Tally
from pipeline.file_names import quoted
from pipeline.plan.reruns import OpenRerun
from pipeline.store.objects import Store
from pipeline.store.status import take_stock
from schemas.errors import (
    DAMAGED_REASONS,
    ClusterLost,
    CoppiceError,
    EndpointAway,
    FailureKind,
    StoreUnavailable,
    TooManyDead,
    fatal_failure,
)
from schemas.runs import (
    Assignment,
    BringBack,
    Ends,
    Grow,
    Probe,
    Remedy,
    RunManifest,
    ShardEnd,
    ShardFailure,
    ShardReport,
    Work,
    WorkerStatus,
)

_POLL_SECONDS = 0.5
_MAX_FAILED_OPENINGS = 3  # before any actor had its models loaded


class Driver:
    """Runs the shards of one run on Ray, which must be initialised; or reruns dead keys of some."""

    def __init__(
        self,
        store: Store,
        manifest: RunManifest,
        *,
        show: Callable[[Snapshot], None],
        is_stopping: Callable[[], bool],
        note: Callable[[str], None] = lambda line: None,
        publish: Callable[[Sequence[ActorAddress]], None] = lambda addresses: None,
        is_head_there: Callable[[], bool] = lambda: True,
        rerun: OpenRerun | None = None,
        fleet: Fleet | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`note` is told what happens to actors, and `publish` where all of them are. `fleet` are
        the run's own servers, if it has some.

        While `is_head_there` says no, nothing is asked of Ray's head, which would block.
        """
        self._url = store.url
        self._manifest = manifest
        self._execution = manifest.config.execution
        self._show = show
        self._is_stopping = is_stopping
        self._note = note
        self._publish = publish
        self._is_head_there = is_head_there
        self._rerun = rerun
        self._clock = clock
        self._book, self._tally = (
            _begin_rerun(manifest, rerun) if rerun else _begin_run(store, manifest)
        )
        self._num_left_out = manifest.num_shards - self._tally.num_shards
        self._fleet = fleet
        self._crew = Crew(self._url, manifest, clock=clock, note=note, fleet=fleet)
        self._published: list[ActorAddress] = []
        self._num_failed_openings = 0
        self._deaths = Deaths(
            node_check_seconds=self._execution.node_check_seconds,
            living_nodes=living_nodes,
            clock=clock,
        )
        self._growing_since: float | None = None
        self._work: dict[ActorAddress | None, Work] = {}  # of every actor that there was
        self._is_damaged = False

    def run(self) -> Summary:
        """Grow what is missing. Ends when every shard is settled, or soon after a stop.

        Raises StoreUnavailable if the store did not come back in time, TooManyDead, FatalFailure,
        ClusterLost, EndpointAway, and InputError for what no node of this Ray can ever do.
        """
        stop_by = float("inf")
        try:
            while self._has_work() and self._clock() < stop_by:
                if self._is_ending():
                    stop_by = min(stop_by, self._clock() + self._execution.grace_seconds)
                else:
                    if self._is_head_there():
                        self._crew.follow(self._book.num_unsettled)
                    self._hand_out()
                self._collect()
                self._end_silent_actors()
                self._end_leaving_actors()
                if self._is_head_there():
                    self._deaths.judge(self._book)
                    if self._fleet:
                        self._fleet.look()
                self._publish_places()
                self._show(self.snapshot())
        finally:
            for actor in self._crew.actors:
                with suppress(RayError):  # a Ray that is gone has none of them any more
                    actor.drop()
        return Summary(
            snapshot=self.snapshot(),
            given_up=dict(self._book.given_up),
            was_stopped=self._is_ending(),
            is_damaged=self._is_damaged,
        )

    def snapshot(self) -> Snapshot:
        """How far the run is now."""
        since = self._growing_since
        return self._tally.snapshot(
            unsettled=sum((actor.open_ends for actor in self._crew.actors), Ends()),
            num_committed=self._book.count(ShardState.DONE) - self._num_left_out,
            num_actors=sum(actor.is_ready for actor in self._crew.actors),
            growing_seconds=0.0 if since is None else self._clock() - since,
            store_wait=next(filter(None, (actor.store_wait for actor in self._crew.actors)), None),
            endpoints_away={name for actor in self._crew.actors for name in actor.endpoints_away},
            waiting=self._crew.waiting,
            work=sum(self._work.values(), Work()),
        )

    def _is_ending(self) -> bool:
        """Whether it was asked to stop, or its own node is going."""
        return self._is_stopping() or self._crew.is_own_node_going

    def _has_work(self) -> bool:
        if self._is_ending():
            return any(actor.open_shards for actor in self._crew.actors)
        return self._book.num_unsettled > 0

    def _hand_out(self) -> None:
        """One shard at a time to each actor with room, so that the last ones spread evenly."""
        max_open = self._execution.open_shards_per_actor
        for _ in range(max_open):
            for actor in sorted(self._crew.actors, key=lambda actor: len(actor.open_shards)):
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
        for actor in self._crew.actors:
            actor.ask(self._clock())
        owner = {
            reference: actor for actor in self._crew.actors for reference in actor.references()
        }
        if not owner:
            time.sleep(_POLL_SECONDS)
            return
        ready, _ = ray.wait(list(owner), num_returns=len(owner), timeout=_POLL_SECONDS)
        for reference in ready:
            actor = owner[reference]
            if actor in self._crew.actors:  # it may have been buried by an earlier reference
                self._receive(actor, reference)

    def _end_silent_actors(self) -> None:
        """End actors that do not even say how they are: frozen, or hanging in one long call."""
        for actor in list(self._crew.actors):
            silent_seconds = actor.silent_seconds(self._clock())
            if silent_seconds > self._execution.no_progress_seconds:
                actor.end()
                message = f"the worker has not answered for {silent_seconds:.0f} s"
                self._bury(actor, actor.open_shards, Loss.PROCESS, message)

    def _end_leaving_actors(self) -> None:
        """What an actor had in hand when it had to leave goes back, and costs no budget."""
        for actor in self._crew.pop_gone():
            for assignment in actor.open_shards:
                self._book.hand_back(assignment.attempt.shard)

    def _publish_places(self) -> None:
        addresses = [actor.address for actor in self._crew.actors if actor.address]
        if addresses != self._published:
            self._published = addresses
            self._publish(addresses)

    def _receive(self, actor: RemoteActor, reference: Reference) -> None:
        """Take an answer of an actor, or find that it is lost."""
        assignment = actor.growing.pop(reference, None)
        try:
            answer = ray.get(reference)
        except RayTaskError as error:
            if assignment is None:
                self._refuse(actor, error)
            else:
                self._book.failed(assignment.attempt.shard, FailureKind.TASK, str(error.cause))
        except RayError as error:
            loss, lost = loss_of(error), [*([assignment] if assignment else []), *actor.open_shards]
            if loss is Loss.DRIVER:
                raise ClusterLost(
                    f"Ray does not take this driver's calls any more: {told(error)}; what is "
                    f"committed stays, and this goes on: coppice run {quoted(self._url)}"
                ) from error
            (actor.end if may_live(error) else actor.drop)()
            self._bury(actor, lost, loss, told(error))
        else:
            self._take(actor, reference, assignment, answer)

    def _take(
        self,
        actor: RemoteActor,
        reference: Reference,
        assignment: Assignment | None,
        answer: ShardReport | WorkerStatus | ActorAddress | None,
    ) -> None:
        """Take what an actor answered."""
        match answer:
            case ShardReport() if assignment is not None:
                self._settle(actor, assignment, answer)
            case WorkerStatus():
                actor.note_status(answer)
                self._work[actor.address] = answer.work
            case ActorAddress():
                actor.placing, actor.address = None, answer
            case _:
                actor.opening = None
                self._growing_since = self._growing_since or self._clock()

    def _refuse(self, actor: RemoteActor, error: RayTaskError) -> None:
        """An actor could not open its models. Where none ever could, that ends the run."""
        cause = error.cause
        if self._growing_since is None and isinstance(cause, CoppiceError):
            raise cause from None
        self._num_failed_openings += 1
        is_first = self._growing_since is None
        message = f"no models on {actor.address or 'a node'}: {type(cause).__name__}: {cause}"
        if is_first and self._num_failed_openings >= _MAX_FAILED_OPENINGS:
            raise fatal_failure(
                f"{self._num_failed_openings} actors could not load the models; {message}",
                reason="no_models",
            )
        is_hopeless = isinstance(cause, CoppiceError) and not isinstance(cause, EndpointAway)
        self._crew.failed_on(actor.node_id, is_hopeless=is_hopeless)
        actor.end()
        self._bury(actor, [], Loss.ACTOR, message)

    def _settle(self, actor: RemoteActor, assignment: Assignment, report: ShardReport) -> None:
        """An attempt at a shard came to its end on an actor."""
        self._work[actor.address] = report.work
        if report.failure:
            self._settle_failed(actor, assignment, report.failure)
            return
        self._deaths.break_row()
        self._crew.did_well_on(actor.node_id)
        if report.end is ShardEnd.SURVIVED:
            self._book.survived(report.shard)
        else:
            self._book.done(report.shard)
            self._tally.add(report)

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
                lost = [assignment, *actor.open_shards]
                self._bury(actor, lost, Loss.PROCESS, failure.message)
            case Remedy.REPLACE_WORKER:
                actor.end()
                self._crew.actors.remove(actor)
                self._crew.failed_on(actor.node_id)
                self._give_back([*actor.open_shards, assignment], failure.kind, failure.message)
            case Remedy.GIVE_BACK:
                self._give_back([assignment], failure.kind, failure.message)
            case Remedy.GIVE_UP:
                # Without its plan file a shard is missing; what stands and is damaged is worse.
                self._is_damaged |= failure.reason in DAMAGED_REASONS
                self._give_back([assignment], FailureKind.FATAL, failure.message)

    def _bury(
        self, actor: RemoteActor, lost: Sequence[Assignment], loss: Loss, message: str
    ) -> None:
        """An actor is lost with these shards in hand; another takes its place."""
        self._crew.actors.remove(actor)
        self._note(f"Lost an actor on {actor.address or 'no node yet'}: {message}")
        if loss is Loss.PREEMPTED or actor.is_leaving:
            for assignment in lost:
                self._book.hand_back(assignment.attempt.shard)
            return
        if all(assignment.attempt.number == 1 for assignment in lost):  # else its record is suspect
            self._crew.failed_on(actor.node_id)
        if loss is Loss.PROCESS:
            shards = [assignment.attempt.shard for assignment in lost]
            self._deaths.add(actor.node_id, shards, message)
        else:
            self._give_back(lost, FailureKind.INFRASTRUCTURE, message)
            self._deaths.count(message)

    def _give_back(
        self, assignments: Sequence[Assignment], kind: FailureKind, message: str
    ) -> None:
        for assignment in assignments:
            self._book.failed(assignment.attempt.shard, kind, message)


def _begin_run(store: Store, manifest: RunManifest) -> tuple[ShardBook, Tally]:
    """Read from the store what is done of a run."""
    stock = take_stock(store, manifest)
    tally = Tally(
        num_shards=manifest.num_shards - len(stock.damage),
        num_planned=manifest.num_rollouts - stock.num_unreadable,
        num_ok=stock.num_ok,
        num_dead=stock.num_dead,
        num_before=stock.num_ok + stock.num_dead,
    )
    execution = manifest.config.execution
    done = (*stock.committed(), *stock.damage)  # what is damaged waits for `coppice repair`
    book = ShardBook(manifest.num_shards, done, execution, manifest.num_rollouts_of)
    return book, tally


def _begin_rerun(manifest: RunManifest, rerun: OpenRerun) -> tuple[ShardBook, Tally]:
    """Of a rerun's shards none is done, and all others are."""
    left = rerun.left
    done = set(range(manifest.num_shards)) - left.keys()
    tally = Tally(num_shards=len(left), num_planned=sum(map(len, left.values())))
    execution = manifest.config.execution
    return ShardBook(manifest.num_shards, done, execution, lambda shard: len(left[shard])), tally
