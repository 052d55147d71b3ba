"""What the work of a process takes: seconds by phase, tokens by role, rollouts by their ends.

Threads add to it, and anyone may read it. Seconds are of the clock on the wall. A GPU is a model
thread's alone, so that its phases together are the time that the GPU was held.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum

from schemas.runs import Ends, Work
from schemas.trace import Event


class Phase(StrEnum):
    """What the time of a process goes into."""

    LOAD = "load"  # models
    GENERATE = "generate"  # words and image tokens: prefills and decode steps
    PAINT = "paint"  # pictures of tokens
    IDLE = "idle"  # for want of rollouts
    ENCODE = "encode"  # pictures into files, beside the models' thread


_ON_CPU = {Phase.ENCODE}


class Meter:
    """Adds up work. `device` is what the models compute on."""

    def __init__(self, device: str = "cpu", *, clock: Callable[[], float] = time.monotonic) -> None:
        self._device = device
        self._clock = clock
        self._lock = threading.Lock()
        self._work = Work()

    def read(self, *, store_seconds: float = 0.0) -> Work:
        """All that was added so far; what was spent in the store is the caller's to know."""
        return replace(self._work, store_seconds=store_seconds)

    @contextmanager
    def timing(self, phase: Phase) -> Iterator[None]:
        """The time that the block takes counts as of that phase."""
        began = self._clock()
        try:
            yield
        finally:
            device = "cpu" if phase in _ON_CPU else self._device
            self._add(Work(seconds={(phase.value, device): self._clock() - began}))

    def add_rollout(self, events: Sequence[Event], ends: Ends) -> None:
        """A rollout ended, with these events."""
        tokens: dict[str, int] = {}
        for event in events:
            num_tokens = len(event.token_ids or ()) + len(event.codes)
            tokens[event.role.value] = tokens.get(event.role.value, 0) + num_tokens
        self._add(Work(tokens=tokens, ends=ends))

    def _add(self, work: Work) -> None:
        with self._lock:
            self._work += work
