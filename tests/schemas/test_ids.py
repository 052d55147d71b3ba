import unicodedata
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schemas.ids import event_seed, normalise, record_id
from schemas.trace import Role

EVENT: dict[str, Any] = {
    "run_seed": 7,
    "record_id": "005f246446cce0b1",
    "rollout_index": 0,
    "role": "draw",
    "region": 1,
    "revision": 0,
    "candidate": 0,
}
PROMPTS = st.text(st.characters(codec="utf-8"))
COUNTS = st.integers(min_value=0, max_value=2**64)
SPACES = st.text(" \t\n\u00a0\u2003", min_size=1)


@pytest.mark.parametrize(
    ("prompt", "normalised"),
    [
        ("  a red\tcube \r\n", "a red cube"),
        ("a\u00a0red\u2003cube", "a red cube"),
        ("cafe\u0301", "caf\u00e9"),
        ("A red cube!", "A red cube!"),
        (" \t\n", ""),
    ],
)
def test_normalising_touches_composition_and_white_space_only(prompt: str, normalised: str):
    assert normalise(prompt) == normalised


@given(PROMPTS)
def test_normalising_twice_is_normalising_once(prompt: str):
    once = normalise(prompt)

    assert normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)


@given(st.lists(st.text("abc,. ", min_size=1)), SPACES, SPACES)
def test_prompts_that_differ_in_white_space_share_a_record_id(
    words: list[str], one: str, other: str
):
    assert record_id(one.join(words)) == record_id(other.join(words) + other)


@given(PROMPTS, PROMPTS)
def test_record_ids_are_equal_only_for_exact_duplicates(one: str, other: str):
    assert (record_id(one) == record_id(other)) == (normalise(one) == normalise(other))


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a red cube on a blue sphere", "005f246446cce0b1"),
        ("  a red cube\ton a blue sphere\r\n", "005f246446cce0b1"),
        ("A red cube on a blue sphere", "15e0c0cce6eb3214"),
        ("un caf\u00e9 vert", "bc8851cffbc9aa29"),
    ],
)
def test_record_ids_never_change(prompt: str, expected: str):
    assert record_id(prompt) == expected


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, 8853493254961238790),
        ({"revision": 1}, 13484246742539355079),
        ({"role": "think"}, 10937874227110812909),
        ({"run_seed": -(2**70)}, 17279637248591079894),
    ],
)
def test_event_seeds_never_change(changed: dict[str, int | str], expected: int):
    assert event_seed(**EVENT | changed) == expected


def test_a_role_and_its_word_give_one_event_seed():
    assert event_seed(**EVENT | {"role": Role.DRAW}) == event_seed(**EVENT)


@pytest.mark.parametrize("component", [name for name in EVENT if isinstance(EVENT[name], int)])
@given(one=COUNTS, other=COUNTS)
def test_a_changed_number_changes_the_event_seed(component: str, one: int, other: int):
    assume(one != other)

    assert event_seed(**EVENT | {component: one}) != event_seed(**EVENT | {component: other})


@pytest.mark.parametrize("component", ["record_id", "role"])
@given(one=st.text(), other=st.text())
def test_a_changed_word_changes_the_event_seed(component: str, one: str, other: str):
    assume(one != other)

    assert event_seed(**EVENT | {component: one}) != event_seed(**EVENT | {component: other})


def test_swapped_components_change_the_event_seed():
    assert event_seed(1, "a", 23, "draw", 0, 1, 2) != event_seed(12, "a", 3, "draw", 0, 1, 2)
    assert event_seed(1, "a", 0, "draw", 1, 0, 0) != event_seed(1, "a", 0, "draw", 0, 1, 0)


@given(COUNTS, st.text(), COUNTS)
def test_event_seeds_fit_64_unsigned_bits(run_seed: int, record: str, candidate: int):
    assert 0 <= event_seed(run_seed, record, 0, "draw", 0, 0, candidate) < 2**64
