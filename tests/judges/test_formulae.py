"""The formulae of judges against the worked cases, and against cases at their edges."""

import io
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scoring.formulae import (
    aggregates,
    answers,
    boxes,
    compbench,
    detection_rewards,
    geneval,
    phrases,
    relations,
)
from pipeline.scoring.formulae.aggregates import Aggregate
from pipeline.scoring.formulae.boxes import Detection
from tests.judges.__main__ import main
from tests.judges.cases import FORMULAE, differences, is_equal

CASES = Path(__file__).parent / "cases.jsonl"
LINES = CASES.read_text(encoding="utf-8").splitlines()

box = st.tuples(*[st.floats(-50, 150)] * 4)


def test_every_worked_case_is_equal():
    assert [told for line in LINES if (told := differences(line)) is not None] == []


def test_every_kind_and_mode_of_the_cases_has_its_formula():
    kinds = {(case["kind"], case["mode"]) for case in map(json.loads, LINES)}

    assert len(LINES) == 1390
    assert kinds <= FORMULAE.keys()


def test_the_command_tells_what_differs_and_how_many_are_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    case = json.loads(LINES[0])
    case["expected"][0]["scores"][0] += 1e-3
    broken = {**json.loads(LINES[1]), "input": {}}
    path = tmp_path / "cases.jsonl"
    path.write_text("\n".join([LINES[2], json.dumps(case), json.dumps(broken), ""]))
    monkeypatch.setattr(sys, "stdout", out := io.StringIO())

    assert main([str(path)]) == 1
    *told, last = out.getvalue().splitlines()
    assert last == "1 of 3 cases equal"
    assert [line.partition(" ")[0] for line in told] == [case["id"], broken["id"]]
    assert "KeyError" in told[1]


