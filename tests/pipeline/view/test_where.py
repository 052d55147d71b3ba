"""The language that chooses traces: what it means, and that nothing else is ever read or run."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.view.where import (
    Choice,
    Facts,
    Kind,
    SortKey,
    in_order,
    parse_sort,
    parse_where,
)
from schemas.errors import InputError

COLUMNS: Mapping[str, Kind] = {
    "score": "number",
    "toy.value": "number",
    "revised": "flag",
    "dead": "flag",
    "status": "text",
    "prompt": "text",
}
FACTS: Facts = {
    "score": 40.0,
    "toy.value": None,
    "revised": True,
    "dead": False,
    "status": "ok",
    "prompt": 'a "Red" cube, 3 of them',
    "metadata.level": 3,
    "metadata.name": "it's",
}


def holds(text: str, facts: Facts = FACTS) -> bool:
    return parse_where(text, COLUMNS).holds(facts)


@pytest.mark.parametrize(
    "text",
    [
        "score < 60 and revised",
        "score<60 AND revised = yes",
        "score >= 40 and score <= 4e1 and score == 40 and score != 41",
        "status = ok and status != dead",
        "status in (dead, ok)",
        "score in (39, 40)",
        "not status in (dead)",
        "not dead and not not revised",
        "dead or (revised and not (score > 50))",
        "dead or revised and score = 40",  # and binds closer
        "prompt contains red",
        """prompt contains '"red"' and prompt contains \"""red""\"""",
        "'prompt' contains ', 3'",
        "toy.value is null and score is not null",
        "metadata.level = 3 and metadata.level > 2.5 and metadata.none is null",
        "metadata.name = 'it''s'",
    ],
)
def test_it_holds(text: str):
    assert holds(text)


@pytest.mark.parametrize(
    "text",
    [
        "toy.value < 1",
        "not toy.value < 1",
        "toy.value = 1 or dead",
        "toy.value != 1",
        "metadata.x=1",
    ],
)
def test_what_is_not_there_is_neither_above_nor_below_nor_the_opposite(text: str):
    assert not holds(text)


def test_what_is_unknown_does_not_undo_what_is_known():
    assert holds("toy.value < 1 or revised")
    assert holds("not (toy.value < 1 and dead)")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scor < 60", "did you mean score?"),
        ("nothing = 1", "There are: score, toy.value, revised, dead, status, prompt;"),
        ("score < many", "score holds numbers; found 'many'"),
        ("score < nan", "score holds numbers"),
        ("revised = 3", "revised is yes or no"),
        ("status < 3", "compares no numbers"),
        ("score", "such as score < 1 was expected"),
        ("score <", "ends where a value was expected"),
        ("(revised", "ends where ) was expected"),
        ("revised)", "has ')' after 'revised'"),
        ("revised dead", "has 'dead' after 'revised'"),
        ("and revised", "after 'the start', where a column was expected"),
        ("status = 'ok", "is a quote not closed?"),
        ("status = and", "where a value was expected"),
        ("status in ok", "where ( was expected"),
        ("score is 3", "where null was expected"),
        ("", "ends where a column was expected"),
        ("metadata. = 3", "no column 'metadata.'"),
        ("(" * 60 + "revised" + ")" * 60, "brackets within each other"),
        ("not " * 60 + "revised", "brackets within each other"),
        ("x" * 20_000, "20,000 characters"),
    ],
)
def test_a_mistake_is_told(text: str, said: str):
    with pytest.raises(InputError) as mistake:
        parse_where(text, COLUMNS)

    assert said in str(mistake.value)


@given(st.text(max_size=60) | st.text(alphabet="()'\"<>=!, andortscein\\{}[].%$_;#@1", max_size=40))
def test_any_text_is_read_or_refused_and_nothing_else(text: str):
    try:
        where = parse_where(text, COLUMNS)
    except InputError:
        return
    assert where.holds(FACTS) in (True, False)


# Trees of conditions, spelt out, against what logic with three values says of them


@st.composite
def conditions(draw: st.DrawFn, depth: int = 3) -> tuple[str, Any]:
    """A condition as text, and as a function of facts to True, False or None."""
    kind = draw(st.sampled_from(["test"] if depth == 0 else ["test", "not", "and", "or"]))
    if kind == "not":
        text, test = draw(conditions(depth - 1))
        return f"not ({text})", lambda facts: None if test(facts) is None else not test(facts)
    if kind in ("and", "or"):
        parts = draw(st.lists(conditions(depth - 1), min_size=2, max_size=3))
        text = f" {kind} ".join(f"({part})" for part, _ in parts)
        decisive = kind == "or"

        def joined(facts: Facts) -> bool | None:
            answers = [test(facts) for _, test in parts]
            return decisive if decisive in answers else None if None in answers else not decisive

        return text, joined
    name = draw(st.sampled_from(["score", "toy.value"]))
    sign = draw(st.sampled_from(["<", "<=", ">", ">=", "=", "!="]))
    bound = draw(st.integers(-2, 2))
    compare = {
        "<": lambda value: value < bound,
        "<=": lambda value: value <= bound,
        ">": lambda value: value > bound,
        ">=": lambda value: value >= bound,
        "=": lambda value: value == bound,
        "!=": lambda value: value != bound,
    }[sign]
    return (
        f"{name} {sign} {bound}",
        lambda facts: None if facts[name] is None else compare(facts[name]),
    )


NUMBERS = st.none() | st.integers(-3, 3)


@given(conditions(), NUMBERS, NUMBERS)
def test_a_condition_means_what_logic_says(
    condition: tuple[str, Any], score: int | None, value: int | None
):
    text, expected = condition
    facts: Facts = {"score": score, "toy.value": value}

    assert holds(text, facts) is (expected(facts) is True)


@given(st.text())
def test_any_text_can_be_asked_for_in_quotes(prompt: str):
    quoted = prompt.replace('"', '""')
    if len(quoted) < 9_000:
        assert holds(f'prompt = "{quoted}"', {"prompt": prompt})


def test_it_says_which_columns_it_asks_for():
    assert parse_where("score < 1 or revised", COLUMNS).columns == {"score", "revised"}


# Orders


@given(st.lists(st.tuples(NUMBERS, NUMBERS)))
def test_an_order_is_by_its_columns_with_what_is_not_there_last(pairs: list[tuple[Any, Any]]):
    rows = [{"score": score, "toy.value": value} for score, value in pairs]

    ordered = in_order(rows, parse_sort("-score, toy.value", COLUMNS), lambda row: row)

    keys = [
        (
            row["score"] is None,
            -(row["score"] or 0),
            row["toy.value"] is None,
            row["toy.value"] or 0,
        )
        for row in ordered
    ]
    assert keys == sorted(keys)
    assert sorted(map(str, ordered)) == sorted(map(str, rows))


def test_an_order_is_read_or_refused():
    assert parse_sort("-score", COLUMNS) == (SortKey(column="score", is_descending=True),)
    with pytest.raises(InputError, match="did you mean score"):
        parse_sort("skore", COLUMNS)
    with pytest.raises(InputError, match="at least one column"):
        parse_sort(" , ", COLUMNS)


def test_a_choice_is_all_that_was_asked_for_and_brackets_do_not_mix():
    where, order = Choice(where="dead or revised", is_revised=True, sort="score").read(COLUMNS)

    assert where.holds({"dead": False, "revised": True})
    assert not where.holds({"dead": True, "revised": False})
    assert order == (SortKey(column="score"),)
    with pytest.raises(InputError):
        Choice(where="dead) or (revised", is_dead=True).read(COLUMNS)
