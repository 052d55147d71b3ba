"""Running many rollouts at once against any backends: generators on one side, answers on the other.

`drive` owns the generators. It sends each request to the backend of its role, resumes a program
when all it waits for has come, and turns every request and its answer into an event. It has no
threads and no opinion on batching: whoever wants many rows busy gives it many live rollouts.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from pipeline.twig.programs import Judged, Planned, Running, Told
from pipeline.twig.reflections import single_line
from pipeline.twig.requests import (
    Answer,
    Backend,
    Codes,
    Request,
    RequestId,
    TextAnswer,
    Visual,
    VisualAnswer,
)
from schemas.errors import RecordFailure, RolloutError
from schemas.ids import event_seed
from schemas.trace import GIVEN, Event, Role, Schedule

_IDLE_SECONDS = 0.001  # between two looks at backends that only wait, and did not compute


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """A program to be run, and the key that its chances are drawn from."""

    record_id: str
    rollout_index: int
    run_seed: int
    program: Running
    tag: Any = None  # the caller's own; comes back with the outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a rollout ended: with a picture's tokens, or with an error and what it had so far."""

    rollout: Rollout
    codes: Codes
    schedule: Schedule | None
    events: tuple[Event, ...]
    error: RolloutError | None
    duration_seconds: float


class Source(Protocol):
    """Where rollouts come from."""

    def take(self, *, wait: bool) -> Rollout | None:
        """The next rollout. None if none is at hand (`wait` false) or none will come (true)."""


class Given:
    """A source over rollouts that are known beforehand."""

    def __init__(self, rollouts: Iterable[Rollout]) -> None:
        self._rollouts = iter(rollouts)

    def take(self, *, wait: bool) -> Rollout | None:
        del wait  # the next one is always at hand
        return next(self._rollouts, None)


@dataclass(frozen=True, slots=True)
class Backends:
    """The backends by their names in the trace, and the name of the one that answers each role; of
    several each candidate has its own, in turn.
    """

    by_name: Mapping[str, Backend]
    name_of: Mapping[Role, str | tuple[str, ...]]

    def name_for(self, request: Request) -> str:
        """The name of the backend that answers a request."""
        names = self.name_of[request.role]
        return names if isinstance(names, str) else names[request.candidate % len(names)]


def drive(
    source: Source,
    backends: Backends,
    *,
    max_live: int,
    max_seconds: float = math.inf,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Outcome]:
    """Run rollouts, at most `max_live` at once, and yield each as it ends.

    Every rollout taken from `source` is yielded exactly once, whatever becomes of it: one that
    takes longer than `max_seconds` ends with an error, and answers that still come for it are
    dropped. Its program is the drive's from then on. `clock` tells seconds and never goes back. An
    error that is not a `RolloutError` is our bug and ends the drive.
    """
    work = _Work(backends, max_seconds, clock)
    while True:
        while work.num_live < max_live:
            rollout = source.take(wait=work.num_live == 0)
            if rollout is None:
                break
            yield from work.start(rollout)
        if not work.num_live:
            return
        yield from work.collect()
        yield from work.give_up_overdue()


@dataclass(slots=True)
class _Call:
    """A request that is out, and what came of it."""

    request: Request
    backend: str
    asked_at: float
    answer: Answer | RolloutError | None = None
    seconds: float = 0.0


@dataclass(slots=True)
class _Live:
    """A rollout at work: the calls it waits for, and its events so far."""

    rollout: Rollout
    started_at: float
    events: list[Event] = field(default_factory=list)
    schedule: Schedule | None = None
    calls: list[_Call] = field(default_factory=list)
    num_out: int = 0
    as_list: bool = False  # the program asked for a list and gets one back
    is_over: bool = False


