"""The funnel: what comes in is what is removed and what is kept, in all and of every task."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.select.funnel import Funnel, lines_of
from tests.pipeline.select.support import Rollout, Row, gathered, recipe_of

THINK_1, REFLECT_1, DRAW_2 = 0, 64, 129
UNPARSEABLE, TRUNCATED = 1, 2  # the first reasons of every recipe

ROLLOUTS = [
    Rollout(
        record=1,
        category="toy",
        rows=(Row(task=THINK_1), Row(task=DRAW_2, event=1), Row(task=DRAW_2, reason=TRUNCATED)),
    ),
    Rollout(record=1, category="toy", rows=(Row(task=THINK_1, reason=UNPARSEABLE),)),
    Rollout(record=2, rows=(Row(task=THINK_1),)),
]


def funnel_of(rollouts: list[Rollout], is_validation: list[bool]) -> Funnel:
    return Funnel.of(
        gathered(rollouts, recipe_of("")),
        np.array(is_validation, np.bool_),
        num_objects=1,
        num_dead=3,
    )


def test_the_funnel_counts_traces_prompts_and_rows():
    funnel = funnel_of(ROLLOUTS, [False, False, True])

    assert funnel == Funnel(
        num_objects=1,
        num_dead=3,
        num_traces=3,
        num_traces_kept=2,
        num_prompts=2,
        num_prompts_kept=2,
        num_rows=5,
        num_rows_kept=3,
        removed={"unparseable": 1, "truncated": 1},
        by_task={
            "think_1": {"in": 3, "unparseable": 1, "train": 1, "validation": 1},
            "draw_2": {"in": 2, "truncated": 1, "train": 1, "validation": 0},
        },
        kept_by_category={"unknown": 1, "toy": 2},
        kept_by_region={"1": 2, "2": 1},
        kept_by_verdict={},
    )


def test_the_lines_say_what_is_left_after_each_reason():
    lines = lines_of(funnel_of(ROLLOUTS, [False, False, True]))

    words = [" ".join(line.split()) for line in lines]
    assert words == [
        "3 traces of 2 prompts came in (3 dead ones left out): 5 rows.",
        "unparseable -1 4 left",
        "truncated -1 3 left",
        "Kept 3 rows of 2 traces and 2 prompts:",
        "think_1 1 train 1 validation of 3",
        "draw_2 1 train 0 validation of 2",
        "By category: unknown 1, toy 2.",
        "By region: 1 2, 2 1.",
    ]


def test_verdicts_are_counted_of_the_critiques_that_stay_in_each_split():
    critiques = [
        *(Row(task=REFLECT_1), Row(task=REFLECT_1, event=1, is_revise=True)),
        *(Row(task=REFLECT_1, event=2, reason=TRUNCATED), Row(task=THINK_1, event=3)),
    ]
    rollouts = [Rollout(rows=tuple(critiques)), Rollout(rows=tuple(critiques[:1]))]

    funnel = funnel_of(rollouts, [False, True])

    assert funnel.kept_by_verdict == {
        "train accept": 1,
        "train revise": 1,
        "validation accept": 1,
        "validation revise": 0,
    }
    assert (
        "By verdict: train accept 1, train revise 1, validation accept 1, validation revise 0."
        in (lines_of(funnel))
    )


def test_without_categories_nothing_is_said_of_them():
    assert "category" not in "".join(lines_of(funnel_of([Rollout()], [False])))


def test_prompts_that_call_their_category_unknown_are_as_those_without():
    rows = (Row(task=0, reason=0),)
    rollouts = [Rollout(category=name, rows=rows) for name in ("", "unknown", "unknown", "a")]

    assert funnel_of(rollouts, [False] * 4).kept_by_category == {"unknown": 3, "a": 1}


@given(
    rollouts=st.lists(
        st.builds(
            Rollout,
            record=st.integers(0, 3),
            category=st.sampled_from(["", "a", "unknown"]),
            rows=st.lists(
                st.builds(Row, task=st.integers(0, 191), reason=st.integers(0, 4)), max_size=4
            ).map(tuple),
        ),
        min_size=1,
        max_size=8,
    ),
    is_validation=st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_no_row_is_lost_between_coming_in_and_being_removed_or_kept(
    rollouts: list[Rollout], is_validation: list[bool]
):
    funnel = funnel_of(rollouts, is_validation[: len(rollouts)])

    rows = [row for rollout in rollouts for row in rollout.rows]
    assert funnel.num_rows == len(rows)
    assert funnel.num_rows - sum(funnel.removed.values()) == funnel.num_rows_kept
    assert sum(funnel.kept_by_category.values()) == funnel.num_rows_kept
    assert sum(funnel.kept_by_region.values()) == funnel.num_rows_kept
    is_critique = [name for name in funnel.by_task if name.startswith("reflect")]
    assert sum(funnel.kept_by_verdict.values()) == sum(
        funnel.by_task[name]["train"] + funnel.by_task[name]["validation"] for name in is_critique
    )
    for counts in funnel.by_task.values():
        ends = sum(num for name, num in counts.items() if name != "in")
        assert counts["in"] == ends
    for name, num in {
        "in": funnel.num_rows,
        **funnel.removed,
    }.items():
        assert sum(counts.get(name, 0) for counts in funnel.by_task.values()) == num
    splits = [(counts["train"], counts["validation"]) for counts in funnel.by_task.values()]
    assert sum(map(sum, splits)) == funnel.num_rows_kept
    aside = zip(rollouts, is_validation, strict=False)
    assert sum(validation for _, validation in splits) == sum(
        row.reason == 0 for rollout, is_aside in aside if is_aside for row in rollout.rows
    )
