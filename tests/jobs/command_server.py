"""Commands as `python -m jobs.cli` runs them, in forks of one process that has imported it before.

Starting Python and importing takes half a second, which hundreds of tests would pay. A fork has its
own folder, environment, output and end, and ends as any process does. What every command takes a
second to import is imported before: pyarrow, pandas by it, and what plans a run. What reads the
environment when it is imported (torch, Ray, boto3) is imported in the fork.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path


class CommandServer:
    """Runs commands one after the other."""

    def __init__(self) -> None:
        self._heard = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.jobs.command_server"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def run(
        self, arguments: Sequence[str], *, folder: Path, env: Mapping[str, str], timeout: float
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end, as `subprocess.run` does with captured text."""
        with tempfile.TemporaryDirectory() as name:
            outputs = [Path(name, "out"), Path(name, "error")]
            self._send(
                arguments=list(arguments),
                folder=str(folder),
                env=dict(env),
                outputs=[str(path) for path in outputs],
            )
            command_id = int(self._receive(60))
            try:
                code = int(self._receive(timeout))
            except BaseException as error:  # a test's own time limit, too: the next one goes on
                os.kill(command_id, signal.SIGKILL)
                self._receive(60)
                sys.stdout.write("".join(path.read_text() for path in outputs))  # for its report
                if not isinstance(error, TimeoutError):
                    raise
                raise subprocess.TimeoutExpired(list(arguments), timeout) from None
            texts = (path.read_text() for path in outputs)
            return subprocess.CompletedProcess(list(arguments), code, *texts)

    def end(self) -> None:
        self._process.communicate()

    def _send(self, **request: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def _receive(self, timeout: float) -> bytes:
        """The next line that the server writes. A quick command's two may come at once."""
        assert self._process.stdout is not None
        while b"\n" not in self._heard:
            if not select.select([self._process.stdout], [], [], timeout)[0]:
                raise TimeoutError
            heard = os.read(self._process.stdout.fileno(), 100)
            assert heard, "the server of commands is gone"
            self._heard += heard
        line, _, self._heard = self._heard.partition(b"\n")
        return line


def serve() -> None:
    """Run what lines of standard input ask for; tell of each its process and how it ended."""
    for name in ("pandas", "pyarrow.parquet", "jobs.commands.plan"):
        import_module(name)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        command_id = os.fork()
        if not command_id:
            return _become(request)
        os.write(1, b"%d\n" % command_id)
        status = os.waitpid(command_id, 0)[1]
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(status))


def _become(request: dict) -> None:
    """Be the command that was asked for, to the end of this process."""
    from jobs.cli import end_process_with, main

    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(request["outputs"], start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), number)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["coppice", *request["arguments"]]
    sys.path[0] = ""
    end_process_with(main)


if __name__ == "__main__":
    serve()
