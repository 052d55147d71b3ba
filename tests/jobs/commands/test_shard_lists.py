"""Shards as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.commands.shard_lists import as_shards, parse_shards
from schemas.errors import InputError


@pytest.mark.parametrize(
    ("shards", "text"),
    [([3], "3"), ([3, 7, 8, 9], "3,7-9"), ([1, 2, 4, 5], "1-2,4-5"), ([0, 10], "0,10")],
)
def test_shards_are_written_as_they_are_typed(shards: list[int], text: str):
    assert as_shards(shards) == text
    assert parse_shards(text, 11) == tuple(shards)


@given(st.sets(st.integers(0, 40), min_size=1))
def test_what_is_written_is_read_back(shards: set[int]):
    assert parse_shards(as_shards(shards), 41) == tuple(sorted(shards))


def test_shards_may_be_named_twice_and_in_any_order():
    assert parse_shards("5, 1-3,2", 6) == (1, 2, 3, 5)


@pytest.mark.parametrize("text", ["", "a", "1,", "-1", "1-", "3-1", "1:2", "\u00b2"])
def test_a_text_that_names_no_shards_is_refused(text: str):
    with pytest.raises(InputError):
        parse_shards(text, 10)


@pytest.mark.parametrize("text", ["3", "0-3", "0-999999999999", "9" * 5000, "1-" + "9" * 5000])
def test_more_shards_than_there_are_is_said_before_they_are_counted(text: str):
    with pytest.raises(InputError, match=r"the run has shards 0 to 2$") as refused:
        parse_shards(text, 3)

    assert len(str(refused.value)) < 100


def test_zeros_before_a_number_are_none():
    assert parse_shards("0" * 5000 + "2", 3) == (2,)
