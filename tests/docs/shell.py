"""A shell in a clean clone, in a home of its own, and all that it started ended with it."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.docs.pages import ROOT

LIMIT_SECONDS = 900  # of one command
_END = "@@ended@@"
_MARK = "COPPICE_DOCS"  # in the environment of all that a shell starts, daemons too
_TOLD = ("AWS_", "RAY_ADDRESS", "RAY_AUTH", "RAY_API", "COPPICE_")  # by the pages alone

# What a terminal of its own is for: a command that stays, until it says that it is up.
_FUNCTIONS = r"""
set -o pipefail
until_it_says() {
  local said=$(mktemp)
  "${@:2}" > "$said" 2>&1 &
  for _ in {1..1200}; do
    grep "$1" "$said" && return
    kill -0 $! 2> /dev/null || break
    sleep 0.1
  done
  cat "$said"
  return 1
}
"""


class Shell:
    """One bash, so that what a command exports holds for those after it."""

    def __init__(self, folder: Path, environment: Mapping[str, str], mark: str) -> None:
        self._mark = mark
        self._process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder,
            env={**environment, _MARK: mark},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.type(_FUNCTIONS)

    def type(self, command: str) -> tuple[str, int]:
        """What a command printed, and how it ended; -1: it took the shell along."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watch = threading.Timer(LIMIT_SECONDS, self.end)
        watch.start()
        printed = ""
        try:
            self._process.stdin.write(f"{{ {command}\n}} </dev/null\necho {_END} $?\n")
            self._process.stdin.flush()
            for line in self._process.stdout:
                before, mark, after = line.partition(_END)
                printed += before
                if mark:
                    return printed, int(after)
        except BrokenPipeError:
            pass
        finally:
            watch.cancel()
        return f"{printed}\nthe shell has ended, after {LIMIT_SECONDS} s or by itself", -1

    def end(self) -> None:
        """End the shell and all that was started in it, also what left it for a session of its
        own: what has its mark.
        """
        for sent in (signal.SIGTERM, *(signal.SIGKILL,) * 100):
            ids = marked_with(self._mark)
            for process_id in ids:
                with suppress(ProcessLookupError):
                    os.kill(process_id, sent)
            if not ids:
                break
            time.sleep(0.2)
        self._process.wait()


def marked_with(mark: str) -> list[int]:
    """The processes that the shell of this mark has started, and itself."""
    ids = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it ended, or is another user's
            if f"{_MARK}={mark}".encode() in environ.read_bytes().split(b"\0"):
                ids.append(int(environ.parent.name))
    return ids


@contextmanager
def opened_shell(told: Mapping[str, str]) -> Iterator[tuple[Shell, Path]]:
    """A shell in a clean clone, with these variables, and the folder of both.

    Caches stay those of whoever runs this: what was fetched or built is not fetched again.
    """
    with tempfile.TemporaryDirectory(prefix="docs-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        clone, home = folder / "coppice", folder / "home"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        home.mkdir()
        (folder / "tmp").mkdir()
        bare = {name: value for name, value in os.environ.items() if not name.startswith(_TOLD)}
        environment = bare | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(clone),
            "HOME": str(home),
            "TMPDIR": str(folder / "tmp"),
            "RAY_TMPDIR": name,  # short: a socket's path holds 107 characters at most
            "RAY_USAGE_STATS_ENABLED": "0",
            "COPPICE_VENV": str(Path(sys.executable).parents[1]),
            "COPPICE_CACHE": str(cache()),
        }
        shell = Shell(clone, {**environment, **told}, folder.name)
        try:
            yield shell, folder
        finally:
            shell.end()


def cache() -> Path:
    """Where models, servers' packages and consumers' environments are kept."""
    return Path(os.environ.get("COPPICE_CACHE") or "~/.cache/coppice").expanduser()
