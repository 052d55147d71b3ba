"""From rows to curated rows, on small files, and on the published ones where they are at hand."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.plan.prompt_files import read_rows
from pipeline.prompts.curated import CuratedSet, curate_prompts, hit_rows, report
from pipeline.prompts.leaks import EvaluationPrompt, LeakIndex, LeakLevel
from pipeline.prompts.lexicon import lexicon
from pipeline.prompts.parser import Unread, parse
from schemas.errors import InputError
from schemas.prompts import Prompt
from schemas.specs import PromptSpec

PUBLISHED = os.environ.get("COPPICE_PUBLISHED_PROMPTS")
"""A folder with `t2i_compbench/` and `t2i_r1_prompts.jsonl`; they are not ours to ship."""

DROPPED = frozenset((LeakLevel.L0, LeakLevel.L1))


def row(text: str, source: str = "a.jsonl", line: int = 1, **metadata: Any) -> Prompt:
    return Prompt(text=text, metadata=metadata, source=source, line=line)


def evaluation(*prompts: str) -> LeakIndex:
    return LeakIndex(
        EvaluationPrompt(text=text, file="val.txt", line=line)
        for line, text in enumerate(prompts, start=1)
    )


def curate(*rows: Prompt, against: LeakIndex | None = None) -> CuratedSet:
    return curate_prompts(rows, against or evaluation(), drop=DROPPED)


def test_every_row_is_kept_dropped_or_a_duplicate():
    curated = curate(
        row("a red cat"),
        row("a red cat"),
        row("The dogs"),
        row("红猫"),
        against=evaluation("a dog", "a cat, red"),
    )

    assert [found.prompt.text for found in curated.kept] == ["a red cat", "红猫"]
    assert [found.prompt.text for found in curated.dropped] == ["The dogs"]
    assert curated.num_duplicates == 1
    told = report(curated)
    assert told["num_rows"] == told["num_written"] + told["num_dropped"] + told["num_duplicates"]


def test_a_duplicate_lends_what_the_first_lacks():
    curated = curate(
        row("a boy on a bench", source="spatial_train.txt", line=7),
        row("a boy on a bench", nouns=["boy"], task_type="complex", price=2),
        row("a boy on a bench", price=3),
    )

    (found,) = curated.kept
    assert (found.prompt.source, found.prompt.line) == ("spatial_train.txt", 7)
    assert found.prompt.metadata == {"nouns": ["boy"], "task_type": "complex", "price": 2}
    assert found.category == "spatial"
    assert found.spec is not None
    assert found.spec.source == "annotation"


def test_a_row_is_a_prompt_with_metadata():
    curated = curate(row("a mouse near a cat", price=2), against=evaluation("a cat near a mouse"))

    written = curated.kept[0].to_row(has_evaluation=True)
    assert written["prompt"] == "a mouse near a cat"
    assert (written["price"], written["category"]) == (2, "spatial")
    assert PromptSpec.from_json(written["prompt_spec"]) == curated.kept[0].spec
    assert [leak["level"] for leak in written["prompt_leaks"]] == ["L2"]
    assert "prompt_leaks" not in curated.kept[0].to_row(has_evaluation=False)


def test_columns_of_ones_own_stay_as_they_are():
    curated = curate(row("a cat", category="pets", spec={"mine": 1}))

    written = curated.kept[0].to_row(has_evaluation=False)
    assert written["category"] == "pets"
    assert written["spec"] == {"mine": 1}
    assert written["prompt_spec"]["category"] == "object"


def test_a_prompt_without_spec_says_null_and_is_reported():
    curated = curate(row("красная кошка"), row("eine rote Katze", line=2))

    assert [found.to_row(has_evaluation=False)["prompt_spec"] for found in curated.kept] == [
        None,
        None,
    ]
    told = report(curated)
    assert [case["line"] for case in told["without_spec"]] == [1, 2]
    assert told["specs"] == {"unknown": {"annotation": 0, "parser": 0, "model": 0, "none": 2}}


def test_a_second_pass_changes_nothing():
    first = curate(row("a red cat", nouns=["cat"]), row("a red dog on a table"))
    rows = [found.to_row(has_evaluation=False) for found in first.kept]
    again = curate(
        *(row(r["prompt"], **{k: v for k, v in r.items() if k != "prompt"}) for r in rows)
    )

    assert [found.to_row(has_evaluation=False) for found in again.kept] == rows


@pytest.mark.parametrize("column", [["cat"], "cat", {"version": 1}, {"version": 9}])
def test_a_column_that_takes_the_place_of_the_spec_is_refused(column: Any):
    with pytest.raises(InputError, match=r"a\.jsonl:1: expected"):
        curate(row("a cat", prompt_spec=column))


def test_hits_tell_prompt_file_line_level_and_fate():
    curated = curate(
        row("two dogs", line=3),
        row("a mouse near a cat", line=4),
        against=evaluation("a cat near a mouse", "a photo of two dogs"),
    )

    assert [
        (hit["prompt"], hit["evaluation_file"], hit["evaluation_line"], hit["level"], hit["fate"])
        for hit in hit_rows(curated)
    ] == [
        ("two dogs", "val.txt", 2, "L1", "dropped"),
        ("a mouse near a cat", "val.txt", 1, "L2", "tagged"),
    ]


@pytest.fixture(scope="module")
def published() -> Path:
    if not PUBLISHED:
        pytest.skip("COPPICE_PUBLISHED_PROMPTS names no folder")
    return Path(PUBLISHED)


def published_leaks(folder: Path) -> LeakIndex:
    rows, _ = read_rows([str(folder / "t2i_compbench" / "*_val.txt")])
    return LeakIndex(
        EvaluationPrompt(text=row.text, file=row.source, line=row.line) for row in rows
    )


def test_nearly_all_training_prompts_of_t2i_compbench_get_a_spec(published: Path):
    rows, _ = read_rows([str(published / "t2i_compbench" / "*_train.txt")])
    curated = curate(*rows, against=published_leaks(published))

    told = report(curated)
    assert (told["num_rows"], told["num_prompts"]) == (5600, 5559)
    assert len(told["without_spec"]) < 0.001 * told["num_prompts"]
    assert {unread["reason"] for unread in told["without_spec"]} <= {Unread.DOUBT}
    of_depth = {"annotation": 0, "model": 0, "parser": 700, "none": 0}
    assert told["specs"]["3d_spatial"] == of_depth
    assert told["leaks"]["L0"] == 6
    assert not {found.level for found in curated.kept} & DROPPED


def test_all_of_t2i_r1_gets_a_spec_and_few_annotations_do_not_fit(published: Path):
    rows, _ = read_rows([str(published / "t2i_r1_prompts.jsonl")])
    told = report(curate(*rows, against=evaluation()))

    assert told["without_spec"] == []
    assert len(told["annotations_set_aside"]) < 0.01 * told["num_prompts"]


def test_the_parser_finds_what_t2i_r1_annotates(published: Path):
    """Without being told: nearly all nouns, every count and position."""
    rows, _ = read_rows([str(published / "t2i_r1_prompts.jsonl")])
    total: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for told in rows:
        spec = parse(told.text).spec
        if spec is None:  # "headphoneses"
            continue
        words = {word for thing in spec.objects for word in thing.noun.split()}
        counts = [thing.count for thing in spec.objects]
        for noun in told.metadata["nouns"]:
            total["nouns"] += 1
            found["nouns"] += lexicon().singular(noun.split()[-1]) in words
        for item in told.metadata.get("numeracy_info") or ():
            total["counts"] += 1
            found["counts"] += item["num"] in counts
        if spatial := told.metadata.get("spatial_info"):
            name = lexicon().prepositions[tuple(spatial["locality"].split())].name
            total["positions"] += 1
            found["positions"] += any(name == relation.relation for relation in spec.relations)

    assert found["nouns"] > 0.97 * total["nouns"]
    assert found["counts"] > 0.99 * total["counts"]
    assert found["positions"] > 0.99 * total["positions"]


def test_specs_and_leaks_are_plain_json():
    curated = curate(row("a red cat on a mat"), against=evaluation("a mat on a red cat"))

    written = curated.kept[0].to_row(has_evaluation=True)
    assert json.loads(json.dumps(written)) == written
    assert curated.kept[0].level is LeakLevel.L2
