"""Patience: a store that waits while the one behind it is away, so that no caller has to.

For what goes on in mid-run, where credentials were good a moment ago. A start asks the store
itself: preflight and plan must not wait for credentials that no one has seen work.
"""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from pipeline.store.objects import Entry, Source, Store, repeat
from schemas.runs import RunManifest

T = TypeVar("T")


class PatientStore:
    """A store whose every verb is called again while it is down or refuses credentials.

    After `patience_seconds`, counted anew for each call, the store's own error is raised; any other
    error passes at once. A put_if_absent that goes unanswered puts the same bytes again, so its
    False may well mean an object of one's own. A listing is held whole before its first entry is
    given. Threads wait each for itself. A pickled copy begins with nobody waiting.
    """

    def __init__(
        self,
        inner: Store,
        *,
        patience_seconds: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.inner = inner  # waits for nothing
        self._patience_seconds = patience_seconds
        self._sleep = sleep
        self._clock = clock
        self._lock = threading.Lock()
        self._num_waiting = 0
        self.spent_seconds = 0.0  # in all calls of all threads, waits included

    def __reduce__(self) -> "tuple[Callable[[], PatientStore], tuple[()]]":
        remade = partial(
            PatientStore,
            self.inner,
            patience_seconds=self._patience_seconds,
            sleep=self._sleep,
            clock=self._clock,
        )
        return remade, ()

    @property
    def is_away(self) -> bool:
        """Whether some thread waits for the store to come back."""
        return self._num_waiting > 0

    def patiently(self, call: Callable[[Store], T]) -> T:
        """What a call of several verbs answers, all of it done anew when the store is away in it.

        It is given the store that waits for nothing, so that patience is not counted twice, and has
        to consume what it lists.
        """
        began = self._clock()
        try:
            return repeat(
                partial(call, self.inner),
                patience_seconds=self._patience_seconds,
                sleep=self._wait,
                clock=self._clock,
            )
        finally:
            with self._lock:
                self.spent_seconds += self._clock() - began

    @property
    def url(self) -> str:
        return self.inner.url

    def read(self, key: str) -> bytes:
        return self.patiently(lambda store: store.read(key))

    def read_range(self, key: str, start: int, length: int) -> bytes:
        return self.patiently(lambda store: store.read_range(key, start, length))

    def size(self, key: str) -> int:
        return self.patiently(lambda store: store.size(key))

    def list_folder(self, folder: str) -> Iterator[Entry]:
        return iter(self.patiently(lambda store: list(store.list_folder(folder))))

    def list_subfolders(self, folder: str) -> Iterator[str]:
        return iter(self.patiently(lambda store: list(store.list_subfolders(folder))))

    def put(self, key: str, source: Source) -> None:
        self.patiently(lambda store: store.put(key, source))

    def put_if_absent(self, key: str, source: Source) -> bool:
        return self.patiently(lambda store: store.put_if_absent(key, source))

    def delete(self, key: str) -> None:
        self.patiently(lambda store: store.delete(key))

    def _wait(self, seconds: float) -> None:
        with self._lock:
            self._num_waiting += 1
        try:
            self._sleep(seconds)
        finally:
            with self._lock:
                self._num_waiting -= 1


def patient_store(store: Store, manifest: RunManifest) -> PatientStore:
    """A run's store, as patient as the run's config says."""
    return PatientStore(store, patience_seconds=manifest.config.execution.store_patience_seconds)
