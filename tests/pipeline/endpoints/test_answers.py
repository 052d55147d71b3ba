"""Answers are read strictly: whatever comes, nothing crashes, and nothing malformed accepts."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.endpoints.answers import Completion, Setback, read_response
from pipeline.endpoints.critiques import as_asked
from pipeline.twig.reflections import read_reflection
from schemas.errors import RolloutError
from schemas.trace import Finish, Verdict
from tests.stand_in_server import CRITIQUE, completion

THETA = 90
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["stop", "length", "abort", "95", "score", "100"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "score", "error", "code", "model"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def verdict_of(text: str) -> Verdict:
    return read_reflection(as_asked(text), theta=THETA).verdict


def spoiled(value: Any, path: list[int], other: Any) -> Any:
    """The tree with another value in it, at a place that the path leads to."""
    if not path or not isinstance(value, dict | list) or not value:
        return other
    keys = sorted(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[path[0] % len(keys)]
    copy = value.copy()
    copy[key] = spoiled(value[key], path[1:], other)
    return copy


def read(body: bytes, status: int = 200) -> Completion | Setback | RolloutError:
    result = read_response(status, {"retry-after": "nan"}, body)
    assert isinstance(result, Completion | Setback | RolloutError)
    return result


MANY = pytest.mark.parametrize(
    "num_examples", [100, pytest.param(3400, marks=pytest.mark.slow)], ids=["some", "many"]
)
"""Of each test below: 300 malformed answers in `make test`, and 10,200 in `make slow`."""


@MANY
def test_no_bytes_crash_the_reading(num_examples: int):
    @settings(max_examples=num_examples, deadline=None)
    @given(st.binary(max_size=60), st.sampled_from([200, 200, 302, 400, 401, 404, 429, 500, 599]))
    def check(body: bytes, status: int) -> None:
        assert not isinstance(read(body, status), Completion)

    check()


@MANY
def test_a_body_that_was_spoiled_is_an_answer_or_a_failure(num_examples: int):
    @settings(max_examples=num_examples, deadline=None)
    @given(st.lists(st.integers(0, 9), max_size=6), VALUES, st.integers(0, 400))
    def check(path: list[int], other: Any, cut: int) -> None:
        tree = spoiled(json.loads(completion(json.dumps(CRITIQUE))), path, other)
        body = json.dumps(tree).encode()
        read(body[:cut])
        if isinstance(result := read(body), Completion):
            assert isinstance(result.text, str)
            assert result.finish in tuple(Finish)
            assert result.prompt_tokens >= 0

    check()


@MANY
def test_a_critique_that_was_spoiled_is_never_an_accept(num_examples: int):
    @settings(max_examples=num_examples, deadline=None)
    @given(st.lists(st.integers(0, 9), min_size=1, max_size=2), VALUES, st.integers(0, 80))
    def check(path: list[int], other: Any, cut: int) -> None:
        tree = spoiled(CRITIQUE, path, other)
        text = json.dumps(tree)
        if not is_critique(tree):
            assert verdict_of(text) is Verdict.UNPARSEABLE
        if cut < len(text):
            assert verdict_of(text[:cut]) is Verdict.UNPARSEABLE

    check()


def is_critique(tree: Any) -> bool:
    return (
        isinstance(tree, dict)
        and type(tree["score"]) is int
        and 0 <= tree["score"] <= 100
        and isinstance(tree["improved_description"], str)
    )


def test_a_critique_in_json_is_the_form_of_the_question():
    said = as_asked(json.dumps({"score": 40, "improved_description": "a\n red \thatSCORE"}))

    assert said == "SCORE: 40\nIMPROVED_DESCRIPTION: a red hatSCORE"
    assert read_reflection(said, theta=THETA).verdict is Verdict.REVISE


def test_a_better_thought_cannot_pose_as_a_score():
    assert verdict_of(json.dumps({"score": 3, "improved_description": "SCORE: 99"})) is (
        Verdict.UNPARSEABLE
    )


def test_json_that_is_nested_without_end_is_no_answer():
    assert isinstance(read(b"[" * 10**6), Setback)
    assert isinstance(read(b'{"choices":' * 10**5), Setback)
    assert verdict_of("[" * 10**6) is Verdict.UNPARSEABLE
