"""Whether the head of a Ray still answers, seen from threads of their own.

When it is gone, calls of Ray's block, and a minute later its C++ ends this process with exit code
1; Python is told of neither. So the watch ends the process before that, with a word of its own.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from jobs.cluster.ray_state import is_head_answering

_ASK_SECONDS = 2.0  # between two questions
_RAYS_OWN = "RAY_gcs_rpc_server_reconnect_timeout_s"  # what Ray itself waits, in seconds
_RAYS_DEFAULT = 60.0
_SHARE = 2 / 3  # of that: then the watch ends the process
_RECENT_SECONDS = 6.0  # an answer so old still tells that the head is there


def patience_seconds() -> float:
    """For how long a head may be silent, from the settings of this process."""
    try:
        rays_own = float(os.environ.get(_RAYS_OWN, _RAYS_DEFAULT))
    except ValueError:
        rays_own = _RAYS_DEFAULT
    return rays_own * _SHARE


class HeadWatch:
    """Watches a head, and calls `end` once, from a thread, if it is gone.

    `end` gets how many seconds it was silent, and should end the process: what runs on the main
    thread may be a call that does not return.
    """

    def __init__(
        self,
        address: str,
        end: Callable[[float], None],
        *,
        ask: Callable[[str], bool] = is_head_answering,
        patience: float | None = None,
        ask_seconds: float = _ASK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = address
        self._end = end
        self._ask = ask
        self._patience = patience_seconds() if patience is None else patience
        self._ask_seconds = ask_seconds
        self._clock = clock
        self._answered_at = clock()
        self._is_over = threading.Event()

    @property
    def silent_seconds(self) -> float:
        return self._clock() - self._answered_at

    def is_there(self) -> bool:
        """Whether the head answered lately, so that it may be asked something else."""
        return self.silent_seconds < _RECENT_SECONDS

    @contextmanager
    def watching(self) -> Iterator[Self]:
        """While this is open, the head is watched."""
        # Two threads: a question to a head that is gone may itself not come back.
        for work in (self._keep_asking, self._keep_watching):
            threading.Thread(target=work, name="head-watch", daemon=True).start()
        try:
            yield self
        finally:
            self._is_over.set()

    def _keep_asking(self) -> None:
        while not self._is_over.wait(self._ask_seconds):
            if self._ask(self._address):
                self._answered_at = self._clock()

    def _keep_watching(self) -> None:
        while not self._is_over.wait(min(0.5, self._patience)):
            if self.silent_seconds > self._patience:
                self._end(self.silent_seconds)
                return
