"""Names of files that are not UTF-8, and folders whose names a terminal would obey."""

import io
import json
import subprocess
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from jobs.cli import main
from pipeline.plan.evaluation_files import read_evaluation_set
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest
from schemas.errors import ExitCode

FAKE = ("--backend", "fake")
BAD = "bad\udcff.txt"  # the byte 0xff, as Python has it


def told(*words: str, code: int = 0) -> str:
    """What a command says that ends with this code."""
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output), pytest.raises(SystemExit) as end:
        main(words)
    assert (end.value.code or 0) == code, output.getvalue()
    return output.getvalue()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / BAD).write_bytes(b"a red cat\n\x07\n")
    (tmp_path / "good.txt").write_text("a red cat\ntwo dogs\n")
    return tmp_path


@pytest.mark.parametrize("source", [BAD, "bad*.txt"])
def test_prompts_of_a_file_whose_name_is_not_utf8_are_planned(folder: Path, source: str):
    told("plan", source, "run", *FAKE, "--skip-bad")

    part = read_manifest(open_store(str(folder / "run"))).plan
    assert part.num_records == 1
    assert part.sources == (source.replace("\udcff", r"\xff"),)
    (rejects,) = (folder / "run").rglob("rejects*")
    assert json.loads(rejects.read_text())["source"] == r"bad\xff.txt"


def test_they_are_curated_reported_and_held_against(folder: Path):
    files = ("--report", "report.json", "--against", "evaluation\udcff")
    (folder / "evaluation\udcff").mkdir()
    (folder / "evaluation\udcff" / BAD).write_text("Two dogs.\n")

    told("prompts", BAD, "good.txt", "--skip-bad", "--out", "out\udcfe.jsonl", *files)

    assert json.loads((folder / "report.json").read_text())["bad_rows"][0]["file"] == r"bad\xff.txt"
    (line,) = (folder / "out\udcfe.jsonl").read_text().splitlines()
    assert json.loads(line)["prompt"] == "a red cat"
    hits = (folder / "out\udcfe.hits.jsonl").read_text()
    assert json.loads(hits)["evaluation_file"] == rf"evaluation\xff/{BAD[:3]}\xff.txt"
    evaluation = read_evaluation_set(["evaluation*/*"], ["L0"])
    assert list(evaluation.digests) == [r"bad\xff.txt"]


REFUSED: dict[str, Sequence[str]] = {
    "a run": ("plan", "good.txt", "run\udcff", *FAKE),
    "a run as a URL": ("plan", "good.txt", "s3://bucket/run\udcff", *FAKE),
    "a set": ("export", "set\udcff", "--export", "trl"),
    "a model": ("plan", "good.txt", "run", "--model", "model\udcff"),
    "a template pack": ("plan", "good.txt", "run", *FAKE, "--set", "method.pack=pack\udcff.toml"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_have_to_be_recorded_under_such_a_name_is_refused(folder: Path, case: str):
    before = sorted(folder.rglob("*"))

    answer = told(*REFUSED[case], code=2)

    assert r"\xff" in answer
    assert "is not UTF-8" in answer
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("option", ["--config", "--against"])
def test_a_file_that_cannot_be_read_is_named_as_text(option: str):
    command = ("plan", "good.txt", "run") if option == "--config" else ("prompts", "good.txt")
    rest = () if option == "--config" else ("--out", "out.jsonl")

    assert r"none\xff.txt" in told(*command, *rest, option, "none\udcff.txt", code=2)


@pytest.mark.parametrize("name", ["r\x1b[31mun", "two\nlines", "it's", "r\u202eun", "-run"])
def test_the_next_command_is_harmless_and_names_the_same_folder(folder: Path, name: str):
    told("plan", "good.txt", f"./{name}", *FAKE)

    line = told("status", f"./{name}", code=ExitCode.INCOMPLETE).splitlines()[-1]

    assert line.isprintable()
    typed = subprocess.run(
        ["bash", "-c", f"printf %s {line.removeprefix('Next: coppice run ')}"],
        capture_output=True,
        env={"LC_ALL": "C.UTF-8"},
    ).stdout.decode()
    assert folder / typed == folder / name
    assert not typed.startswith("-")
