"""`coppice prompts` as a user has it."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from jobs.commands.prompts import PromptsRequest, make_prompt_file
from jobs.commands.terminal import Terminal
from pipeline.plan.prompt_files import read_prompts
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest, read_plan_shard
from schemas.errors import InputError
from schemas.specs import PromptOrigin, PromptSpec
from tests.jobs.conftest import Coppice

TRAIN = ["a red cat on a table", "two dogs", "A photo of two dogs!", "two dogs", "красная кошка"]
VAL = ["a table on a red cat", "Two dogs"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "train.txt").write_text("\n".join(TRAIN), encoding="utf-8")
    (tmp_path / "val.txt").write_text("\n".join(VAL), encoding="utf-8")
    return tmp_path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_prompts_are_decontaminated_told_about_and_planned_as_they_are(
    coppice: Coppice, files: Path
):
    answer = coppice(
        *("prompts", "train.txt", "--out", "made/prompts.jsonl", "--against", "val.txt"),
        *("--report", "report.json"),
    )
    planned = coppice("plan", "made/prompts.jsonl", "run", "--backend", "fake")

    assert answer.returncode == 0, answer.stderr
    assert "Read 5 prompts, 1 of them duplicates: 4 distinct." in answer.stdout
    assert "L0 1, L1 1, L2 1, L3 0. Dropped 2, tagged 1." in answer.stdout
    assert "Wrote 2 prompts." in answer.stdout
    assert "letters that are not Latin: train.txt:5: красная кошка" in answer.stdout
    assert {hit["prompt"] for hit in lines(files / "made" / "prompts.hits.jsonl")} == {
        *TRAIN[:3],
    }
    assert json.loads((files / "report.json").read_text())["num_dropped"] == 2
    assert planned.returncode == 0, planned.stderr
    store = open_store(str(files / "run"))
    row, unread = read_plan_shard(store, read_manifest(store), 0)
    assert row.prompt == TRAIN[0]
    assert PromptSpec.from_json(row.metadata["prompt_spec"]).detector_phrases == (
        "red cat",
        "table",
    )
    assert row.metadata["prompt_leaks"][0]["level"] == "L2"
    assert unread.metadata["prompt_spec"] is None


@pytest.mark.parametrize(
    ("levels", "num_kept"), [("none", 1), ("L2,L3", 2), ("L1,L2,L3", 3), ("L0,L1,L2,L3", 4)]
)
def test_levels_are_kept_as_asked_for(coppice: Coppice, files: Path, levels: str, num_kept: int):
    answer = coppice(
        *("prompts", "train.txt", "--out", "p.jsonl", "--against", "val.txt"),
        *("--keep-leaks", levels),
    )

    assert answer.returncode == 0, answer.stderr
    assert len(read_prompts([str(files / "p.jsonl")]).prompts) == num_kept
    assert len(lines(files / "p.hits.jsonl")) == 3  # dropped or tagged, every leak is on the list


def test_where_prompts_come_from_stays_with_them(coppice: Coppice, files: Path):
    coppice("prompts", "train.txt", "--out", "a.jsonl", "--origin", "Cats", "--licence", "MIT")
    (files / "more.jsonl").write_text('{"prompt": "a blue bench", "prompt_origin": null}')
    answer = coppice("prompts", "a.jsonl", "more.jsonl", "--out", "b.jsonl", "--origin", "Benches")

    assert answer.returncode == 0, answer.stderr
    origins = {line["prompt"]: line["prompt_origin"] for line in lines(files / "b.jsonl")}
    assert origins["a blue bench"] == {"name": "Benches"}
    assert origins[TRAIN[0]] == {"name": "Cats", "licence": "MIT"}


def test_without_evaluation_files_nothing_is_said_of_leaks(coppice: Coppice, files: Path):
    answer = coppice("prompts", "train.txt", "--out", "p.jsonl")

    assert answer.returncode == 0, answer.stderr
    assert "eak" not in answer.stdout
    assert not (files / "p.hits.jsonl").exists()
    assert all("prompt_leaks" not in row for row in lines(files / "p.jsonl"))


def request(folder: Path, **changes: Any) -> PromptsRequest:
    fields: dict[str, Any] = {
        "sources": [str(folder / "train.txt")],
        "out": folder / "p.jsonl",
        "against": [str(folder / "val.txt")],
        "keep_leaks": "L2,L3",
        "hits": None,
        "report": None,
        "skip_bad": False,
        "origin": PromptOrigin(),
    }
    return PromptsRequest(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"out": Path("p.txt")}, "ends in .jsonl"),
        ({"out": Path("s3://bucket/p.jsonl")}, "local path"),
        ({"out": Path("train.txt/p.jsonl")}, "no folder that can be written to"),
        ({"hits": Path("p.jsonl")}, "different files"),
        ({"hits": Path("val.txt")}, "read as well"),
        ({"report": Path()}, "is a folder"),
        ({"keep_leaks": "L9"}, "'L9'"),
        ({"sources": ["nowhere.txt"]}, "nowhere.txt"),
        ({"against": ["nowhere.txt"]}, "nowhere.txt"),
        ({"sources": ["bad.txt"]}, "not UTF-8"),
        ({"against": ["bad.txt"]}, "not UTF-8"),
        ({"sources": ["val.txt"], "keep_leaks": "none"}, "none would be left"),
    ],
)
def test_unusable_input_is_refused_before_anything_is_written(
    files: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], complaint: str
):
    monkeypatch.chdir(files)
    (files / "bad.txt").write_bytes(b"a cat\n\xff\n")
    before = sorted(files.rglob("*"))

    with pytest.raises(InputError) as caught:
        make_prompt_file(request(Path(), **changes), Terminal(io.StringIO()))

    assert complaint in str(caught.value)
    assert sorted(files.rglob("*")) == before


def test_bad_lines_are_left_out_only_when_asked_and_reported(coppice: Coppice, tmp_path: Path):
    (tmp_path / "bad.txt").write_bytes(b"a cat\n\xff\n")
    arguments = ("prompts", "bad.txt", "--out", "p.jsonl", "--report", "r.json")
    refused, skipped = coppice(*arguments), coppice(*arguments, "--skip-bad")

    assert refused.returncode == 2
    assert "bad.txt:2" in refused.stderr
    assert "Left out 1 unusable line." in skipped.stdout
    assert json.loads((tmp_path / "r.json").read_text())["bad_rows"][0]["line"] == 2


def test_a_prompt_cannot_reorder_the_terminal(coppice: Coppice, tmp_path: Path):
    (tmp_path / "p.txt").write_text("кот \u202e[bold]tac\n", encoding="utf-8")
    answer = coppice("prompts", "p.txt", "--out", "p.jsonl")

    assert answer.returncode == 0, answer.stderr
    assert "\u202e" not in answer.stdout
    assert "\\u202e[bold]tac" in answer.stdout
    assert lines(tmp_path / "p.jsonl")[0]["prompt"] == "кот \u202e[bold]tac"
