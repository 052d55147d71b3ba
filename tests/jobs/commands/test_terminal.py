"""What the terminal shows, and that a prompt cannot make it show something else."""

import ast
import io
import json
import os
import pty
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobs.commands.terminal import (
    Terminal,
    as_typed,
    counted,
    duration,
    printable,
    size,
)
from schemas.errors import InputError

ROOT = Path(__file__).parents[3]


# Words for numbers


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (0.9, "0 s"),
        (42.7, "42 s"),
        (59.99, "59 s"),
        (60, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (18_720, "5 h 12 min"),
        (400_000, "111 h 6 min"),
    ],
)
def test_durations(seconds: float, expected: str):
    assert duration(seconds) == expected


@pytest.mark.parametrize(
    ("num_bytes", "expected"),
    [
        (0, "0 B"),
        (812, "812 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_300_000, "1.3 MB"),
        (2_000_000_000, "2.0 GB"),
        (3.5e12, "3.5 TB"),
        (1.2e16, "12000.0 TB"),
    ],
)
def test_sizes(num_bytes: float, expected: str):
    assert size(num_bytes) == expected


@given(st.integers(0, 10**14))
@example(999_950)
@example(999_949)
@example(999_999_999)
def test_a_size_is_shown_in_the_unit_that_fits_it(num_bytes: int):
    number, unit = size(num_bytes).split()

    assert float(number) < 1000 or unit == "TB"


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, "0 shards"), (1, "1 shard"), (2, "2 shards"), (12_345, "12,345 shards")],
)
def test_counts(number: int, expected: str):
    assert counted(number, "shard") == expected


# What is typed


def test_a_run_below_here_is_named_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    assert as_typed(str(tmp_path / "runs" / "first")) == "runs/first"
    assert as_typed(str(tmp_path)) == "."


@pytest.mark.parametrize("url", ["s3://bucket/a/run", "/somewhere/else/run"])
def test_a_run_elsewhere_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str):
    monkeypatch.chdir(tmp_path)

    assert as_typed(url) == url


@pytest.mark.parametrize("name", ["my run", "a;b", "$HOME", "it's"])
def test_a_name_is_quoted_for_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.chdir(tmp_path)

    assert shlex.split(as_typed(str(tmp_path / name))) == [name]
    assert shlex.split(as_typed(f"s3://bucket/{name}")) == [f"s3://bucket/{name}"]


# Hostile text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a red cube", "a red cube"),
        ("un caf\u00e9 \u6a39 \U0001f333", "un caf\u00e9 \u6a39 \U0001f333"),
        ("\x1b[2J\x07", "\\u001b[2J\\u0007"),
        ("one\ntwo\r\ttwo", "one\\u000atwo\\u000d\\u0009two"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("half a pair \ud83d", "half a pair \\ud83d"),
        ("\u2028\u2029\x9b", "\\u2028\\u2029\\u009b"),
        ("[bold]", "[bold]"),
    ],
)
def test_text_that_could_move_the_cursor_is_spelt_out(text: str, expected: str):
    assert printable(text) == expected


@given(st.text())
def test_printable_text_is_one_line_that_can_be_encoded(text: str):
    shown = printable(text)

    assert len(shown.splitlines()) <= 1
    assert shown.encode().decode() == shown
    assert printable(shown) == shown


# What is said


class Tty(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def said(say: Callable[[Terminal], None], sink: io.StringIO | None = None) -> str:
    """What a terminal of 40 columns shows."""
    sink = sink or io.StringIO()
    say(Terminal(sink, width=40))
    return sink.getvalue()


def test_a_line_stays_one_line_whatever_it_quotes():
    assert said(lambda terminal: terminal.say("a\nb", "[bold]c[/bold] " * 9)) == (
        "a\\u000ab\n" + "[bold]c[/bold] " * 9 + "\n"
    )


def test_lines_for_people_are_wrapped_at_words():
    lines = said(lambda terminal: terminal.say("word " * 20, can_wrap=True)).splitlines()

    assert [line.split() for line in lines] == [["word"] * 8, ["word"] * 8, ["word"] * 4]


def test_a_failure_keeps_its_line_breaks_and_nothing_else_that_moves_the_cursor():
    error = InputError("seed: 0 -> 7\n  model: [red]a\x1b[2J -> b\u2028")

    assert said(lambda terminal: terminal.fail(error)) == (
        "coppice: seed: 0 -> 7\n  model: [red]a\\u001b[2J -> b\\u2028\n"
    )


@given(st.text())
@example("\x7f\x9b\u202e\ud800")
def test_json_is_one_object_in_ascii(text: str):
    shown = said(lambda terminal: terminal.say_json({"prompt": text}))

    assert json.loads(shown) == {"prompt": text}
    assert shown.replace("\n", "").isascii()
    assert shown.replace("\n", "").isprintable()


def test_a_table_shows_cells_letter_by_letter():
    rows = [("[bold]x[/bold]", "1"), ("a\x1b[2J", "2")]

    assert said(lambda terminal: terminal.say_table(("name", "number"), rows)).split() == [
        *("name", "number", "[bold]x[/bold]", "1", "a\\u001b[2J", "2")
    ]


def test_a_picture_is_drawn_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    pixels = np.zeros((96, 96, 3), np.uint8)
    pixels[:48] = (255, 0, 0)
    shown = said(lambda terminal: terminal.show_picture(pixels), Tty())

    assert said(lambda terminal: terminal.show_picture(pixels)) == ""
    assert "38;2;255;0;0" in shown
    assert "48;2;0;0;0" in shown


def test_a_terminal_that_is_gone_ends_nothing():
    ours, theirs = pty.openpty()
    with open(theirs, "w") as file, Terminal(file).progress("growing") as line:
        os.close(ours)
        line.doing("still growing")
        for _ in range(2):
            Terminal(file).say("a tree")


def test_a_disk_that_is_full_is_told():
    with pytest.raises(OSError, match="No space"), open("/dev/full", "w") as file:
        Terminal(file).say("a tree")


def test_only_the_terminal_writes_to_the_terminal():
    writes = {
        f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
        for path in sorted((ROOT / "jobs").rglob("*.py"))
        if path != ROOT / "jobs" / "commands" / "terminal.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if _is_write(node)
    }

    assert not writes
    for line in ("print(1)", "a.print_json(1)", "typer.echo(1)", "sys.stdout.write(1)"):
        assert _is_write(ast.parse(line, mode="eval").body)
    assert _is_write(ast.parse("from rich.console import Console").body[0])


def _is_write(node: ast.AST) -> bool:
    """Whether it prints past `Terminal`, or imports what does."""
    if isinstance(node, ast.ImportFrom):
        return (node.module or "") in ("rich", "rich.console", "rich.live", "rich.progress")
    if isinstance(node, ast.Import):
        return any(alias.name.partition(".")[0] == "rich" for alias in node.names)
    if not isinstance(node, ast.Call):
        return False
    callee = ast.unparse(node.func)
    writers = {"print", "print_json", "echo", "secho", "Console"}
    return callee.rpartition(".")[2] in writers or callee.startswith(("sys.stdout.", "sys.stderr."))
