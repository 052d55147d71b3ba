"""Anybody's text: all of it is seen, and nothing in it acts."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.view.text import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("a\u202eb\u2066c", "a\\u202eb\\u2066c"),
        ("\x1b[2J\x00\x85\u2028", "\\u001b[2J\\u0000\\u0085\\u2028"),
        ("two\nlines\tapart", "two\nlines apart"),
        ("\u0645\u0631\u062d\u0628\u0627", "\u0645\u0631\u062d\u0628\u0627"),  # right to left
        ("\U0001f468\u200d\U0001f373", "\U0001f468\u200d\U0001f373"),  # a cook, joined
        ("half \ud83d", "half \\ud83d"),
    ],
)
def test_it_is_shown(text: str, shown: str):
    assert visible(text) == shown


@given(st.text(st.characters()))
def test_nothing_hides_or_reorders(text: str):
    hidden = {unicodedata.category(char) for char in visible(text) if char not in "\n\u200c\u200d"}

    assert not hidden & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    visible(text).encode()


def test_a_long_text_is_cut():
    assert visible("x" * 500, 10) == "xxxxxx ..."
