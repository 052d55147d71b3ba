"""What is said against a row by itself: the first reason counts, and what has no score says so."""

import math
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.prompts.leaks import EvaluationPrompt, EvaluationSet, LeakIndex
from pipeline.select.columns import WHOLE
from pipeline.select.judging import judge
from pipeline.select.shard_candidates import (
    Criteria,
    aggregated,
    reasons_of,
    region_task,
    task_name,
)
from tests.pipeline.select.support import columns_of, event, judged, recipe_of, sidecar
from tests.pipeline.select.test_columns import REVISED

SCORED = 'scorers = ["toy@1", "tokens@1"]\n'


def test_rows_of_sft_are_thoughts_critiques_and_the_drawings_that_stand():
    assert judged(recipe_of(""), columns_of(REVISED)) == {
        (0, index): "" for index in (0, 2, 3, 4, 5, 6, 7)
    }
    assert judged(recipe_of('tasks = ["think_2", "draw"]'), columns_of(REVISED)).keys() == {
        *((0, 3), (0, 5), (0, 6))
    }


def test_a_schedule_is_no_row():
    columns = columns_of((event("schedule"), event("think"), event("draw")))

    assert judged(recipe_of(""), columns).keys() == {(0, 1), (0, 2)}


@pytest.mark.parametrize(
    ("sources", "keys"),
    [
        ('"revision", "group"', {(0, WHOLE), (1, WHOLE), (1, 1)}),
        ('"revision"', {(1, 1)}),
        ('"group"', {(0, WHOLE), (1, WHOLE)}),
    ],
)
def test_rows_of_preferences_are_whole_traces_and_drawings_that_were_replaced(
    sources: str, keys: set[tuple[int, int]]
):
    recipe = recipe_of(
        f'kind = "preference"\n{SCORED}[pairs]\nby = "toy.value"\nsources = [{sources}]'
    )
    columns = columns_of((event("draw"),), REVISED)
    scores = {"toy": sidecar({(1, 1): 0.25, (1, 3): 1.0})}

    assert judged(recipe, columns, scores) == dict.fromkeys(keys, "")


def test_what_cannot_be_read_and_what_was_cut_off_comes_before_any_filter():
    columns = columns_of(
        (
            event("think", finish="length"),
            event("draw"),
            event("reflect", verdict="unparseable", finish="length"),
            event("think", 1, finish="stop"),
        )
    )
    recipe = recipe_of('filters = [{ column = "trace.num_events", max = 0, reason = "long" }]')

    assert judged(recipe, columns) == {
        (0, 0): "truncated",
        (0, 1): "long",
        (0, 2): "unparseable",
        (0, 3): "long",
    }


def test_a_thought_that_came_with_the_prompt_is_learned_by_nobody():
    columns = columns_of(
        (
            event("think", backend="given"),
            event("draw", backend="engine"),
            event("think", 1, backend="engine"),
        )
    )
    assert judged(recipe_of(""), columns) == {(0, 0): "given", (0, 1): "", (0, 2): ""}


def test_leaks_come_before_filters_and_are_of_all_rows_of_a_trace():
    evaluation = EvaluationSet(
        levels=("L0", "L1"),
        index=LeakIndex([EvaluationPrompt(text="a red cube", file="e.txt", line=1)]),
    )
    trace = (event("think"), event("draw"))
    columns = columns_of(
        trace, trace, trace, prompts=["A red CUBE!", "a photo of red cubes", "a blue cube"]
    )
    recipe = recipe_of('filters = [{ column = "trace.num_events", max = 0, reason = "long" }]')

    reasons = judged(recipe, columns, evaluation=evaluation)

    assert [reasons[trace, 0] for trace in range(3)] == ["leak_L0", "leak_L1", "long"]
    assert all(reasons[trace, 0] == reasons[trace, 1] for trace in range(3))


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("min = 0.5", [1, 2]),
        ("max = 0.5", [0, 1]),
        ("min = 0.5, max = 0.5", [1]),
        ('min = 0.5, null = "keep"', [1, 2, 3]),
        ("min = 0", [0, 1, 2]),
    ],
)
def test_bounds_are_inclusive_and_what_has_no_score_passes_only_if_said(rule: str, kept: list[int]):
    columns = columns_of(*[(event("draw"),)] * 4)
    scores = {"toy": sidecar({(0, WHOLE): 0.25, (1, WHOLE): 0.5, (2, WHOLE): 1.0})}
    recipe = recipe_of(f'{SCORED}filters = [{{ column = "toy.value", {rule} }}]')

    reasons = judged(recipe, columns, scores)

    assert [trace for (trace, _), reason in reasons.items() if not reason] == kept
    assert reasons[3, 0] in ("", "not_scored")
    assert {reason for (trace, _), reason in reasons.items() if trace < 3} <= {"", "toy.value"}


