"""What ends a run from outside: Ctrl-C, SIGTERM, a terminal that is closed.

The first one asks: nothing new is begun, and what is nearly done is committed. The second one ends
the process at once, and so does the first while there is nothing to commit. Either way the command
to go on is printed. A third one does not even clean up.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Self

from jobs.commands.terminal import Terminal, silence, silence_stderr
from schemas.errors import ExitCode

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """A context in which signals stop a run. Raises KeyboardInterrupt where that is at once.

    Another class of its own would not come through Ray's calls, which know only this one. It is no
    `Exception`: what catches those, to repeat a call say, does not catch it. The user was told.
    """

    def __init__(self, terminal: Terminal, next_command: str) -> None:
        self._terminal = terminal
        self.next_command = next_command
        self._num_asked = 0
        self._can_commit = False
        self._ttys: list[int] = []

    def is_asked(self) -> bool:
        return self._num_asked > 0

    def __enter__(self) -> Self:
        # Known before it is closed: afterwards nothing says any more that it was a terminal.
        self._ttys = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]
        self._before = {name: signal.getsignal(name) for name in _SIGNALS}
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        for name, handler in self._before.items():
            signal.signal(name, handler)

    @contextmanager
    def committing(self) -> Iterator[None]:
        """While there is something to commit, the first signal asks. Ray is up by now."""
        self._listen()  # Ray puts a handler of its own in the place of ours when it starts
        self._can_commit = True
        try:
            yield
        finally:
            self._can_commit = False

    def _listen(self) -> None:
        for name in _SIGNALS:
            if signal.getsignal(name) != signal.SIG_IGN or name is not signal.SIGHUP:  # nohup
                signal.signal(name, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            for descriptor in self._ttys:
                silence(descriptor)
            if 2 in self._ttys:
                silence_stderr()  # another one since Ray is up
        self._num_asked += 1
        if self._num_asked > 2:
            os._exit(ExitCode.INCOMPLETE)
        if self._num_asked == 1 and self._can_commit:
            self._say("Stopping: committing what is nearly done. Once more to stop at once.")
            return
        self._say(f"Stopped; what is committed stays. Next: {self.next_command}")
        raise KeyboardInterrupt

    def _say(self, line: str) -> None:
        with suppress(OSError):  # nobody reads any more
            self._terminal.say(line)


@contextmanager
def hangups_held() -> Iterator[None]:
    """Hold SIGHUP back while processes are started: they never hear of it, and this one after.

    A closed terminal tells every process that was started from it; those of a Ray on this machine
    are still needed for what is to be committed.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
