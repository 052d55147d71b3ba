"""The prompts of suites, from files as they are published."""

import json
from pathlib import Path

import pytest

from pipeline.evaluation.suite_prompts import read_suite
from pipeline.evaluation.suites import (
    CLASS_KEY,
    COMPBENCH,
    GENEVAL,
    LISTS_KEY,
    SUITE_KEY,
    TOY,
    find_suite,
)
from schemas.errors import InputError
from schemas.specs import CATEGORY_KEY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two prompts of each class of T2I-CompBench, and the list of those about relations."""
    for name, file in COMPBENCH.files.items():
        (tmp_path / file).write_text(f"a {name} dog.\na {name} cat.\n")
    (tmp_path / "complex_val_spatial.txt").write_text("A complex cat\n")
    return tmp_path


def test_a_trial_takes_prompts_of_each_class_in_turn(folder: Path):
    read = read_suite(COMPBENCH, str(folder), first=9)

    classes = [prompt.metadata[CLASS_KEY] for prompt in read.prompts]
    assert classes == [*COMPBENCH.files, "color"]
    assert all(prompt.metadata[SUITE_KEY] == COMPBENCH.name for prompt in read.prompts)
    assert all(
        prompt.metadata[CATEGORY_KEY] == prompt.metadata[CLASS_KEY] for prompt in read.prompts
    )
    assert read.num_distinct == 16


def test_complex_prompts_know_the_lists_that_name_them(folder: Path):
    lists = {
        prompt.text: prompt.metadata[LISTS_KEY]
        for prompt in read_suite(COMPBENCH, str(folder)).prompts
        if LISTS_KEY in prompt.metadata
    }

    assert lists == {"a complex dog.": [], "a complex cat.": ["spatial"]}


def test_what_is_missing_is_said_with_its_publisher(folder: Path):
    (folder / "color_val.txt").unlink()

    with pytest.raises(InputError, match=r"lacks color_val\.txt; .*the project T2I-CompBench"):
        read_suite(COMPBENCH, str(folder))
    with pytest.raises(InputError, match=r"--prompts DIR, with evaluation_metadata\.jsonl, publis"):
        read_suite(GENEVAL, None)
    with pytest.raises(InputError, match="is bundled"):
        read_suite(TOY, str(folder))
    with pytest.raises(InputError, match="known: t2i-compbench, geneval, toy"):
        find_suite("coco")


def test_genevals_metadata_travels_and_its_tag_is_the_class(tmp_path: Path):
    row = {
        "tag": "colors",
        "include": [{"class": "dog", "count": 1, "color": "red"}],
        "prompt": "a photo of a red dog",
    }
    (tmp_path / "evaluation_metadata.jsonl").write_text(json.dumps(row) + "\n")
    (prompt,) = read_suite(GENEVAL, str(tmp_path)).prompts

    assert prompt.text == row["prompt"]
    assert prompt.metadata["include"] == row["include"]
    assert prompt.metadata[CLASS_KEY] == "colors"


def test_a_line_that_is_not_genevals_is_refused(tmp_path: Path):
    (tmp_path / "evaluation_metadata.jsonl").write_text('{"prompt": "a dog", "tag": "colors"}\n')

    with pytest.raises(InputError, match="jsonl:1 has no tag and include"):
        read_suite(GENEVAL, str(tmp_path))


def test_the_bundled_prompts_are_always_the_same():
    first, second = read_suite(TOY, None), read_suite(TOY, None, first=3)

    assert first.prompts[:3] == second.prompts
    assert len(first.prompts) == 64
    assert all("spec" in prompt.metadata for prompt in first.prompts)