def test_a_score_is_asked_of_the_trace_the_event_or_the_drawing():
    columns = columns_of(REVISED)
    scores = {"toy": sidecar({(0, WHOLE): 0.0, (0, 0): 1.0, (0, 1): 0.5, (0, 3): 1.0, (0, 6): 0.5})}

    def kept(whose: str) -> set[int]:
        rule = f'filters = [{{ column = "toy.value", of = "{whose}", min = 1 }}]'
        reasons = judged(recipe_of(SCORED + rule), columns, scores)
        return {index for (_, index), reason in reasons.items() if not reason}

    assert kept("trace") == set()
    assert kept("event") == {0, 3}
    # The first thought stands in the drawing 3, which the second critique judged.
    assert kept("drawing") == {0, 3, 4}


def test_an_event_without_a_drawing_has_none_of_its_scores():
    columns = columns_of((event("think", 0), event("draw", 1)))
    rule = 'filters = [{ column = "toy.value", of = "drawing", min = 0 }]'

    reasons = judged(recipe_of(SCORED + rule), columns, {"toy": sidecar({(0, WHOLE): 1.0})})

    assert reasons == {(0, 0): "not_scored", (0, 1): "not_scored"}


def test_a_filter_of_some_tasks_leaves_the_others_alone():
    rule = 'filters = [{ column = "trace.num_events", max = 0, tasks = ["think", "draw_2"] }]'

    reasons = judged(recipe_of(rule), columns_of(REVISED))

    assert {index for (_, index), reason in reasons.items() if reason} == {0, 5, 6}


@pytest.mark.parametrize(
    ("rule", "dropped"),
    [
        ('column = "event.verdict", equals = "accept", null = "keep"', {2}),
        ('column = "event.verdict", equals = "accept"', {0, 2, 3, 5, 6}),
        ('column = "event.region", max = 0', {5, 6, 7}),
        ('column = "event.revision", min = 1', {0, 2, 5, 6, 7}),
        ('column = "event.num_revisions", max = 0', {0, 2, 3, 4}),
        ('column = "event.score", min = 50', {0, 2, 3, 4, 5, 6, 7}),
        ('column = "trace.num_events", max = 7', {0, 2, 3, 4, 5, 6, 7}),
        ('column = "trace.num_revisions", min = 1, max = 1', set()),
        ('column = "trace.num_unparseable", max = 0', set()),
        ('column = "trace.rollout_index", max = 0', set()),
        ('column = "trace.category", equals = "toy"', set()),
        ('column = "trace.category", equals = "other"', {0, 2, 3, 4, 5, 6, 7}),
    ],
)
def test_fields_of_events_and_traces_need_no_scorer(rule: str, dropped: set[int]):
    columns = columns_of(REVISED, metadata=['{"task_type": "toy", "category": 3}'])

    reasons = judged(recipe_of(f"filters = [{{ {rule} }}]"), columns)

    assert {index for (_, index), reason in reasons.items() if reason} == dropped


def test_the_first_filter_that_fails_is_the_reason():
    columns = columns_of((event("draw"),), (event("draw"),))
    scores = {
        "toy": sidecar({(0, WHOLE): 0.0, (1, WHOLE): 1.0}),
        "tokens": sidecar({(0, WHOLE): 0.0, (1, WHOLE): 0.0}),
    }
    rules = (
        'filters = [{ column = "toy.value", min = 1, reason = "wrong" }, '
        '{ column = "tokens.value", min = 1, reason = "flat" }]'
    )

    assert judged(recipe_of(SCORED + rules), columns, scores) == {(0, 0): "wrong", (1, 0): "flat"}


