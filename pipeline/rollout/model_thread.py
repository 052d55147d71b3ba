"""The thread that owns the models: drives the rollouts of all open shards at once.

The stragglers of one shard share the machine with the first rollouts of the next. Who opens a shard
waits for its outcomes on a queue; a shard that was left is skipped.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from pipeline.engine.backends import LoadedBackends
from pipeline.pictures import Pixels
from pipeline.rollout.meter import Meter, Phase
from pipeline.rollout.traces import as_numbers, canvases_to_keep, ends_of
from pipeline.twig.drive import Backends, Outcome, Rollout, drive
from pipeline.twig.requests import Answer, Backend, Request, RequestId
from schemas.config import RunConfig
from schemas.errors import FailureKind, RecordFailure, RolloutError, TaskFailure
from schemas.runs import EndpointUsage, Ends

_LOOKS_A_LIMIT = 8  # how often a hang is looked for within the time that makes one


@dataclass(slots=True, eq=False)
class OpenShard:
    """Where the models' thread leaves what a shard's own thread waits for."""

    attempt_id: str = ""  # empty of a probe: its rollouts are no part of the work that is done
    is_abandoned: bool = False
    ends: Ends = field(default_factory=Ends)
    _grown: "queue.SimpleQueue[tuple[Outcome, list[Pixels], float] | RolloutError]" = field(
        default_factory=queue.SimpleQueue
    )

    def add(self, outcome: Outcome, pixels: list[Pixels], ends: Ends) -> None:
        """A rollout ended, and these are the pictures to keep of it."""
        self.ends += ends
        self._grown.put((outcome, pixels, time.time()))

    def fail(self, error: RolloutError) -> None:
        """The shard cannot end here any more: whoever waits for it gets the error."""
        self._grown.put(error)

    def next_grown(self) -> tuple[Outcome, list[Pixels], float]:
        """An ended rollout, its pictures, and when it ended. Raises what the shard failed with."""
        grown = self._grown.get()
        if isinstance(grown, RolloutError):
            raise grown
        return grown


class ModelThread:
    """Grows what it is fed. Once `broken`, it grows nothing any more, and its process should end.

    It breaks when the models raise what is no failure of a rollout, and when no answer has come for
    `no_progress_seconds`: then its thread hangs in the models, and no one can call it back.
    """

    def __init__(self, loaded: LoadedBackends, config: RunConfig, meter: Meter) -> None:
        self._loaded = loaded
        self._config = config
        self.meter = meter
        self._watchdog = _Watchdog(meter, self._clock)
        self._feed = _Feed(self._watchdog, meter)
        self._lock = threading.Lock()
        self._open: list[OpenShard] = []
        self.broken: TaskFailure | None = None
        self.num_ok = 0  # rollouts since it began
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._grow, name="models", daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def feed(self, rollouts: Iterable[Rollout]) -> None:
        """Take rollouts whose tags are open shards."""
        self._feed.add(rollouts)

    @property
    def ends(self) -> dict[str, Ends]:
        """How rollouts ended of shards that are open, by attempt id."""
        with self._lock:
            return {shard.attempt_id: shard.ends for shard in self._open if shard.attempt_id}

    @property
    def num_rows_busy(self) -> int:
        """Requests that the models have not answered."""
        return self._watchdog.num_asked

    @property
    def endpoint_usage(self) -> dict[str, EndpointUsage]:
        """What the answers of endpoints took, those too that no shard came to keep."""
        endpoints = self._loaded.endpoints.items()
        return {name: endpoint.client.usage for name, endpoint in endpoints}

    @property
    def endpoints_away(self) -> tuple[str, ...]:
        """The endpoints that some question waits for."""
        endpoints = self._loaded.endpoints.items()
        return tuple(name for name, endpoint in endpoints if endpoint.client.is_away)

    @contextmanager
    def opened_shard(self, attempt_id: str) -> Iterator[OpenShard]:
        """A shard to tag rollouts with. What still runs of it when it is left, is dropped."""
        shard = OpenShard(attempt_id=attempt_id)
        with self._lock:
            if self.broken:
                raise self.broken
            self._open.append(shard)
        try:
            yield shard
        finally:
            shard.is_abandoned = True
            with self._lock:
                self._open.remove(shard)

    def close(self) -> None:
        """Stop growing. Shards that are still open fail."""
        self._feed.close()
        self._thread.join()
        self._loaded.close()

    def _grow(self) -> None:
        execution = self._config.execution
        reason = "the worker was closed"
        try:
            for outcome in drive(
                self._feed,
                self._watchdog.watching(self._loaded.backends),
                max_live=execution.live_rollouts_per_actor,
                max_seconds=execution.rollout_timeout_seconds,
                clock=self._clock,
            ):
                self._watchdog.beat()
                self._hand_over(outcome)
        except Exception as error:  # a bug or a device error: no open shard can end here any more
            reason = f"{type(error).__name__}: {error}"
        self._break(TaskFailure(f"the models stopped: {reason}", reason="worker"))
        self._ended.set()

    def _clock(self) -> float:
        """Seconds, without those in which some request waited for an endpoint to come back: no
        rollout is too slow for that, and no model hangs.
        """
        endpoints = self._loaded.endpoints.values()
        away = max((endpoint.client.away_seconds for endpoint in endpoints), default=0.0)
        return time.monotonic() - away

    def _watch(self) -> None:
        """The thread that notices when the models' thread does not come back."""
        limit = self._config.execution.no_progress_seconds
        while not self._ended.wait(limit / _LOOKS_A_LIMIT):
            silent = self._watchdog.silent_seconds()
            if self._feed.is_out and silent > limit:
                hung = f"the models have not answered for {silent:.0f} s"
                self._break(TaskFailure(hung, reason="hung"))
                return

    def _break(self, error: TaskFailure) -> None:
        with self._lock:
            self.broken = self.broken or error
            for shard in self._open:
                shard.fail(error)

    def _hand_over(self, outcome: Outcome) -> None:
        shard: OpenShard = outcome.rollout.tag
        self._feed.ended()
        if shard.is_abandoned:
            return
        if outcome.error and outcome.error.kind is not FailureKind.RECORD:
            shard.fail(outcome.error)
            return
        outcome, pixels = self._painted(as_numbers(outcome))
        error = outcome.error
        ends = ends_of(outcome.events, error.reason if error else None)
        self.meter.add_rollout(outcome.events, ends)
        shard.add(outcome, pixels, ends)
        self.num_ok += outcome.error is None

    def _painted(self, outcome: Outcome) -> tuple[Outcome, list[Pixels]]:
        """The outcome and the pictures to keep of it; dead and without any if they are none."""
        canvases = canvases_to_keep(outcome, self._config.method.pictures)
        try:
            with self.meter.timing(Phase.PAINT):
                return outcome, self._loaded.painter.paint(canvases)
        except RecordFailure as failure:
            return replace(outcome, codes=(), error=outcome.error or failure), []


