"""Reading critiques, with our verdict beside the one that the published script would give."""

import re
from typing import NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.twig.reflections import read_reflection
from schemas.trace import Verdict

ACCEPT, REVISE, UNPARSEABLE = Verdict.ACCEPT, Verdict.REVISE, Verdict.UNPARSEABLE
THETA = 80
BETTER = "\nIMPROVED_DESCRIPTION: a red boat"


def published_verdict(answer: str, theta: int) -> Verdict:
    """What the script that came with the paper makes of an answer."""
    found = re.search(r"SCORE:\s*(\d+)", answer)
    better = re.search(r"IMPROVED_DESCRIPTION:\s*(.+)", answer, re.DOTALL)
    is_usable = found is not None and better is not None and better[1].strip()
    score = int(found[1]) if is_usable else 100
    return Verdict.ACCEPT if score >= theta else Verdict.REVISE


class Case(NamedTuple):
    what: str
    answer: str
    ours: Verdict
    score: float | None
    published: Verdict


CASES = [
    # Where both agree.
    Case("a good score", "SCORE: 85" + BETTER, ACCEPT, 85, ACCEPT),
    Case("a good score alone", "SCORE: 85", ACCEPT, 85, ACCEPT),
    Case("a score of theta", "SCORE: 80" + BETTER, ACCEPT, 80, ACCEPT),
    Case("the highest score", "SCORE: 100" + BETTER, ACCEPT, 100, ACCEPT),
    Case("a poor score", "SCORE: 79" + BETTER, REVISE, 79, REVISE),
    Case("the lowest score", "SCORE: 0" + BETTER, REVISE, 0, REVISE),
    Case("one line", "SCORE: 40 IMPROVED_DESCRIPTION: a red boat", REVISE, 40, REVISE),
    Case("several lines", "SCORE: 40\nIMPROVED_DESCRIPTION:\n\na red\nboat\n", REVISE, 40, REVISE),
    Case("words around", f"Well.\nSCORE: 40, I think.{BETTER}", REVISE, 40, REVISE),
    Case("a score after", "IMPROVED_DESCRIPTION: a red boat\nSCORE: 40", REVISE, 40, REVISE),
    Case("the same score twice", f"SCORE: 85\nSCORE: 85{BETTER}", ACCEPT, 85, ACCEPT),
    Case("a full stop, good", f"SCORE: 85.{BETTER}", ACCEPT, 85, ACCEPT),
    Case("a full stop, poor", f"SCORE: 40.{BETTER}", REVISE, 40, REVISE),
    Case("out of 100, good", f"SCORE: 85/100{BETTER}", ACCEPT, 85, ACCEPT),
    Case("out of 100, poor", f"SCORE: 40 / 100{BETTER}", REVISE, 40, REVISE),
    Case("per cent, good", f"SCORE: 85%{BETTER}", ACCEPT, 85, ACCEPT),
    Case("per cent, poor", f"SCORE: 40 %{BETTER}", REVISE, 40, REVISE),
    Case("Arabic digits, good", f"SCORE: \u0668\u0665{BETTER}", ACCEPT, 85, ACCEPT),
    Case("Arabic digits, poor", f"SCORE: \u0664\u0660{BETTER}", REVISE, 40, REVISE),
    # Where the script passes a region that was never judged, or was judged poor.
    Case("nothing", "", UNPARSEABLE, None, ACCEPT),
    Case("words only", "It looks lovely.", UNPARSEABLE, None, ACCEPT),
    Case("a score in words", f"SCORE: ninety{BETTER}", UNPARSEABLE, None, ACCEPT),
    Case("no score", BETTER, UNPARSEABLE, None, ACCEPT),
    Case("no number", f"SCORE:{BETTER}", UNPARSEABLE, None, ACCEPT),
    Case("nothing better", "SCORE: 40", UNPARSEABLE, 40, ACCEPT),
    Case("an empty better", "SCORE: 40\nIMPROVED_DESCRIPTION: \n", UNPARSEABLE, 40, ACCEPT),
    Case("a range as asked for", f"SCORE: [0-100]{BETTER}", UNPARSEABLE, None, ACCEPT),
    Case("the form as asked for", f"SCORE: <0 to 100>{BETTER}", UNPARSEABLE, None, ACCEPT),
    Case("below 0", f"SCORE: -5{BETTER}", UNPARSEABLE, -5, ACCEPT),
    # Where the script believes a number that is not a score out of 100.
    Case("above 100", f"SCORE: 250{BETTER}", UNPARSEABLE, 250, ACCEPT),
    Case("just above 100", f"SCORE: 101{BETTER}", UNPARSEABLE, 101, ACCEPT),
    Case("a fraction", f"SCORE: 85.5{BETTER}", UNPARSEABLE, 85.5, ACCEPT),
    Case("a fraction with a comma", f"SCORE: 85,5{BETTER}", UNPARSEABLE, 85.5, ACCEPT),
    Case("a range", f"SCORE: 80-90{BETTER}", UNPARSEABLE, None, ACCEPT),
    Case("a range with a dash", f"SCORE: 80 \u2013 90{BETTER}", UNPARSEABLE, None, ACCEPT),
    Case("good, then poor", f"SCORE: 85\nSCORE: 40{BETTER}", UNPARSEABLE, 85, ACCEPT),
    Case("poor, then good", f"SCORE: 40\nSCORE: 85{BETTER}", UNPARSEABLE, 40, REVISE),
    Case("out of 10", f"SCORE: 9/10{BETTER}", UNPARSEABLE, 9, REVISE),
    Case("an exponent", f"SCORE: 9e1{BETTER}", UNPARSEABLE, None, REVISE),
    # Where the script cannot see a poor score.
    Case("lower case", "score: 40\nimproved_description: a red boat", REVISE, 40, ACCEPT),
    Case("bold labels", "**SCORE:** 40\n**IMPROVED_DESCRIPTION:** a red boat", REVISE, 40, ACCEPT),
    Case("bold words", "**SCORE**: 40\n**IMPROVED_DESCRIPTION**: a red boat", REVISE, 40, ACCEPT),
    Case("a bold number", f"SCORE: **40**{BETTER}", REVISE, 40, ACCEPT),
    Case("brackets", f"SCORE: [40]{BETTER}", REVISE, 40, ACCEPT),
    Case("a spaced label", "SCORE: 40\nIMPROVED DESCRIPTION: a red boat", REVISE, 40, ACCEPT),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_a_critique_gets_our_verdict_where_the_published_script_gives_its_own(case: Case):
    reflection = read_reflection(case.answer, theta=THETA)

    assert (reflection.verdict, reflection.score) == (case.ours, case.score)
    assert published_verdict(case.answer, THETA) is case.published
    assert bool(reflection.problem) == (case.ours is UNPARSEABLE)
    if case.ours is REVISE:
        assert reflection.better_thought == "a red boat"


@pytest.mark.parametrize(
    ("answer", "better"),
    [
        ("SCORE: 40\nIMPROVED_DESCRIPTION:  a  red\n\tboat \n", "a red boat"),
        ("SCORE: 40\n**IMPROVED_DESCRIPTION:** *a red boat*", "a red boat"),
        ("IMPROVED_DESCRIPTION: a red boat\n**SCORE:** 40", "a red boat"),
        ("SCORE: 40\nIMPROVED_DESCRIPTION: a red boat\nIMPROVED_DESCRIPTION: no", "a red boat"),
        ("SCORE: 40\nIMPROVED_DESCRIPTION: 3 boats, 2 red: a fleet", "3 boats, 2 red: a fleet"),
    ],
)
def test_a_better_thought_is_one_plain_line_up_to_the_next_label(answer: str, better: str):
    assert read_reflection(answer, theta=THETA).better_thought == better


# What holds for any answer

LABELS = ["SCORE", "SCORE:", "score: ", "IMPROVED_DESCRIPTION:", "**SCORE:** ", "**", ":", "[", "_"]
JOINTS = [" ", "\n", "-", "+", ".", ",", "/", "%", "\u2013", "a red boat"]
NUMBERS = ["0", "7", "85", "100", "250", "/100", "/10", "9" * 400, "\u0668\u0665"]


def answers_of(pieces: list[str], letters: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Any text, and texts made of the pieces that critiques are made of."""
    likely = st.lists(st.sampled_from(pieces) | letters, max_size=12).map("".join)
    return st.text(letters) | likely


ANSWERS = answers_of(LABELS + JOINTS + NUMBERS, st.characters())
ANSWERS_WITHOUT_A_DIGIT = answers_of(LABELS + JOINTS, st.characters(exclude_categories=["Nd"]))
THETAS = st.integers(min_value=0, max_value=100)


@given(ANSWERS, THETAS)
def test_no_answer_is_accepted_or_revised_without_a_whole_score_on_that_side_of_theta(
    answer: str, theta: int
):
    reflection = read_reflection(answer, theta=theta)

    if reflection.verdict is not UNPARSEABLE:
        assert reflection.score in range(101)
        assert (reflection.score >= theta) == (reflection.verdict is ACCEPT)
    if reflection.verdict is REVISE:
        assert reflection.better_thought


@given(ANSWERS, THETAS)
def test_every_better_thought_is_a_single_line_without_stray_spaces(answer: str, theta: int):
    better = read_reflection(answer, theta=theta).better_thought

    assert better.splitlines() in ([], [better])
    assert better == " ".join(better.split())


@given(ANSWERS, THETAS)
def test_an_answer_has_a_problem_if_and_only_if_it_is_unparseable(answer: str, theta: int):
    reflection = read_reflection(answer, theta=theta)

    assert bool(reflection.problem) == (reflection.verdict is UNPARSEABLE)


@given(ANSWERS_WITHOUT_A_DIGIT, THETAS)
def test_an_answer_without_a_digit_is_unparseable(answer: str, theta: int):
    assert read_reflection(answer, theta=theta).verdict is UNPARSEABLE


@given(
    score=st.integers(min_value=0, max_value=100),
    better=st.text(
        st.characters(exclude_categories=["C", "Z"], include_characters=" "), min_size=1
    ),
    theta=THETAS,
)
def test_an_answer_in_the_asked_form_is_read_as_it_was_meant(score: int, better: str, theta: int):
    assume(better == " ".join(better.split()).strip("*_` "))
    assume(not re.search("score|improved", better, re.IGNORECASE))

    reflection = read_reflection(f"SCORE: {score}\nIMPROVED_DESCRIPTION: {better}", theta=theta)

    assert (reflection.score, reflection.better_thought) == (score, better)
    assert reflection.verdict is (ACCEPT if score >= theta else REVISE)
