"""Stands between a server and whoever wants it, and takes every process of it along at the end.

    python -I guard.py CHANNEL TERM_SECONDS COMMAND...

CHANNEL is the number of an open socket. The guard says the server's process there, later how it
ended, and closes it when nothing of the server is left. When the other end is closed, by whatever
death, the server is ended: SIGTERM, TERM_SECONDS, SIGKILL. Ray kills what a dead worker had started
itself, and what that started lives on, on a GPU with its memory; so the guard is no child of the
worker (it forks once more), and what loses its parent below it becomes its own child.

Nothing of Coppice is imported here: the guard is a process as small and as dull as can be.
"""

import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_KILL_SECONDS = 5.0
_LOOK_SECONDS = 0.1
_ADOPT_ORPHANS, _DIE_WITH_PARENT = 36, 1  # prctl(2): PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG


def main(arguments: list[str]) -> None:
    """Guard a server until it or the other end of the channel is gone."""
    channel, term_seconds = socket.socket(fileno=int(arguments[0])), float(arguments[1])
    if os.fork():
        os._exit(0)
    libc = ctypes.CDLL(None)
    libc.prctl(_ADOPT_ORPHANS, 1, 0, 0, 0)
    is_ending = []
    for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(sign, lambda number, frame: is_ending.append(number))
    try:
        server = subprocess.Popen(
            arguments[2:],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a group of its own, so that one signal reaches all of it
            preexec_fn=lambda: libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0),
        ).pid
    except OSError as error:
        _tell(channel, f"refused {error.strerror}")
        return
    _tell(channel, f"pid {server}")
    ended: dict[int, int] = {}
    while server not in ended and not is_ending:
        if select.select([channel], [], [], _LOOK_SECONDS)[0]:
            break  # nothing is ever said to the guard: this is the end of the other side
        ended |= dict(_reaped())
    if server in ended:
        _tell(channel, f"ended {os.waitstatus_to_exitcode(ended[server])}")
    _end_all(server, term_seconds if server not in ended else 0)
    _tell(channel, "over and nothing left")


def _end_all(server: int, term_seconds: float) -> None:
    """Ask the server to end, for so long, and then end whatever is left."""
    if term_seconds:
        _signal_group(server, signal.SIGTERM)
        _signal_group(server, signal.SIGCONT)  # one that is stopped hears nothing else
        _wait(term_seconds, server)
        _wait(_LOOK_SECONDS)
    stop_at = time.monotonic() + _KILL_SECONDS
    while (left := list(_descendants())) and time.monotonic() < stop_at:
        for process in left:
            _signal(process, signal.SIGKILL)
        _wait(_LOOK_SECONDS)


def _wait(seconds: float, server: int = 0) -> None:
    """Until the server has ended, or no descendant is left, or so long."""
    stop_at = time.monotonic() + seconds
    while time.monotonic() < stop_at:
        if server in dict(_reaped()) or not any(_descendants()):
            return
        time.sleep(_LOOK_SECONDS / 2)


def _reaped() -> Iterator[tuple[int, int]]:
    """Children that ended since the last look, each with its wait status."""
    while True:
        try:
            process, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not process:
            return
        yield process, status


def _descendants() -> Iterator[int]:
    """Every process below this one."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        children.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    waiting = [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        waiting += below
        yield from below


def _signal(process: int, sign: signal.Signals) -> None:
    try:
        os.kill(process, sign)
    except OSError:  # it ended meanwhile
        return


def _signal_group(leader: int, sign: signal.Signals) -> None:
    try:
        os.killpg(leader, sign)
    except OSError:
        return


def _tell(channel: socket.socket, line: str) -> None:
    try:
        channel.sendall(line.encode() + b"\n")
    except OSError:  # nobody is there any more
        return


if __name__ == "__main__":
    main(sys.argv[1:])
