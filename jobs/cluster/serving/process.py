"""A server behind its guard: started with a clean environment, looked at, ended with all it has."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from jobs.cluster.serving import guard

KEY_VARIABLE = "VLLM_API_KEY"
"""Where a server reads its key: on a command line everyone on its machine could."""

_TERM_SECONDS = 10.0  # to end by itself in
_END_SECONDS = 15.0  # more, until whatever is left was killed
_OURS = ("RAY_", "PYTHON", "VIRTUAL_ENV", "CONDA_")
_QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


class GuardedServer:
    """A server's processes. They end with this object's process, however that ends."""

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str], log: Path):
        """Start it. What it prints is added to the log. Raises OSError for a log that cannot be."""
        self._heard = b""
        self._is_guarded = True
        self._channel, theirs = socket.socketpair()
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        words = (str(theirs.fileno()), str(_TERM_SECONDS))
        with theirs, log.open("ab") as sink:
            subprocess.run(
                [sys.executable, "-I", guard.__file__, *words, *command],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                check=True,  # it forks at once: this is the first half
            )

    def ending(self) -> str | None:
        """How it ended, in words; None: it has not."""
        self._hear(seconds=0)
        told = self._told()
        if "refused" in told:
            return f"it could not be started: {told['refused']}"
        if "ended" in told:
            status = int(told["ended"])
            return f"it ended by signal {-status}" if status < 0 else f"it ended with code {status}"
        return None if self._is_guarded else "its guard was killed"

    def end(self) -> bool:
        """End it, and wait until nothing of it is left. False: something may be."""
        try:
            self._channel.shutdown(socket.SHUT_WR)
        except OSError:
            self._is_guarded = False
        self._hear(seconds=_TERM_SECONDS + _END_SECONDS)
        self._channel.close()
        told = self._told()
        if "pid" in told and "over" not in told:  # the guard was killed: its group is left
            with suppress(OSError):
                os.killpg(int(told["pid"]), signal.SIGKILL)
        return not self._is_guarded

    def _told(self) -> dict[str, str]:
        """What the guard said, by the first word of each line."""
        return dict(line.split(" ", 1) for line in self._heard.decode().splitlines())

    def _hear(self, *, seconds: float) -> None:
        """Take in what the guard says, until it is gone or for so long."""
        self._channel.settimeout(seconds)
        try:
            while self._is_guarded:
                said = self._channel.recv(4096)
                self._heard += said
                self._is_guarded = bool(said)
        except (BlockingIOError, TimeoutError):
            return
        except OSError:
            self._is_guarded = False


def server_environment(program: str, key: str | None, gpus: str | None) -> dict[str, str]:
    """This process's environment without what is Ray's or this Python's, for a server.

    `gpus` are those that it may see, as CUDA counts them; empty: none; None: those of this process.
    """
    kept = {name: text for name, text in os.environ.items() if not name.startswith(_OURS)}
    kept |= _QUIET
    kept.pop(KEY_VARIABLE, None)
    if key is not None:
        kept[KEY_VARIABLE] = key
    if gpus is not None:
        kept["CUDA_VISIBLE_DEVICES"] = gpus
    if os.path.dirname(program):  # its environment's own tools, a compiler driver say, come first
        kept["PATH"] = f"{os.path.dirname(program)}{os.pathsep}{kept.get('PATH', os.defpath)}"
    return kept


def free_port(host: str) -> int:
    """A port of this machine that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def log_folder() -> Path:
    """Where servers' logs go: a folder of this user's own, on this machine."""
    return Path(tempfile.gettempdir()) / f"coppice-serving-{os.getuid()}"
