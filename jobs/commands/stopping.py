"""What ends a run from outside: Ctrl-C, SIGTERM, a terminal that is closed.

The first one asks: nothing new is begun, and what is nearly done is committed. The second one ends
the process at once, and so does the first while there is nothing to commit. Either way the command
to go on is printed. One more does not even clean up.

Each signal is counted where the system delivers it, in a pipe that a thread reads: Python itself
tells the main thread only when the call that it is in comes back, and then tells once of several.
"""

import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Self

from jobs.commands.terminal import Terminal, silence, silence_stderr
from schemas.errors import ExitCode

CLEAN_UP_SECONDS = 10.0
"""After that a process that was to end at once is ended, whatever still holds it."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_OVER, _LOOK = b"\0", b"\xff"  # in the pipe, and no signals: nobody listens any more; look again


class Stop:
    """A context in which signals stop a command. Raises KeyboardInterrupt where that is at once.

    Without a next command it is the same one again. For the main thread.

    Another class of its own would not come through Ray's calls, which know only this one. It is no
    `Exception`: what catches those, to repeat a call say, does not catch it. The user was told.
    Once it is raised, another signal ends the process, and so does a clean-up that takes too long.
    """

    def __init__(
        self,
        terminal: Terminal,
        next_command: str = "",
        *,
        clean_up_seconds: float = CLEAN_UP_SECONDS,
    ) -> None:
        self._terminal = terminal
        self.next_command = next_command
        self._clean_up_seconds = clean_up_seconds
        self._counting = threading.RLock()  # a signal may come while one is counted
        self._num_asked = 0
        self._can_commit = False
        self._is_ending = self._is_raised = False
        self._ttys: list[int] = []

    def is_asked(self) -> bool:
        return self._num_asked > 0

    def __enter__(self) -> Self:
        # Known before it is closed: afterwards nothing says any more that it was a terminal.
        self._ttys = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]
        self._before = {name: signal.getsignal(name) for name in _SIGNALS}
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._pipe_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._watcher = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._watcher.start()
        self._listen()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for name, handler in self._before.items():
            signal.signal(name, handler)
        signal.set_wakeup_fd(self._pipe_before)
        os.write(self._writer, _OVER)
        self._watcher.join()
        os.close(self._reader)
        os.close(self._writer)
        if kind is not None and issubclass(kind, SystemExit) and self.is_asked():
            raise KeyboardInterrupt  # a handler of Ray's was in the place of ours

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
                signal.signal(name, self._interrupt)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """On the main thread, when it comes to it."""
        self._count_in(self._read())
        if self._is_ending and not self._is_raised:
            self._is_raised = True
            raise KeyboardInterrupt

    def _watch(self) -> None:
        """On a thread of its own, which is not held by any call."""
        while True:
            wait = self._clean_up_seconds if self._is_ending else None
            if not select.select([self._reader], [], [], wait)[0]:
                os._exit(ExitCode.INCOMPLETE)
            numbers = self._read()  # none, if the main thread was faster
            self._count_in(numbers)
            if _OVER[0] in numbers:
                return

    def _read(self) -> bytes:
        """The signals that came and were not counted, a byte each."""
        try:
            return os.read(self._reader, 1024)
        except BlockingIOError:
            return b""

    def _count_in(self, numbers: bytes) -> None:
        for number in numbers:
            if number in _SIGNALS:
                self._ask(number)

    def _ask(self, number: int) -> None:
        if number == signal.SIGHUP:
            for descriptor in self._ttys:
                silence(descriptor)
            if 2 in self._ttys:
                silence_stderr()  # another one since Ray is up
        with self._counting:
            self._num_asked += 1
            is_first, was_ending = self._num_asked == 1, self._is_ending
            self._is_ending = was_ending or not (is_first and self._can_commit)
        if was_ending:
            os._exit(ExitCode.INCOMPLETE)
        if not self._is_ending:
            self._say("Stopping: committing what is nearly done. Once more to stop at once.")
            return
        os.write(self._writer, _LOOK)
        go_on = f"what is committed stays. Next: {self.next_command}"
        self._say(f"Stopped; {go_on if self.next_command else 'the same command goes on.'}")

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
