import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.prompts.leaks import EvaluationPrompt, LeakIndex, LeakLevel, parse_levels
from pipeline.prompts.leaks import LeakLevel as L
from schemas.errors import InputError

words = st.lists(
    st.sampled_from(["red", "cat", "dogs", "on", "the", "a", "table", "猫", "кот"]), min_size=1
)


def index(*prompts: str) -> LeakIndex:
    return LeakIndex(
        EvaluationPrompt(text=text, file="val.txt", line=line)
        for line, text in enumerate(prompts, start=1)
    )


def level(prompt: str, evaluation: str) -> LeakLevel | None:
    return next((leak.level for leak in index(evaluation).leaks(prompt)), None)


@pytest.mark.parametrize(
    ("prompt", "evaluation", "expected"),
    [
        ("a red cat", "a red cat", L.L0),
        ("A red  cat.", "a red cat", L.L0),
        ("a boy's hat", "a boys hat", L.L0),
        ("a post-it note", "a post it note", L.L0),
        ("a photo of a red cat", "the red cats", L.L1),
        ("A photograph of two women", "two women", L.L1),
        ("a mouse on the right of a suitcase", "a suitcase on the right of a mouse", L.L2),
        ("a mouse on the left of a suitcase", "a suitcase on the right of a mouse", L.L3),
        ("a cat behind a dog", "a dog in front of a cat", L.L3),
        ("a cat beside a dog", "a dog next to a cat", L.L3),
        ("a cat hidden by a dog", "a dog hidden by the cat", L.L2),
        ("a red cat", "a blue cat", None),
        ("a cat left of a dog", "a cat right of a dog", None),
        ("two cats", "three cats", None),
        ("a man is holding a book", "a man is reading a book", None),
        ("一只红色的猫", "一只红色的猫。", L.L0),
        ("eine rote Katze", "eine rote katze", L.L0),
        ("一只红色的猫", "一只蓝色的狗", None),
        ("...", "!!!", None),
    ],
)
def test_a_leak_has_the_lowest_level_that_fits(
    prompt: str, evaluation: str, expected: LeakLevel | None
):
    assert level(prompt, evaluation) is expected


def test_every_evaluation_prompt_is_a_hit_of_its_own():
    leaks = index("a dog", "two birds", "A dog!", "the dogs").leaks("a dog")

    assert [(leak.level, leak.evaluation.line) for leak in leaks] == [(0, 1), (0, 3), (1, 4)]


@given(words, st.randoms(use_true_random=False))
def test_levels_hold_each_other(sentence: list[str], rng: random.Random):
    prompt = " ".join(sentence)
    shuffled = rng.sample(sentence, len(sentence))

    assert level(prompt, prompt.upper() + "!") is L.L0
    without = [word for word in sentence if word not in ("a", "the")]
    if without:
        assert level("a photo of " + prompt, " ".join(without)) in (L.L0, L.L1)
        assert level(prompt, " ".join(shuffled)) in (L.L0, L.L1, L.L2)


@pytest.mark.parametrize(
    ("text", "levels"),
    [("L2,L3", {L.L2, L.L3}), ("l0", {L.L0}), ("none", set()), (" L1 , L2 ", {L.L1, L.L2})],
)
def test_levels_are_named(text: str, levels: set[LeakLevel]):
    assert parse_levels(text) == levels


@pytest.mark.parametrize("text", ["", "L4", "2", "L1;L2", "all"])
def test_other_names_of_levels_are_refused(text: str):
    with pytest.raises(InputError, match="L0, L1, L2 and L3"):
        parse_levels(text)
