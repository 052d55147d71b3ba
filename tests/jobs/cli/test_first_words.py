"""What a user sees first: words at once, nothing of Ray's, and help that teaches."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from jobs.cli.app import app
from schemas.config import ExecutionConfig, MethodConfig
from tests.jobs.conftest import Coppice
from tests.jobs.screens import screen, typed

ROOT = Path(__file__).parents[3]
COMMANDS = [
    ["plan", "prompts.txt", "run"],
    ["run", "prompts.txt", "run"],
    ["run", "run"],
    ["rerun", "run"],
    ["status", "run"],
    ["verify", "run"],
    ["prompts", "prompts.txt", "--out", "out.jsonl"],
    ["score", "run", "--scorer", "toy"],
    ["curate", "run", "set", "--recipe", "natural"],
    ["eval", "run", "--suite", "toy"],
]
PROBE = """
import sys
from jobs.commands.terminal import Terminal

def doing(self, words, **options):
    print(words, *{"numpy", "pyarrow", "torch", "ray", "boto3"} & set(sys.modules))
    raise SystemExit

Terminal.doing = doing
from jobs.cli import main
for arguments in %s:
    try:
        main(arguments)
    except SystemExit:
        pass
"""
HUSHED = """
import os, sys
from jobs.commands.terminal import Terminal, keep_stderr_to_python
early = Terminal(sys.stderr)
keep_stderr_to_python()
os.write(2, b"E core_worker.cc: what a library writes past Python\\n")
early.say("what we say")
print("what Python says", file=sys.stderr)
keep_stderr_to_python()
os._exit(0)
"""


def python(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )


def test_the_first_words_come_before_anything_is_loaded_that_takes_time():
    lines = python(PROBE % COMMANDS).stdout.splitlines()

    assert lines == [
        *("reading prompts", "reading prompts", "reading the run", "reading the run"),
        *("reading the run", "reading the run", "reading prompts", "reading the run"),
        *("reading the recipe", "reading the suite"),
    ]


def test_what_a_library_writes_past_python_is_not_seen():
    assert python(HUSHED).stderr == "what we say\nwhat Python says\n"


def test_examples_in_help_are_one_a_line_also_on_80_columns():
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        text = inspect.cleandoc(command.callback.__doc__)
        examples = [line for line in text.splitlines() if line.startswith("    ")]
        assert examples, name
        assert max(map(len, examples)) <= 80, name


def test_help_answers_to_its_short_name_too(coppice: Coppice):
    assert coppice("-h").stdout == coppice("--help").stdout
    assert coppice("why", "-h").stdout == coppice("why", "--help").stdout


def test_commands_stand_in_groups():
    panels = {
        name: command.rich_help_panel
        for name, command in get_command(app).commands.items()  # type: ignore[attr-defined]
    }

    assert set(panels.values()) == {
        *("Plan and grow", "Look", "When something fails", "Training sets", "Endpoints")
    }


def test_defaults_are_shown_as_they_are():
    shown = {
        parameter.name: parameter.show_default
        for parameter in get_command(app).commands["run"].params  # type: ignore[attr-defined]
    }

    for name in ("backend", "program", "seed", "pictures"):
        default = MethodConfig.model_fields[name].default
        assert shown[name] == str(getattr(default, "value", default))
    assert shown["max_dead_fraction"] == str(ExecutionConfig().max_dead_fraction)
    assert shown["model"] == "toy"


# On a terminal


@pytest.mark.parametrize("columns", [80, 120])
def test_a_plan_on_a_terminal_begins_with_words_and_leaves_lines_that_fit(
    tmp_path: Path, columns: int
):
    (tmp_path / "prompts.txt").write_text("a red star\na green cross\n")
    written = typed(
        ["plan", "prompts.txt", "runs/first", "--backend", "fake"], tmp_path, columns=columns
    )

    assert written.index("reading prompts") < written.index("Run ")
    lines = [line for line in screen(written, columns=columns) if line]
    assert [re.sub(r"[0-9a-f]{12,16}", "ID", line) for line in lines] == [
        "Run ID at runs/first: think-while with fake (fake).",
        "Planned: 2 records x 1 rollout in 1 shard of up to 256, about 481.3 kB.",
        "Fingerprint: ID.",
    ]


def test_without_colour_a_terminal_gets_none(tmp_path: Path):
    written = typed(["status", "nowhere"], tmp_path, columns=80, env={"NO_COLOR": "1"})

    assert not re.search(r"\x1b\[\d[\d;]*m", written)
    assert screen(written, columns=80)[0].startswith("coppice: there is no run at")
