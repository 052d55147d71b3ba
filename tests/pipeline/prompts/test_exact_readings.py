"""Prompts that are easily misread: all that is told of them is true, and nothing else is told."""

from collections import Counter

import pytest

from pipeline.prompts.parser import Unread, parse
from tests.parser import EXACT, KINDS, Labelled, found_in, labelled


@pytest.mark.parametrize("case", labelled(EXACT), ids=lambda case: case.prompt)
def test_nothing_is_told_but_what_the_words_say(case: Labelled):
    for kind in KINDS:
        assert Counter(found_in(case.prompt, kind)) == Counter(case.facts[kind]), kind


def test_what_may_be_read_in_more_than_one_way_has_no_spec_and_a_reason():
    assert parse("three nurses mask patients").unread is Unread.DOUBT
