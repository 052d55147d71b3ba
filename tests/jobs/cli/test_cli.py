"""The command line: what it prints, how it ends, and that the README tells the truth about it."""

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from jobs.cli.app import app
from jobs.commands.terminal import printable
from tests.jobs.conftest import Coppice

ROOT = Path(__file__).parents[3]
FAKE = ("--backend", "fake")
PAGES = ["README.md", "docs/tour.md", "docs/prompts.md", "docs/curate.md", "docs/cluster.md"]


def _commands_in(path: Path) -> list[list[str]]:
    """Every `coppice ...` line in the code blocks of a page, as words."""
    blocks = re.findall(r"```(?:bash|sh|console)\n(.*?)```", path.read_text(), re.DOTALL)
    joined = "\n".join(blocks).replace("\\\n", " ")
    lines = [line.removeprefix("$ ") for line in joined.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("coppice ")]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_on_the_page_is_one_that_the_command_line_takes(page: str):
    group = get_command(app)
    commands = _commands_in(ROOT / page)
    assert commands
    for _, name, *arguments in commands:
        command = group.commands[name]  # type: ignore[attr-defined]
        context = command.make_context(name, list(arguments), resilient_parsing=False)
        assert context.command is command


def test_every_command_is_in_the_readme():
    shown = {command[1] for command in _commands_in(ROOT / "README.md")}

    assert shown >= set(get_command(app).commands)  # type: ignore[attr-defined]


def test_help_teaches_each_command_by_an_example():
    for name in get_command(app).commands:  # type: ignore[attr-defined]
        answer = CliRunner().invoke(app, [name, "--help"])
        assert answer.exit_code == 0
        assert f"coppice {name} " in answer.output


def test_planning_tells_what_is_planned_and_planning_again_changes_nothing(
    coppice: Coppice, prompts: Path, tmp_path: Path
):
    first = coppice("plan", str(prompts), "run", *FAKE, "--rollouts", "3", "--shard-rollouts", "16")
    manifest = (tmp_path / "run" / "run.json").read_text()
    second = coppice(
        "plan", str(prompts), "run", *FAKE, "--rollouts", "3", "--shard-rollouts", "16"
    )

    assert first.returncode == second.returncode == 0
    assert "24 records x 3 rollouts in 5 shards" in first.stdout
    assert (tmp_path / "run" / "run.json").read_text() == manifest


def test_a_planned_run_is_incomplete_and_says_how_to_go_on(coppice: Coppice, prompts: Path):
    coppice("plan", str(prompts), "run", *FAKE)
    answer = coppice("status", "run")

    assert answer.returncode == 3
    assert "coppice run run" in answer.stdout
    status = json.loads(coppice("status", "run", "--json").stdout)
    assert (status["num_planned"], status["num_missing"], status["exit_code"]) == (24, 24, 3)


def test_another_method_is_refused_field_by_field(coppice: Coppice, prompts: Path):
    coppice("plan", str(prompts), "run", *FAKE)
    answer = coppice("run", "run", "--seed", "7", "--set", "method.sampling.cfg_weight=3")

    assert answer.returncode == 5
    assert "seed: 0 -> 7" in answer.stderr
    assert "sampling.cfg_weight: 5.0 -> 3.0" in answer.stderr