@pytest.mark.parametrize(
    ("given_value", "expected", "equal"),
    [
        (1.0, 1, True),
        (1 + 9e-7, 1, True),
        (1 + 2e-6, 1, False),
        (True, 1, False),
        (1, True, False),
        (None, 0, False),
        (0, None, False),
        (math.nan, "nan", True),
        (0.0, "nan", False),
        ("a", "a", True),
        ([1, 2], [1], False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        (math.nan, 1.0, False),
    ],
)
def test_equal_means_numbers_to_a_millionth_and_the_rest_exactly(given_value, expected, equal):
    assert is_equal(given_value, expected) is equal


@given(box, box, st.sampled_from(sorted(relations._DEGREES)))
def test_a_degree_is_from_0_to_1_and_nothing_is_left_of_itself(a, b, relation):
    depth = np.linspace(0, 1, 10_000).reshape(100, 100)
    held = relations.degree(relation, a, b, width=100, height=100, depth=depth)

    assert held is not None
    assert 0 <= held <= 1
    if relation not in ("near", "inside", "in"):
        assert relations.degree(relation, a, a, width=100, height=100, depth=depth) == 0


@given(box, box)
def test_what_is_left_of_another_has_the_other_right_of_it(a, b):
    left = relations.degree("left of", a, b, width=100, height=100)
    right = relations.degree("right of", b, a, width=100, height=100)

    assert left == pytest.approx(right)


def test_relations_that_cannot_be_told_are_not_told_of_boxes_that_are_not_there_either():
    nothing = (0.0, 0.0, 0.0, 9.0)

    assert relations.degree("holding", nothing, nothing, width=9, height=9) is None
    assert relations.degree("behind", nothing, nothing, width=9, height=9) is None
    assert relations.degree("near", nothing, (1, 1, 2, 2), width=9, height=9) == 0
    assert not relations.boxes_can_tell("behind")
    assert not relations.boxes_can_tell(None)
    assert relations.boxes_can_tell("on top of")


@pytest.mark.parametrize(
    ("label", "name", "is_same"),
    [
        ("dining table", "table", True),
        ("carriage", "car", False),
        (" Dog", "dog ", True),
        ("woman", "boy", True),
        ("tv", "Television", True),
        ("table", "dining table", False),
        ("", "", True),
        ("", "dog", False),
    ],
)
def test_labels_that_name_the_same_thing(label: str, name: str, is_same: bool):
    assert boxes.is_same_thing(label, name) is is_same


def test_a_detector_that_was_asked_for_a_table_has_seen_no_dining_table():
    task = detection_rewards.DetectionTask(
        task_type="spatial",
        nouns=["dining table", "table"],
        width=100,
        height=100,
        spatial=detection_rewards.SpatialInfo(
            subject="table", target="dining table", relation="left of"
        ),
    )
    left, right = (0.9, 0.2, 0.5, 0.2, 0.2), (0.9, 0.8, 0.5, 0.2, 0.2)

    assert detection_rewards.detection_reward(task, [[right], [left]]) == 1
    assert detection_rewards.detection_reward(task, [[left], [right]]) == 0.5


def test_published_suppression_divides_as_the_processor_does():
    """Corners that are none: an area of 0 with an overlap of 0, and areas below 0."""
    task = detection_rewards.DetectionTask(
        task_type="numeracy",
        nouns=["dog"],
        width=1,
        height=1,
        counts=[detection_rewards.CountInfo(name="dog", number=2)],
    )
    rows = [(0.9, 0.5, 0.5, 0.5, 0.5), (0.8, 0.5, 0.5, 0.5, 0.5)]

    assert detection_rewards.published_detection_reward(task, [rows]) == 1


def test_published_depth_crops_run_by_rows_of_x_and_end_at_an_iou_of_a_half():
    depth = np.zeros((10, 20))
    depth[0:4, :] = 1.0  # nearer in the first rows
    a, b, half = (0.0, 0.0, 4.0, 4.0), (2.0, 0.0, 6.0, 4.0), (1.0, 0.0, 6.0, 4.0)

    held = relations.published_depth_position("in front of", a, b, depth)
    assert held == pytest.approx(boxes.iou(a, b) / 0.5) == pytest.approx(2 / 3)
    assert boxes.iou(a, half) == 0.5
    assert relations.published_depth_position("in front of", a, half, depth) == 0
    assert relations.published_depth_position("behind", a, b, depth) == 0
    apart = (5.0, 5.0, 9.0, 9.0)
    assert relations.published_depth_position("in front of", a, apart, depth) == 0
    beyond = (12.0, 0.0, 18.0, 4.0)  # no rows there: an empty crop
    assert relations.published_depth_position("in front of", a, beyond, depth) == 0
    assert relations.published_depth_position("near", a, apart, depth) == 1


def test_published_depth_scores_find_names_within_labels_and_take_the_last_before_both():
    seen = [
        Detection(label="cattle", score=0.8, box=(0, 0, 1, 1)),
        Detection(label="cat", score=0.4, box=(0, 0, 1, 1)),
        Detection(label="dog", score=0.6, box=(5, 5, 6, 6)),
        Detection(label="cat", score=1.0, box=(0, 0, 1, 1)),
    ]
    task = compbench.RelationTask(subject="cat", target="dog", relation="behind")

    score = compbench.published_depth_score(task, seen, np.zeros((9, 9)))

    assert score == pytest.approx(0.25 * 0.4 + 0.25 * 0.6)


def test_a_thing_that_both_names_mean_stands_in_no_relation_to_itself():
    person = Detection(label="person", score=0.8, box=(0, 0, 10, 10))
    task = compbench.RelationTask(subject="man", target="woman", relation="near")

    alone = compbench.relation_score(task, [person], width=100, height=100)
    two = compbench.relation_score(task, [person, person], width=100, height=100)

    assert (alone, two) == (pytest.approx(0.2), pytest.approx(0.4))


def test_of_no_query_every_noun_has_no_scores_and_a_noun_without_tokens_cannot_be_told():
    nothing = np.array([], np.float64)
    nouns, words = ["dog", "red cup"], [[(1, 2)], [(0, 0), (3, 3)]]

    fixed = phrases.phrase_scores(nouns, words, nothing)
    published = phrases.published_phrase_scores(nouns, words, nothing)

    assert [noun.scores for noun in fixed] == [(), None]
    assert [(noun.label, noun.scores) for noun in published] == [("dog", ()), ("red cup", ())]


def test_aggregates_of_no_rows_and_of_rows_without_judges_are_empty():
    for method in Aggregate:
        assert aggregates.aggregate(method, [], groups=[], categories=[]) == []
        nobody = aggregates.aggregate(method, [[], []], groups=["g", "g"], categories=["c", "c"])
        assert nobody == [None, None]


def test_a_missing_reward_counts_neither_for_nor_against():
    rows = [[0.5, None], [0.5, 0.5], [None, None], [0.1, 0.5]]
    groups, categories = ["g"] * 4, [None] * 4

    told = {
        method: aggregates.aggregate(method, rows, groups=groups, categories=categories)
        for method in Aggregate
    }

    assert all(values[2] is None for values in told.values())
    assert told[Aggregate.MEAN][0] == told[Aggregate.MEAN][1] == 0.5
    assert told[Aggregate.MIN] == [0.5, 0.5, None, 0.1]
    quantiles = told[Aggregate.CATEGORY_QUANTILE_MEAN]
    assert quantiles[:2] == [pytest.approx(2 / 3), pytest.approx((2 / 3 + 0.5) / 2)]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_z_scores_have_no_mean_and_quantiles_have_a_half(values: list[float]):
    assert sum(aggregates.zscores(values)) == pytest.approx(0, abs=1e-6)
    assert np.mean(aggregates.quantiles(values)) == pytest.approx(0.5)


def test_geneval_deals_things_to_the_clauses_that_only_they_can_please():
    """The blue cup must not be taken for the cup of any colour."""
    cups = [
        geneval.SeenObject(name="cup", score=0.9, box=(0, 0, 10, 10), colour="blue"),
        geneval.SeenObject(name="cup", score=0.8, box=(50, 0, 60, 10), colour="red"),
    ]
    any_cup = geneval.Clause(name="cup", count=1, position=("right of", 1))
    blue_cup = geneval.Clause(name="cup", count=1, colour="blue")
    task = geneval.Task(tag="color_attr", include=[any_cup, blue_cup])

    assert geneval.evaluate(task, cups) == geneval.Finding(correct=True, reason=None)
    both_blue = geneval.Task(tag="color_attr", include=[blue_cup, blue_cup])
    assert geneval.evaluate(both_blue, cups).reason == "color"


def test_geneval_with_many_things_of_one_class_is_quick():
    things = [
        geneval.SeenObject(name="cup", score=0.95, box=(20 * n, 0, 20 * n + 10, 10))
        for n in range(40)
    ]
    clauses = [geneval.Clause(name="cup", count=20), geneval.Clause(name="cup", count=20)]

    assert geneval.evaluate(geneval.Task(tag="counting", include=clauses), things).correct


def test_answers_at_the_floor_count_and_no_mass_at_all_is_no_answer():
    assert answers.yes_share((0.05, 0.05)) == 0.5
    assert answers.yes_share((0.0, 0.0)) is None
    assert math.isnan(answers.published_yes_share((0.0, 0.0)))
    assert math.isnan(answers.published_chunk_product([(0.0, 0.0)]))
    assert answers.phrase_answers("color", [(0.0, 0.01)], []) is None
    assert answers.chunk_product([(0.5, 0.5), (0.0, 0.01)]) is None


def test_published_answers_need_the_lower_case_words():
    logits = np.zeros(2)

    assert answers.published_yes_no(["Yes", "no"], logits, temperature=0.3, sampled=0) == 0
    told = answers.published_yes_no(["Yes", "No"], logits, temperature=0.3, sampled=0)
    assert math.isnan(told)