def test_a_critique_stays_where_the_score_of_the_drawing_that_it_judged_agrees():
    def trace(verdict: str) -> tuple[dict[str, object], ...]:
        return (event("draw"), event("reflect", verdict=verdict), event("draw", 1))

    traces = [trace(verdict) for verdict in ("accept", "accept", "revise", "revise", "accept")]
    scores = {
        "toy": sidecar({(trace, 0): [1.0, 0.75, 0.75, 1.0, None][trace] for trace in range(5)})
    }
    recipe = recipe_of(f'{SCORED}[agreement]\nby = "toy.value"\naccept_min = 1\nrevise_max = 0.875')

    reasons = judged(recipe, columns_of(*traces), scores)

    critiques = [reasons[trace, 1] for trace in range(5)]
    assert critiques == ["", "disagrees", "", "disagrees", "not_scored"]
    assert {reason for (_, index), reason in reasons.items() if index != 1} == {""}


@pytest.mark.parametrize(
    ("least", "is_kept"), [(0.0, True), (0.25, True), (0.5, False), (-1.0, True)]
)
def test_a_revision_has_to_gain_what_the_agreement_asks(least: float, is_kept: bool):
    scores = {"toy": sidecar({(0, 1): 0.5, (0, 3): 0.75, (0, 6): 1.0})}
    recipe = recipe_of(
        f'{SCORED}[agreement]\nby = "toy.value"\naccept_min = 0\nrevise_max = 1\ngain_min = {least}'
    )

    reasons = judged(recipe, columns_of(REVISED), scores)

    assert (reasons[0, 2] == "") is is_kept
    assert reasons[0, 4] == reasons[0, 7] == ""  # acceptances gain nothing


def test_a_revision_that_was_never_drawn_gains_nothing_that_is_known():
    columns = columns_of((event("draw"), event("reflect", verdict="revise")))
    recipe = recipe_of(
        f'{SCORED}[agreement]\nby = "toy.value"\naccept_min = 0\nrevise_max = 1\ngain_min = -9'
    )

    scores = {"toy": sidecar({(0, 0): 0.5, (0, WHOLE): 1.0})}  # the whole trace's is no gain
    assert judged(recipe, columns, scores)[0, 1] == "not_scored"


@pytest.mark.parametrize(
    ("before", "after", "least", "reason"),
    [
        (0.5, 0.75, 0.25, ""),
        (0.5, 0.75, 0.5, "no_margin"),
        (0.5, 0.5, 0.0, "no_margin"),  # no better: no pair
        (0.5, 0.25, 0.0, "no_margin"),
        (None, 0.5, 0.0, "not_scored"),
        (0.5, None, 0.0, "not_scored"),
    ],
)
def test_a_pair_of_drawings_needs_a_margin(
    before: float | None, after: float | None, least: float, reason: str
):
    recipe = recipe_of(
        f'kind = "preference"\n{SCORED}[pairs]\nby = "toy.value"\nmin_margin = {least}\n'
        'sources = ["revision"]'
    )
    scores = {"toy": sidecar({(0, 1): before, (0, 3): after})}

    assert judged(recipe, columns_of(REVISED), scores) == {(0, 1): reason}


@given(
    roles=st.lists(st.sampled_from(["think", "draw", "reflect"]), min_size=1, max_size=8),
    scores=st.lists(st.none() | st.sampled_from([0.0, 0.5, 1.0]), min_size=8, max_size=8),
    is_strict=st.booleans(),
)
def test_every_row_is_there_once_and_has_one_reason(
    roles: list[str], scores: list[float | None], is_strict: bool
):
    columns = columns_of([event(role) for role in roles])
    rule = 'filters = [{ column = "toy.value", of = "event", min = 0.5, reason = "wrong"'
    rule += " }]" if is_strict else ', null = "keep" }]'

    reasons = judged(
        recipe_of(SCORED + rule),
        columns,
        {"toy": sidecar({(0, index): scores[index] for index in range(8)})},
    )

    def expected(score: float | None) -> str:
        if score is None:
            return "not_scored" if is_strict else ""
        return "" if score >= 0.5 else "wrong"

    assert reasons == {(0, index): expected(scores[index]) for index in range(len(roles))}