def test_other_prompts_are_refused(coppice: Coppice, prompts: Path):
    coppice("plan", str(prompts), "run", *FAKE)
    prompts.write_text("something else")
    answer = coppice("plan", str(prompts), "run", *FAKE)

    assert answer.returncode == 2
    assert "24 records" in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["plan", "prompts.txt"], "at least one prompt file"),
        (["plan", "nowhere.txt", "run"], "nowhere.txt"),
        (["plan", "prompts.txt", "run", "--model", "./nowhere"], "./nowhere"),
        (["plan", "prompts.txt", "run", "--program", "dream"], "dream"),
        (["plan", "prompts.txt", "run", "--pack", "nowhere.toml"], "nowhere.toml"),
        (["plan", "prompts.txt", "run", "--config", "nowhere.toml"], "nowhere.toml"),
        (["plan", "prompts.txt", "run", "--set", "seed"], "a dotted name"),
        (["plan", "prompts.txt", "run", *FAKE, "--set", "method.sed=1"], "method.sed"),
        (["plan", "prompts.txt", "ftp://host/run", *FAKE], "s3://bucket/prefix"),
        (["plan", "prompts.txt", "run", *FAKE, "--set", "method.schedule.num_regions=30"], "30"),
        (["run", "nowhere"], "coppice plan PROMPTS"),
        (["status", "nowhere"], "no run at"),
        (["show", "nowhere", "abc"], "no run at"),
        (["score", "nowhere", "--scorer", "toy"], "no run at"),
        (["score", "nowhere", "--scorer", "toi"], "did you mean 'toy'"),
        (["curate", "nowhere", "set", "--recipe", "natural"], "no run at"),
        (["curate", "nowhere", "set", "--recipe", "naturel"], "did you mean 'natural'"),
        (["curate", "nowhere", "--recipe", "natural"], "at least one run"),
    ],
)
def test_unusable_input_ends_with_2_and_writes_nothing(
    coppice: Coppice, prompts: Path, tmp_path: Path, arguments: list[str], complaint: str
):
    answer = coppice(*arguments)

    assert answer.returncode == 2, answer.stderr
    assert complaint in answer.stderr
    assert "Traceback" not in answer.stderr
    assert [path.name for path in tmp_path.iterdir()] == [prompts.name]


def test_bad_prompts_are_named_or_put_aside(coppice: Coppice, tmp_path: Path):
    (tmp_path / "mixed.txt").write_bytes(b"a good one\n\xff\nanother\n")
    refused = coppice("plan", "mixed.txt", "run", *FAKE)
    skipped = coppice("plan", "mixed.txt", "run", *FAKE, "--skip-bad")

    assert refused.returncode == 2
    assert "--skip-bad" in refused.stderr
    assert skipped.returncode == 0
    assert "1 unusable prompt" in skipped.stdout
    (rejects,) = (tmp_path / "run").glob("plan/*/rejects.jsonl")
    assert json.loads(rejects.read_text())["line"] == 2


@pytest.mark.ray
def test_a_run_is_planned_grown_and_shown(coppice: Coppice, prompts: Path, tmp_path: Path):
    grown = coppice("run", str(prompts), "run", *FAKE, "--pictures", "all")
    listed = coppice("show", "run")
    record = re.findall(r"^ *([0-9a-f]{16}) ", listed.stdout, re.MULTILINE)[0]
    shown = coppice("show", "run", record[:8], "--png", "pictures")

    assert grown.returncode == 0, grown.stderr
    assert "24 ok, 0 dead" in grown.stdout
    assert "rollouts per second" in grown.stdout
    assert re.search(r"Next: coppice show run [0-9a-f]{16}\n", grown.stdout)
    for word in ("prompt", "think", "draw", "reflect"):
        assert word in shown.stdout
    pictures = list((tmp_path / "pictures").glob("*.png"))
    assert len(pictures) >= 3
    assert all(Image.open(path).size == (384, 384) for path in pictures)
    sheet = coppice("show", "run", "--sheet", "sheets/first.png")
    assert "Contact sheet: sheets/first.png" in sheet.stdout
    assert Image.open(tmp_path / "sheets" / "first.png").width > 400
    again = coppice("run", "run")
    assert again.returncode == 0
    assert "Nothing is missing" in again.stdout


@pytest.mark.ray
def test_a_run_with_dead_rollouts_ends_with_4(coppice_on_ray: Coppice, prompts: Path):
    answer = coppice_on_ray(
        "run", str(prompts), "run", *FAKE, "--set", "method.fake.dead_share=1.0"
    )

    assert answer.returncode == 4
    assert "0 ok, 24 dead" in answer.stdout


def test_a_hostile_prompt_cannot_move_the_cursor():
    assert printable("a\x1b[2Jb\u202ec\n") == "a\\u001b[2Jb\\u202ec\\u000a"
