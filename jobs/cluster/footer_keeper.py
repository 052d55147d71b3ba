"""The log of footers, kept while a run grows, so that the next start need not read them all.

A thread of the driver takes stock now and then. Nothing depends on it, so no failure of it is
anyone's matter: what it cannot read, the driver's own start or end will tell of.
"""

import threading
import time
from contextlib import suppress
from typing import Self

from pipeline.store.objects import Store
from pipeline.store.status import WORTH_KEEPING, keep_footers
from schemas.errors import CoppiceError
from schemas.runs import RunManifest

_PAUSE_SECONDS = 120.0
_SHARE = 0.05  # of the time, at most, that a large run's lists may take
_JOIN_SECONDS = 10.0


class FooterKeeper:
    """A context in which a run grows. What was committed in it is in the log when it ends well."""

    def __init__(
        self, store: Store, manifest: RunManifest, *, pause_seconds: float = _PAUSE_SECONDS
    ) -> None:
        self._store, self._manifest = store, manifest
        self._pause_seconds = pause_seconds
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._keep_on, name="footers", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._is_over.set()
        if kind is None:
            self._thread.join(_JOIN_SECONDS)
            self._keep(worth=1)

    def _keep_on(self) -> None:
        pause = self._pause_seconds
        while not self._is_over.wait(pause):
            started = time.monotonic()
            self._keep(worth=WORTH_KEEPING)
            pause = max(self._pause_seconds, (time.monotonic() - started) / _SHARE)

    def _keep(self, *, worth: int) -> None:
        with suppress(CoppiceError):
            keep_footers(self._store, self._manifest, worth=worth)