def test_the_lot_of_a_row_follows_from_seed_and_name_alone():
    recipe = recipe_of("seed = 7")
    criteria = Criteria(recipe=recipe, evaluation=EvaluationSet(), columns={})

    rows = judge(columns_of((event("draw"), event("draw", 2))), {}, criteria).rows

    names = ["7|trace-0|0|128", "7|trace-0|1|130"]  # draw is the third role of 64 regions
    lots = [int.from_bytes(sha256(name.encode()).digest()[:8], "big") for name in names]
    assert rows.lot.tolist() == lots


def test_a_category_is_the_first_word_that_the_metadata_has_for_it():
    metadata = [
        '{"category": "a", "task_type": "b"}',
        '{"task_type": "b"}',
        "{}",
        '{"category": 1}',
    ]
    columns = columns_of(*[(event("draw"),)] * 4, metadata=metadata)
    criteria = Criteria(recipe=recipe_of(""), evaluation=EvaluationSet(), columns={})

    traces = judge(columns, {}, criteria).traces

    assert traces.categories == ["", "a", "b"]
    assert [traces.categories[index] for index in traces.category] == ["a", "b", "", ""]


def test_traces_are_ranked_by_the_reward_made_of_several_scores():
    recipe = recipe_of(
        f'kind = "grpo"\n{SCORED}[groups]\naggregate = "sum"\n'
        'rewards = ["toy.value", "tokens.value"]'
    )
    scores = {
        "toy": sidecar({(0, WHOLE): 0.5, (1, WHOLE): None}),
        "tokens": sidecar({(0, WHOLE): 0.25, (1, WHOLE): 1.0}),
    }
    criteria = Criteria(recipe=recipe, evaluation=EvaluationSet(), columns={})

    traces = judge(columns_of(*[(event("draw"),)] * 3), scores, criteria).traces

    np.testing.assert_array_equal(traces.rank, [0.75, 1.0, np.nan])


# Tasks, reasons, rewards


@given(role=st.integers(0, 3), region=st.integers(0, 63))
def test_the_name_of_a_task_tells_its_role_and_region(role: int, region: int):
    (number,) = region_task(np.array([role]), np.array([region])).tolist()

    name = ("think", "reflect", "draw", "schedule")[role]
    assert task_name(number) == f"{name}_{region + 1}"


def test_no_two_tasks_have_one_name():
    names = [task_name(number) for number in range(4 * 64 + 2)]

    assert len(set(names)) == len(names)
    assert names[-2:] == ["group", "revision"]


def test_a_row_may_be_left_out_by_any_of_many_filters():
    bounds = [
        f'{{ column = "trace.num_events", max = {num}, reason = "over {num}" }}'
        for num in range(199, -1, -1)
    ]
    recipe = recipe_of(f"filters = [{', '.join(bounds)}]")

    reasons = judged(recipe, columns_of((event("draw"),)))

    assert len(reasons_of(recipe)) > 2**7
    assert reasons == {(0, 0): "over 0"}


REWARD = st.none() | st.floats(0, 1, width=32)


@given(
    rows=st.integers(1, 5).flatmap(
        lambda num: st.lists(st.lists(REWARD, min_size=num, max_size=num), min_size=1, max_size=3)
    ),
    how=st.sampled_from(["mean", "sum", "min"]),
)
def test_a_reward_is_made_of_the_scores_that_apply(rows: list[list[float | None]], how: str):
    rewards = np.array([[np.nan if cell is None else cell for cell in row] for row in rows])

    combined = aggregated(rewards, how)

    for cells, reward in zip(zip(*rows, strict=True), combined.tolist(), strict=True):
        known = [cell for cell in cells if cell is not None]
        if not known:
            assert math.isnan(reward)
        else:
            expected = min(known) if how == "min" else math.fsum(known)
            assert reward == pytest.approx(expected / (len(known) if how == "mean" else 1))
