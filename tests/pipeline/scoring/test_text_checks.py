"""Checks of thoughts and critiques: what they pass, and what they have nothing to say of."""

from typing import Any

import pytest

from pipeline.prompts.language import is_english
from pipeline.scoring.scorers import Score, ScoringInput
from pipeline.scoring.text_checks import CritiqueChecks, ThoughtChecks, anchors_in, is_one_sentence


def event(index: int, role: str, text: str = "", **more: Any) -> dict[str, Any]:
    row = {"index": index, "role": role, "region": 0, "revision": 0, "text": text}
    blank = {"score": None, "verdict": None, "better_thought": None, "superseded_by": None}
    return row | blank | more


def thought(text: str, *earlier: str, prompt: str = "a red cube") -> Score:
    events = [event(index, "think", said) for index, said in enumerate([*earlier, text])]
    (score,) = ThoughtChecks().score([ScoringInput(prompt=prompt, event=events[-1], events=events)])
    return score


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("A red cube stands on grass.", 1.0),
        ("A red cube. It stands on grass.", 0.0),
        ("The top shows a red cube", 0.0),
        ("A red cube on top of a table", 1.0),
        ("", 0.0),
    ],
)
def test_a_thought_is_one_sentence_without_places_on_the_page(text: str, passes: float):
    assert thought(text).value == passes


def test_a_thought_that_says_an_earlier_one_again_is_not_novel():
    assert thought("a blue sky").parts["novelty"] is None
    assert thought("a blue sky", "Green grass.", "A blue sky.").parts["novelty"] == 0
    assert thought("a red cube", "green grass").parts["novelty"] == 1


@pytest.mark.parametrize("prompt", ["ein roter Würfel", "ein roter Wagen", "赤い立方体"])
def test_nothing_is_said_of_a_prompt_in_another_language(prompt: str):
    assert thought("A red cube.", prompt=prompt) == Score(value=None)


def test_the_nouns_of_a_prompt_are_covered_by_all_thoughts_together():
    events = [
        event(0, "draw", "two cats"),
        event(1, "draw", "two cats on a wooden fence", superseded_by=2),
        event(2, "draw", "two cats on a bench"),
    ]
    sample = ScoringInput(prompt="a cat on a wooden bench", events=events)
    named = ScoringInput(prompt="?", metadata={"nouns": ["bench", "park tree"]}, events=events)

    scores = ThoughtChecks().score([sample, named])

    assert [score.parts["nouns_covered"] for score in scores] == [pytest.approx(2 / 3), 0.5]


def critique(verdict: str, score: float | None, better: str) -> Score:
    said = event(2, "reflect", verdict=verdict, score=score, better_thought=better)
    events = [event(0, "think", "a red cube"), event(1, "draw"), said]
    (checked,) = CritiqueChecks().score([ScoringInput(prompt="a cube", event=said, events=events)])
    return checked


def test_a_critique_that_cannot_be_used_scores_0_and_has_no_parts_to_judge():
    checked = critique("unparseable", None, "")

    assert checked == Score(value=0.0)


def test_a_revision_that_repeats_the_thought_is_found():
    same, other = critique("revise", 40, "A red cube."), critique("revise", 41, "a big red cube")

    assert (same.parts["revision_differs"], other.parts["revision_differs"]) == (0, 1)
    assert (same.parts["multiple_of_five"], other.parts["multiple_of_five"]) == (1, 0)
    assert "revision_differs" not in critique("accept", 97, "").parts


def test_words_of_place_are_innocent_in_some_company():
    assert anchors_in("in the middle of a field, part of a wall") == set()
    assert anchors_in("the upper part is blue") == {"upper", "part"}
    assert is_one_sentence("It costs 3.5 coins.")


@pytest.mark.parametrize(
    "text",
    [
        "a van on a wet road",
        "a street in Los Angeles at night",
        "a portrait of Vincent van Gogh",
        "a pi\u00f1ata in a caf\u00e9",
        "a red cat \U0001f408",
        "a sous chef and the chef de cuisine",
        "El Capitan above a forest",
        "San Francisco",
        "Mona Lisa",
        "Tokyo",
        "Taj Mahal",
        "Rio de Janeiro",
        "filet mignon",
        "nachos con queso",
        "Cre\u0300me bru\u0302le\u0301e",
        "a pas de deux on a stage",
        "a plate of arroz con pollo",
        "a band that plays la vie en rose",
        "a man in front of la casa del sol",
    ],
)
def test_words_and_names_that_other_languages_have_too_are_english(text: str):
    assert is_english(text)


@pytest.mark.parametrize(
    "text",
    [
        "een rode auto op de weg",
        "eine rote Katze auf einem Tisch",
        "Rote Katze",
        "El Gato",
        "perro rojo",
        "un tavolo di legno",
        "a casa con il cane in giardino",
        "een man in de bar met een hond",
        "un chat rouge sur une table",
        "un gato rojo en la mesa",
        "\u043a\u043e\u0442",
        "a \u732b on a table",
        "punainen auto ajaa hitaasti",
    ],
)
def test_other_languages_are_not(text: str):
    assert not is_english(text)


@pytest.mark.parametrize(
    "text",
    [
        "a man in a top hat",
        "a rubber band on a desk",
        "a slice of layer cake",
        "a middle-aged woman in a tank top",
        "a marching band with canvas bags",
        "half a lemon under a half moon",
        "mountain tops in snow",
    ],
)
def test_names_of_things_are_no_places_on_the_page(text: str):
    assert anchors_in(text) == set()


@pytest.mark.parametrize("text", ["the top is blue", "the lower half is green", "a band of blue"])
def test_places_on_the_page_still_are(text: str):
    assert anchors_in(text)
