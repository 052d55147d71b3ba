"""Thoughts in prompt files: what is refused, and what a plan and a fingerprint say of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.plan.models import fake_facts
from pipeline.plan.prompt_files import read_prompts
from pipeline.plan.thoughts import thoughts_check, thoughts_of
from schemas.config import Program, SamplingConfig, fingerprint
from schemas.errors import InputError
from tests.support import SMALL, fake_method

GIVEN = fake_method(thoughts="given", sampling=SamplingConfig(max_text_tokens=20))


def checked(value: Any) -> str | None:
    check = thoughts_check(GIVEN, fake_facts(SMALL))
    assert check is not None
    return check({} if value is ... else {"thoughts": value})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (..., "no `thoughts`; expected a list of 3 texts"),
        (None, "is no list of texts"),
        ("one, two, three", "is no list of texts"),
        (["a", "b", 3], "is no list of texts"),
        (["a", "b"], "2 thoughts for 3 regions"),
        (["a", "b", "c", "d"], "4 thoughts for 3 regions"),
        (["a", "  ", "c"], "thought 2 is empty"),
        (["a" * 30, "b" * 30, "c"], "61 tokens, where 60 fit"),
    ],
)
def test_thoughts_that_cannot_be_drawn_from_are_told(value: Any, words: str):
    assert words in (checked(value) or "")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
@settings(max_examples=100, deadline=None)
def test_whatever_stands_in_the_column_is_three_texts_or_refused(value: Any):
    if checked(value) is None:
        assert len(thoughts_of({"thoughts": value})) == 3


def test_bad_thoughts_are_refused_with_their_line_and_left_out_if_so_wished(tmp_path: Path):
    path = tmp_path / "thought.jsonl"
    rows = [{"prompt": "a", "thoughts": ["1", "2", "3"]}, {"prompt": "b", "thoughts": ["1"]}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    check = thoughts_check(GIVEN, fake_facts(SMALL))

    with pytest.raises(InputError, match=r"thought.jsonl:2: 1 thoughts for 3 regions"):
        read_prompts([str(path)], check=check)
    kept = read_prompts([str(path)], check=check, skip_bad=True)
    assert [prompt.text for prompt in kept.prompts] == ["a"]
    assert [reject.line for reject in kept.rejects] == [2]


def test_a_method_whose_thoughts_are_its_own_is_what_it_was():
    assert fingerprint(fake_method(thoughts="own")) == fingerprint(fake_method())
    assert fingerprint(fake_method(thoughts="given")) != fingerprint(fake_method())
    assert thoughts_check(fake_method(), fake_facts(SMALL)) is None


@pytest.mark.parametrize(
    "changes",
    [{"program": Program.PLAIN}, {"program": Program.THINK_AFTER}, {"backends": {"think": "fake"}}],
)
def test_given_thoughts_that_nothing_is_drawn_from_are_refused(changes: dict[str, Any]):
    with pytest.raises(ValidationError, match="thoughts are given"):
        fake_method(thoughts="given", **changes)
