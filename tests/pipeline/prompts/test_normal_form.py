"""What counts as one prompt: a table of near-leaks and innocents, and what every text obeys."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.prompts.leaks import EvaluationPrompt, LeakIndex, LeakLevel
from pipeline.prompts.normal_form import plain_text, prompt_key, same_meaning, same_words
from pipeline.prompts.wording import strip_wording

TABLE = Path(__file__).parents[2] / "data" / "near_leaks.txt"
INNOCENT = "-"


class Pair(NamedTuple):
    wanted: str  # a level, or INNOCENT
    prompt: str
    evaluation: str

    @property
    def level(self) -> LeakLevel | None:
        index = LeakIndex([EvaluationPrompt(text=self.evaluation, file="val.txt", line=1)])
        return min((leak.level for leak in index.leaks(self.prompt)), default=None)


def pairs() -> list[Pair]:
    lines = [line for line in TABLE.read_text("ascii").splitlines() if not line.startswith("#")]
    unescaped = [line.encode("ascii").decode("unicode_escape") for line in lines]
    return [Pair(*(part.strip(" ") for part in line.split(" | "))) for line in unescaped]


def test_near_leaks_are_found_at_their_level_and_innocent_pairs_at_none_that_is_dropped():
    listed = pairs()
    num_of = Counter(pair.wanted for pair in listed)
    amiss = [
        pair
        for pair in listed
        if (pair.level in (LeakLevel.L0, LeakLevel.L1))
        if pair.wanted == INNOCENT or pair.level is not LeakLevel[pair.wanted]
    ]

    assert num_of[INNOCENT] >= 400
    assert num_of.total() - num_of[INNOCENT] >= 120
    assert amiss == []
    assert all(pair.level is LeakLevel[pair.wanted] for pair in listed if pair.wanted != INNOCENT)


@pytest.mark.parametrize(
    ("prompt", "other"),
    [
        ("a red car", "A red car."),
        ("a red car", "the red cars, 4k"),
        ("a br\u00adass bell", "a brass bell"),
        ("\U0001d41a \U0001d41b\U0001d42b\U0001d41a\U0001d42c\U0001d42c bell", "a brass bell"),
        ("a \u0441at on a mat", "a cat on a mat"),
        ("generate a photo of a painting of a red cat", "a red cat"),
        ("a crisp, moody photo of a red cat", "a red cat"),
        ("a red cat as an oil painting", "a red cat"),
    ],
)
def test_one_prompt_in_two_forms_has_one_key(prompt: str, other: str):
    assert prompt_key(prompt) == prompt_key(other)


@pytest.mark.parametrize(
    ("prompt", "other"),
    [
        ("a framed photo of a dog", "a dog"),
        ("a man painting a picture of a dog", "a dog"),
        ("a blues singer", "a blue singer"),
        ("\u043a\u043e\u0442", "kot"),
        ("\u0440\u043e\u0441 on a wall", "poc"),
        ("ein B\u00e4r und ein Hund", "ein Bar und ein Hund"),
        ("...", "!!!"),
    ],
)
def test_other_prompts_have_other_keys(prompt: str, other: str):
    assert prompt_key(prompt) != prompt_key(other)


@given(st.text(max_size=60))
@example("\U0001da00:0")  # an accent of no letter is a word
def test_any_text_has_a_key_that_case_and_outer_space_do_not_change(text: str):
    assert prompt_key(f"  {text} ") == prompt_key(text)
    assert plain_text(plain_text(text)) == plain_text(text)
    assert strip_wording(strip_wording(text)) == strip_wording(text)
    assert len(same_meaning(text)) <= 2 * len(text)
    assert all(word == word.casefold() for word in same_words(text) if word.isascii())


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece",
    [
        *(", 4k", ",", " ", "a photo of ", "very ", "(", "in the style of "),
        *("&amp;", "&", "<b ", "<b>&#38;amp;", "\u200b", "a\u200b", "\U0001f1e6\U0001f1e7"),
    ],
)
def test_long_hostile_prompts_take_no_time(piece: str):
    assert prompt_key("a cat" + piece * 20_000) is not None
    assert prompt_key("a cat" + piece * 300) is not None