class _Work:
    """All rollouts at work, and who waits for which answer."""

    def __init__(self, backends: Backends, max_seconds: float, clock: Callable[[], float]) -> None:
        self._backends = backends
        self._max_seconds = max_seconds
        self._clock = clock
        self._out: dict[RequestId, tuple[_Live, _Call]] = {}
        self._next_id: RequestId = 0
        self._by_age: deque[_Live] = deque()  # those that are over are skipped when they come up
        self.num_live = 0

    def start(self, rollout: Rollout) -> Iterator[Outcome]:
        self.num_live += 1
        live = _Live(rollout, self._clock())
        self._by_age.append(live)
        yield from self._resume(live)

    def give_up_overdue(self) -> Iterator[Outcome]:
        """End those that have taken too long, the oldest first."""
        while self._by_age:
            oldest = self._by_age[0]
            if not oldest.is_over:
                seconds = self._clock() - oldest.started_at
                if seconds <= self._max_seconds:
                    return
                oldest.rollout.program.close()
                overdue = f"not ended after {seconds:.0f} s"
                yield self._end(oldest, (), RecordFailure(overdue, reason="timeout"))
            self._by_age.popleft()

    def collect(self) -> Iterator[Outcome]:
        """Take what the backends have answered, and resume whoever has all it waited for."""
        polled_at = time.monotonic()
        answered = [pair for backend in self._backends.by_name.values() for pair in backend.poll()]
        if not answered and time.monotonic() - polled_at < _IDLE_SECONDS:
            time.sleep(_IDLE_SECONDS)
        for request_id, answer in answered:
            live, call = self._out.pop(request_id)
            call.answer, call.seconds = answer, self._clock() - call.asked_at
            live.num_out -= 1
            if not live.num_out and not live.is_over:
                yield from self._resume(live)

    def _resume(self, live: _Live) -> Iterator[Outcome]:
        """Let a program go on until it waits again (nothing) or ends (its outcome)."""
        program, (value, error) = live.rollout.program, _settle(live)
        try:
            while True:
                yielded = program.throw(error) if error else program.send(value)
                value, error = None, None
                if isinstance(yielded, Planned):
                    live.schedule = yielded.schedule
                elif isinstance(yielded, Judged):
                    _write_down(live.events, yielded)
                elif isinstance(yielded, Told):
                    live.events.append(_told_event(len(live.events), yielded))
                else:
                    self._ask(live, yielded)
                    return
        except StopIteration as end:
            yield self._end(live, end.value, None)
        except RolloutError as failure:
            yield self._end(live, (), failure)

    def _ask(self, live: _Live, wanted: Request | list[Request]) -> None:
        live.as_list = isinstance(wanted, list)
        live.calls = []
        for request in wanted if isinstance(wanted, list) else [wanted]:
            name = self._backends.name_for(request)
            call = _Call(_as_of(request, live.rollout), name, self._clock())
            live.calls.append(call)
            live.num_out += 1
            self._out[self._next_id] = (live, call)
            self._backends.by_name[name].submit(self._next_id, call.request)
            self._next_id += 1

    def _end(self, live: _Live, codes: Codes, error: RolloutError | None) -> Outcome:
        self.num_live -= 1
        live.is_over = True
        return Outcome(
            rollout=live.rollout,
            codes=codes,
            schedule=live.schedule,
            events=_with_successors(live.events),
            error=error,
            duration_seconds=self._clock() - live.started_at,
        )


def _settle(live: _Live) -> tuple[Answer | list[Answer] | None, RolloutError | None]:
    """Write the answered calls down, in the order asked; what to resume the program with."""
    calls, live.calls = live.calls, []
    answers: list[Answer] = []
    error = None
    for call in calls:
        if isinstance(call.answer, RolloutError):
            error = error or call.answer
        elif call.answer is not None:
            answers.append(call.answer)
            live.events.append(_event(len(live.events), call, call.answer))
    return (answers if live.as_list else next(iter(answers), None)), error


def _as_of(request: Request, rollout: Rollout) -> Request:
    """The request as this rollout's, with its event's seed unless nothing is left to chance."""
    name = f"{rollout.record_id}-{rollout.rollout_index}"
    if request.temperature == 0:
        return replace(request, rollout=name)
    seed = event_seed(
        rollout.run_seed,
        rollout.record_id,
        rollout.rollout_index,
        request.role,
        request.region,
        request.revision,
        request.candidate,
    )
    return replace(request, seed=seed, rollout=name)


def _event(index: int, call: _Call, answer: Answer) -> Event:
    request = call.request
    event = Event(
        index=index,
        role=request.role,
        region=request.region,
        revision=request.revision,
        candidate=request.candidate,
        backend=call.backend,
        seed=request.seed,
        text="",
        raw_text=None,
        prefix_ids=answer.prefix_ids,
        logp_sample=answer.logp_sample,
        logp_cond=answer.logp_cond,
        duration_seconds=call.seconds,
    )
    if isinstance(request, Visual) and isinstance(answer, VisualAnswer):
        return replace(event, text=request.text, codes=answer.codes)
    assert isinstance(answer, TextAnswer), f"{call.backend} answered a {request.role} with tokens"
    return replace(
        event,
        text=single_line(answer.text),
        raw_text=answer.text,
        token_ids=answer.token_ids,
        finish=answer.finish,
        usage=answer.usage,
    )


def _told_event(index: int, told: Told) -> Event:
    return Event(
        index=index,
        role=told.question.role,
        region=told.question.region,
        revision=told.question.revision,
        candidate=told.question.candidate,
        backend=GIVEN,
        seed=None,
        text=single_line(told.thought),
        raw_text=told.thought,
        prefix_ids=None,
        token_ids=None,
        duration_seconds=0.0,
    )


def _write_down(events: list[Event], judged: Judged) -> None:
    """Put what was read out of a critique into the critique's event."""
    asked = judged.question
    for index, event in enumerate(events):
        name = (event.role, event.region, event.revision, event.candidate)
        if name == (asked.role, asked.region, asked.revision, asked.candidate):
            events[index] = replace(event, reflection=judged.reflection)


def _with_successors(events: list[Event]) -> tuple[Event, ...]:
    """The events, each drawing that was replaced naming the drawing that replaced it."""
    newest: dict[int, int] = {}
    linked = []
    for event in reversed(events):
        if event.role is Role.DRAW:
            event = replace(event, superseded_by=newest.get(event.region))
            newest[event.region] = event.index
        linked.append(event)
    return tuple(reversed(linked))