class _Feed:
    """Rollouts that wait to be taken up: those of older shards first, abandoned ones skipped."""

    def __init__(self, watchdog: "_Watchdog", meter: Meter) -> None:
        self._watchdog = watchdog
        self._meter = meter
        self._waiting: deque[Rollout] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._num_out = 0

    @property
    def is_out(self) -> bool:
        """Whether something was taken that has not ended."""
        return self._num_out > 0

    def add(self, rollouts: Iterable[Rollout]) -> None:
        with self._changed:
            self._waiting.extend(rollouts)
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def ended(self) -> None:
        self._num_out -= 1  # only the models' thread counts

    def take(self, *, wait: bool) -> Rollout | None:
        with self._changed:
            while not self._is_closed:
                while self._waiting:
                    rollout = self._waiting.popleft()
                    if not rollout.tag.is_abandoned:
                        self._watchdog.beat()  # silence counts from here
                        self._num_out += 1
                        return rollout
                if not wait:
                    break
                with self._meter.timing(Phase.IDLE):
                    self._changed.wait()
        return None


class _Watchdog:
    """When the models last gave a sign of life: an answer, or a rollout that ended."""

    def __init__(self, meter: Meter, clock: Callable[[], float]) -> None:
        self.meter = meter
        self.num_asked = 0  # requests without an answer
        self._clock = clock
        self._last = clock()

    def beat(self) -> None:
        self._last = self._clock()

    def silent_seconds(self) -> float:
        return self._clock() - self._last

    def watching(self, backends: Backends) -> Backends:
        """The same backends, each answer of theirs a beat."""
        by_name = {name: _Watched(backend, self) for name, backend in backends.by_name.items()}
        return replace(backends, by_name=by_name)


class _Watched:
    """A backend whose questions and answers are signs of life."""

    def __init__(self, backend: Backend, watchdog: _Watchdog) -> None:
        self._backend = backend
        self._watchdog = watchdog

    def submit(self, request_id: RequestId, request: Request) -> None:
        self._watchdog.beat()
        self._watchdog.num_asked += 1
        self._backend.submit(request_id, request)

    def poll(self) -> Sequence[tuple[RequestId, Answer | RolloutError]]:
        with self._watchdog.meter.timing(Phase.GENERATE):
            answers = self._backend.poll()
        self._watchdog.num_asked -= len(answers)
        if answers:
            self._watchdog.beat()
        return answers
