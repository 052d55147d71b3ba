"""What a terminal shows of a command: a pseudo-terminal, and as much of one's screen as we use."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
_CONTROL = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])")


def typed(
    arguments: Sequence[str], folder: Path, *, columns: int, env: Mapping[str, str] = {}
) -> str:
    """All that `coppice` writes to a terminal of so many columns, to its end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    plain = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *arguments],
        cwd=folder,
        env=plain | {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT)} | dict(env),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    try:
        while chunk := os.read(ours, 65536):
            written += chunk
    except OSError:  # the last who had it open is gone
        pass
    finally:
        os.close(ours)
        process.wait()
    return written.decode()


def screen(written: str, *, columns: int) -> list[str]:
    """The lines that stand at the end. A line wider than the terminal goes on below, as there."""
    lines, row, column, at = [""], 0, 0, 0
    while at < len(written):
        if control := _CONTROL.match(written, at):
            at = control.end()
            if control[2] == "A":
                row = max(0, row - int(control[1] or 1))
            elif control[2] == "K":
                lines[row] = ""
            continue
        letter, at = written[at], at + 1
        if letter == "\r":
            column = 0
        elif letter == "\n" or column == columns:
            row, column = row + 1, 0
            lines += [""] * (row == len(lines))
        if letter not in "\r\n":
            line = lines[row].ljust(column)
            lines[row] = line[:column] + letter + line[column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]
