"""The driver: hands shards to actors as they have room, until all are settled.

It holds no trace and decides nothing about data: an actor reads its shard from the store and writes
it back there. If the driver dies, the next one reads from storage what is done and goes on.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from jobs.actors import start_actor
from jobs.book import ShardBook, ShardState
from pipeline.store.objects import Store
from pipeline.store.status import committed_shards, read_logs
from schemas.errors import CoppiceError, FailureKind, FatalFailure
from schemas.runs import Assignment, RunManifest, ShardEnd, ShardReport

_POLL_SECONDS = 0.5
_MAX_DEATHS_IN_A_ROW = 20  # actors that die without any commit between them


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
    opening: Any = None  # resolves when the models are loaded
    asking: Any = None  # resolves to num_finished()
    num_finished: int = 0  # rollouts that ended there
    num_settled: int = 0  # of those, in shards that were committed or given back

    @property
    def num_open(self) -> int:
        return sum(assignment is not None for assignment in self.waits_for.values())

    def expect(self, reference: Any, assignment: Assignment | None = None) -> Any:
        self.waits_for[reference] = assignment
        return reference


class Driver:
    """Runs the shards of one run on Ray, which must be initialised."""

    def __init__(
        self,
        store: Store,
        manifest: RunManifest,
        *,
        show: Callable[[Snapshot], None],
        is_stopping: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = store.url
        self._manifest = manifest
        self._execution = manifest.config.execution
        self._show = show
        self._is_stopping = is_stopping
        self._clock = clock
        committed = committed_shards(store, manifest)
        self._num_ok = self._num_dead = 0
        for log in read_logs(store, manifest, committed):
            self._num_ok += log.num_ok
            self._num_dead += log.num_dead
        self._num_before = self._num_ok + self._num_dead
        self._book = ShardBook(manifest.num_shards, committed, self._execution)
        self._actors: list[_Actor] = []
        self._num_deaths_in_a_row = 0
        self._num_bytes = 0
        self._growing_since: float | None = None

    def run(self) -> Summary:
        """Grow what is missing. Ends when every shard is settled, or soon after a stop."""
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
        num_committed = self._num_ok + self._num_dead
        num_ended = sum(max(0, actor.num_finished - actor.num_settled) for actor in self._actors)
        since = self._growing_since
        return Snapshot(
            num_shards=self._manifest.num_shards,
            num_committed=self._book.count(ShardState.DONE),
            num_planned=self._manifest.num_rollouts,
            num_finished=num_committed + num_ended,
            num_ok=self._num_ok,
            num_dead=self._num_dead,
            num_actors=sum(actor.opening is None for actor in self._actors),
            num_new=num_committed + num_ended - self._num_before,
            num_bytes=self._num_bytes,
            growing_seconds=0.0 if since is None else self._clock() - since,
        )

    def _has_work(self) -> bool:
        if self._is_stopping():
            return any(actor.num_open for actor in self._actors)
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
            for actor in sorted(self._actors, key=lambda actor: actor.num_open):
                if actor.opening is None and actor.num_open < self._execution.open_shards_per_actor:
                    assignment = self._book.take()
                    if assignment is None:
                        return
                    actor.expect(actor.handle.run_shard.remote(assignment), assignment)

    def _collect(self) -> None:
        """Wait a little for actors to answer, and act on what they say."""
        for actor in self._actors:
            if actor.opening is None and actor.asking is None:
                actor.asking = actor.expect(actor.handle.num_finished.remote())
        owner = {reference: actor for actor in self._actors for reference in actor.waits_for}
        if not owner:
            time.sleep(_POLL_SECONDS)
            return
        ready, _ = ray.wait(list(owner), num_returns=len(owner), timeout=_POLL_SECONDS)
        for reference in ready:
            actor = owner[reference]
            if actor in self._actors:  # it may have been buried by an earlier reference
                self._receive(actor, reference)

    def _receive(self, actor: _Actor, reference: Any) -> None:
        assignment = actor.waits_for.pop(reference)
        try:
            answer = ray.get(reference)
        except RayActorError as error:
            self._bury(actor, assignment, str(error))
        except RayTaskError as error:
            if assignment is None:
                raise _cause(error) from None
            self._book.failed(assignment.shard, FailureKind.TASK, str(error.cause))
        else:
            if reference == actor.opening:
                actor.opening = None
                self._growing_since = self._growing_since or self._clock()
            elif reference == actor.asking:
                actor.num_finished, actor.asking = answer, None
            else:
                self._settle(actor, answer)

    def _settle(self, actor: _Actor, report: ShardReport) -> None:
        """A shard came to its end on an actor."""
        actor.num_settled += report.num_ok + report.num_dead
        if report.end is not ShardEnd.FAILED:
            self._num_deaths_in_a_row = 0
            self._book.done(report.shard)
            self._num_ok += report.num_ok
            self._num_dead += report.num_dead
            self._num_bytes += report.num_bytes
        elif report.kind is FailureKind.FATAL:
            raise FatalFailure(report.message, reason=report.reason)
        else:
            assert report.kind is not None, "a failure has a kind"
            self._book.failed(report.shard, report.kind, report.message)

    def _bury(self, actor: _Actor, assignment: Assignment | None, message: str) -> None:
        """An actor died: its open shards are given back, and another takes its place."""
        for open_shard in filter(None, [assignment, *actor.waits_for.values()]):
            self._book.failed(open_shard.shard, FailureKind.INFRASTRUCTURE, message)
        self._actors.remove(actor)
        self._num_deaths_in_a_row += 1
        if self._num_deaths_in_a_row >= _MAX_DEATHS_IN_A_ROW:
            raise FatalFailure(
                f"{self._num_deaths_in_a_row} actors died without a single commit between them; "
                f"the last one: {message}",
                reason="actors_die",
            )


def _cause(error: RayTaskError) -> Exception:
    """What went wrong in the actor, as itself if it is ours: Ray wraps it in a traceback."""
    return error.cause if isinstance(error.cause, CoppiceError) else error
