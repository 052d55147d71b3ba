"""Type every command of README and docs, in order, in a clean clone: `python -m tests.docs [PAGE]`.

Prints what was run, replaced and left out, and ends with 1 if a command failed, or did not print a
line that its page shows.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.docs.pages import PAGES, ROOT, Command, commands_of, not_printed
from tests.docs.places import BEFORE, ENDS, PROVIDED, not_run, replaced
from tests.s3.emulator import emulator

_END = "@@ended@@"


class Shell:
    """One bash in a clone, so that what a command exports holds for those after it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def type(self, command: str) -> tuple[str, int]:
        """What a command printed, and how it ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command} </dev/null\necho {_END} $?\n")
        self._process.stdin.flush()
        printed = ""
        for line in self._process.stdout:
            before, mark, after = line.partition(_END)
            printed += before
            if mark:
                return printed, int(after)
        raise RuntimeError(f"the shell ended within: {command}\n{printed}")

    def end(self) -> None:
        self._process.kill()


@contextmanager
def opened_shell() -> Iterator[Shell]:
    """A shell in a clean clone, beside an S3 over the wire and files in the place of data sets."""
    with tempfile.TemporaryDirectory(prefix="docs-") as name, emulator() as client:
        clone = Path(name) / "coppice"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        for file, text in PROVIDED.items():
            (clone / file).parent.mkdir(exist_ok=True)
            (clone / file).write_text(text)
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(clone),
            "AWS_ENDPOINT_URL": client.meta.endpoint_url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "COPPICE_VENV": str(Path(sys.executable).parents[1]),
        }
        shell = Shell(clone, environment)
        try:
            yield shell
        finally:
            shell.end()


def try_command(shell: Shell, command: Command) -> bool:
    """Type a command, and print what came of it. Whether it did what its page says."""
    if rule := not_run(command.typed):
        print(f"  not run   {command.typed}\n            {rule.reason}")
        return True
    typed, rules = replaced(command.typed)
    began = time.monotonic()
    printed, code = shell.type(typed)
    missing = not_printed(command.shown, printed)
    is_right = code == ENDS.get(command.typed, 0) and not missing
    print(f"  {'ok' if is_right else 'FAILED':<9} {typed} ({time.monotonic() - began:.0f} s)")
    for rule in rules:
        print(f"            {rule.typed} -> {rule.instead or 'nothing'}: {rule.reason}")
    if not is_right:
        print(
            f"            ended with {code}", *missing, *printed.splitlines()[-15:], sep="\n    | "
        )
    sys.stdout.flush()
    return is_right


def main(pages: Sequence[str]) -> int:
    """Try these pages, or all. How many commands failed."""
    num_failed = 0
    for page in pages or PAGES:
        commands = commands_of(page, (ROOT / page).read_text())
        if commands:
            print(page)
            before = [Command(page=page, typed=typed) for typed in BEFORE.get(page, ())]
            commands = [*before, *commands]
            with opened_shell() as shell:
                num_failed += sum(not try_command(shell, command) for command in commands)
    return num_failed


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
