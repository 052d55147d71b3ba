"""The options that say how prompt files are read, as a user has them."""

import csv
import json
import re
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.store.open import open_store
from pipeline.store.plans import PlanRow, read_manifest, read_plan_shard
from tests.jobs.conftest import Coppice

FAKE = ("--backend", "fake")
CAPTIONS = [{"caption": "a boat\non a pond", "seed": 1, "alt": "x"}, {"caption": "stones"}]


@pytest.fixture
def captions(tmp_path: Path) -> str:
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CAPTIONS))
    return "captions.jsonl"


def planned(folder: Path) -> list[PlanRow]:
    store = open_store(str(folder / "run"))
    manifest = read_manifest(store)
    shards = range(manifest.num_shards)
    return [row for shard in shards for row in read_plan_shard(store, manifest, shard)]


def test_a_column_that_is_missing_is_refused_with_the_option_that_plans_it(
    coppice: Coppice, captions: str, tmp_path: Path
):
    refused = coppice("plan", captions, "run", *FAKE)
    answer = coppice(
        *("plan", captions, "run", *FAKE, "--prompt-column", "caption"),
        *("--fold-newlines", "--drop-columns", "seed, alt"),
    )

    assert refused.returncode == 2
    assert "found 'alt, caption, seed'" in refused.stderr
    assert "--prompt-column 'caption'" in refused.stderr
    assert answer.returncode == 0, answer.stderr
    assert [(row.prompt, row.metadata) for row in planned(tmp_path)] == [
        ("a boat on a pond", {}),
        ("stones", {}),
    ]


def test_a_trial_is_planned_and_then_extended_to_all(
    coppice: Coppice, prompts: Path, tmp_path: Path
):
    trial = coppice("plan", str(prompts), "run", *FAKE, "--limit", "3")
    again = coppice("plan", str(prompts), "run", *FAKE, "--limit", "3")
    more = coppice("plan", "--extend", str(prompts), "run")

    assert "Limit: the first 3 of 24 records." in trial.stdout
    assert again.returncode == more.returncode == 0, more.stderr
    assert "Added 21 rollouts" in more.stdout
    assert len(planned(tmp_path)) == 24


def test_columns_of_bytes_are_named_in_one_line(coppice: Coppice, tmp_path: Path):
    columns = {"prompt": ["a boat"], "image": [b"\xff"], "mask\x1b": [b"\xff"], "n": [1]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")

    answer = coppice("plan", "a.parquet", "run", *FAKE)
    dropped = coppice("plan", "a.parquet", "other", *FAKE, "--drop-columns", "image")

    assert "2 columns stay behind, since they hold bytes: image, mask\\u001b." in answer.stdout
    assert "Column mask\\u001b stays behind: it holds bytes." in dropped.stdout
    assert planned(tmp_path)[0].metadata == {"n": 1}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("run", "run", "--limit", "3"), "and there are none"),
        (("plan", "--extend", "run", "--prompt-column", "x"), "and there are none"),
        (("plan", "prompts.txt", "run", *FAKE, "--limit", "0"), "--limit"),
        (
            ("prompts", "prompts.txt", "--out", "p.jsonl", "--evaluation-column", "x"),
            "name some, --against",
        ),
        (("plan", "prompts.txt", "run", *FAKE, "--drop-columns", "a,,b"), "--drop-columns"),
        (("plan", "prompts.txt", "run", *FAKE, "--drop-columns", "a"), "no file has such a column"),
    ],
)
def test_an_option_that_cannot_be_followed_is_refused(
    coppice: Coppice, prompts: Path, arguments: tuple[str, ...], complaint: str
):
    answer = coppice(*arguments)

    assert prompts.exists()
    assert answer.returncode == 2
    assert complaint in answer.stderr


@pytest.mark.parametrize("column", ["a,b", 'the "x"', "", " padded ", "it's"])
def test_any_two_columns_of_one_name_can_be_left_out_as_the_message_says(
    coppice: Coppice, tmp_path: Path, column: str
):
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["prompt", column, column, "n"], ["a boat", 1, 2, 3]])

    refused = coppice("plan", "a.csv", "run", *FAKE)
    (option,) = re.findall("--drop-columns .*", refused.stderr)
    answer = coppice("plan", "a.csv", "run", *FAKE, *shlex.split(option))

    assert refused.returncode == 2
    assert answer.returncode == 0, answer.stderr
    assert [row.metadata for row in planned(tmp_path)] == [{"n": "3"}]


def test_prompts_are_curated_from_a_named_column_against_any_published_table(
    coppice: Coppice, captions: str, tmp_path: Path
):
    (tmp_path / "Parti.tsv").write_text("Prompt\tNote\nSTONES\t1\n")
    arguments = ("prompts", captions, "--out", "p.jsonl", "--against", "Parti.tsv")
    options = ("--prompt-column", "caption", "--fold-newlines")

    answer = coppice(*arguments, *options, "--drop-columns", "alt")

    assert answer.returncode == 0, answer.stderr
    assert "L0 1" in answer.stdout
    (line,) = map(json.loads, (tmp_path / "p.jsonl").read_text().splitlines())
    assert (line["prompt"], line["seed"]) == ("a boat on a pond", 1)
    assert "alt" not in line


def test_a_second_column_of_prompts_never_takes_the_place_of_the_first(
    coppice: Coppice, tmp_path: Path
):
    (tmp_path / "a.csv").write_text("prompt,caption\nthe wrong one,the right one\n")
    arguments = ("prompts", "a.csv", "--out", "p.jsonl", "--prompt-column", "caption")

    refused = coppice(*arguments)
    answer = coppice(*arguments, "--drop-columns", "prompt")

    assert refused.returncode == 2
    assert "--drop-columns prompt" in refused.stderr
    assert answer.returncode == 0, answer.stderr
    assert json.loads((tmp_path / "p.jsonl").read_text())["prompt"] == "the right one"


def test_advice_about_an_evaluation_file_names_an_option_that_reads_it(
    coppice: Coppice, tmp_path: Path
):
    (tmp_path / "a.jsonl").write_text('{"prompt": "stones"}\n{"prompt": "a boat"}\n')
    (tmp_path / "val.jsonl").write_text('{"caption": "stones"}\n')
    arguments = ("prompts", "a.jsonl", "--out", "p.jsonl", "--against", "val.jsonl")
    refused = coppice(*arguments)
    advice = refused.stderr.rpartition(" with ")[2].replace("'", "").split()
    answer = coppice(*arguments, *advice)

    assert refused.returncode == 2
    assert advice == ["--evaluation-column", "caption"]
    assert answer.returncode == 0, answer.stderr
    assert "Dropped 1" in answer.stdout
