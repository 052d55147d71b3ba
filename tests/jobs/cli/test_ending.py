"""How a process ends: with the code of what it did, whatever native libraries do at their end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROCESS = """
import atexit, ctypes, os, sys
libc = ctypes.CDLL(None)
libc.__cxa_atexit(libc.abort, None, None)  # as a destructor beside a busy thread may
from jobs.cli import end_process_with

def do():
    atexit.register(print, "taken down")
    print("said", end=" ")
    {statement}
end_process_with(do)
"""


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("sys.exit(0)", 0),
        ("sys.exit(4)", 4),
        ("sys.exit()", 0),
        ("sys.exit('a reason')", 1),
        ("pass", 0),
        ("1 / 0", 1),
        ("sys.stdout.flush(); os.close(1); sys.exit(3)", 3),
        ("sys.stdout.flush(); os.close(1); sys.exit(0)", 120),  # as Python does
    ],
)
def test_its_code_is_that_of_what_it_did(statement: str, code: int):
    ended = subprocess.run(
        [sys.executable, "-c", PROCESS.format(statement=statement)],
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": ""},
        capture_output=True,
        text=True,
    )

    assert ended.returncode == code, ended.stderr
    assert ended.stdout == ("said " if "close" in statement else "said taken down\n")
    assert ("ZeroDivisionError" in ended.stderr) == ("1 / 0" in statement)


def test_the_command_line_ends_so():
    ended = subprocess.run(
        [sys.executable, "-m", "coppice", "status", "no-run-is-here"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert ended.returncode == 2
    assert ended.stderr.startswith("coppice: ")
