"""Patience: a store that waits while the one behind it is away, so that no caller has to.

For what goes on in mid-run, where credentials were good a moment ago. A start asks the store
itself: preflight and plan must not wait for credentials that no one has seen work.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from pipeline.store.objects import Entry, Source, Store, repeat
from pipeline.store.open import limit_silence
from pipeline.store.trouble.deadlines import SHORTEST_SECONDS, BoundedStore
from schemas.runs import RunManifest, Wait

SLOW_SECONDS = 10.0  # that a call is under way: then it is one that waits

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Call:
    what: str
    since: float  # seconds since the epoch
    started: float  # on the store's clock
    is_paused: bool = False


class PatientStore:
    """A store whose every verb is called again while it is down or refuses credentials.

    After `patience_seconds`, counted anew for each call, the store's own error is raised; any other
    error passes at once. A call that does not come back within half of that is taken for one of a
    store that is away. A put_if_absent that goes unanswered puts the same bytes again, so its False
    may well mean an object of one's own. A listing is held whole before its first entry is given.
    Threads wait each for itself. A pickled copy begins with nobody waiting.
    """

    def __init__(
        self,
        inner: Store,
        *,
        patience_seconds: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        limit_silence(inner, patience_seconds / 2)
        self._inner = inner
        self._bounded = BoundedStore(inner, patience_seconds / 2)
        self.impatient: Store = BoundedStore(inner, SHORTEST_SECONDS)
        """For what is not waited for: it repeats nothing, and is soon told that it is away."""
        self._patience_seconds = patience_seconds
        self._sleep = sleep
        self._clock = clock
        self._lock = threading.Lock()
        self._calls: list[_Call] = []  # that are under way
        self.spent_seconds = 0.0  # in all calls of all threads, waits included

    def __reduce__(self) -> "tuple[Callable[[], PatientStore], tuple[()]]":
        remade = partial(
            PatientStore,
            self._inner,
            patience_seconds=self._patience_seconds,
            sleep=self._sleep,
            clock=self._clock,
        )
        return remade, ()

    @property
    def is_away(self) -> bool:
        """Whether some thread waits for the store to come back."""
        return self.wait is not None

    @property
    def wait(self) -> Wait | None:
        """Since when some thread waits for the store, and with what; None: it is there."""
        now = self._clock()
        with self._lock:
            for call in self._calls:  # the oldest first
                if call.is_paused or now - call.started >= SLOW_SECONDS:
                    return Wait(since=call.since, what=call.what)
        return None

    def patiently(self, call: Callable[[Store], T], what: str = "") -> T:
        """What a call of several verbs answers, all of it done anew when the store is away in it.

        It is given the store that repeats nothing, so that patience is not counted twice, and has
        to consume what it lists. `what` says for people what it does, as `put traces/x`.
        """
        with self._noted(what) as noted:
            return repeat(
                partial(call, self._bounded),
                patience_seconds=self._patience_seconds,
                sleep=partial(self._pause, noted),
                clock=self._clock,
            )

    @property
    def url(self) -> str:
        return self._inner.url

    def read(self, key: str) -> bytes:
        return self.patiently(lambda store: store.read(key), f"read {key}")

    def read_range(self, key: str, start: int, length: int) -> bytes:
        return self.patiently(lambda store: store.read_range(key, start, length), f"read {key}")

    def size(self, key: str) -> int:
        return self.patiently(lambda store: store.size(key), f"read {key}")

    def list_folder(self, folder: str) -> Iterator[Entry]:
        return iter(self.patiently(lambda store: list(store.list_folder(folder)), f"list {folder}"))

    def list_subfolders(self, folder: str) -> Iterator[str]:
        return iter(
            self.patiently(lambda store: list(store.list_subfolders(folder)), f"list {folder}")
        )

    def put(self, key: str, source: Source) -> None:
        self.patiently(lambda store: store.put(key, source), f"put {key}")

    def put_if_absent(self, key: str, source: Source) -> bool:
        return self.patiently(lambda store: store.put_if_absent(key, source), f"put {key}")

    def delete(self, key: str) -> None:
        self.patiently(lambda store: store.delete(key), f"delete {key}")

    @contextmanager
    def _noted(self, what: str) -> Iterator[_Call]:
        noted = _Call(what=what, since=time.time(), started=self._clock())
        with self._lock:
            self._calls.append(noted)
        try:
            yield noted
        finally:
            with self._lock:
                self._calls.remove(noted)
                self.spent_seconds += self._clock() - noted.started

    def _pause(self, noted: _Call, seconds: float) -> None:
        noted.is_paused = True
        self._sleep(seconds)


def patient_store(store: Store, manifest: RunManifest) -> PatientStore:
    """A run's store, as patient as the run's config says."""
    return PatientStore(store, patience_seconds=manifest.config.execution.store_patience_seconds)
