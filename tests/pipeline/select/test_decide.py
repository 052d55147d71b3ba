"""Decisions that depend on other rows: groups, pairs, the best of a prompt, agreement's balance."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.select.decide import Candidates, Endings, decide, gather
from pipeline.select.shard_candidates import TASK_OF_REVISION, reasons_of
from schemas.recipes import Recipe
from tests.pipeline.select.support import (
    Rollout,
    Row,
    gathered,
    reasons_in,
    recipe_of,
    shard_of,
)

REFLECT_1, DRAW_1 = 64, 128  # the second and third role of 64 regions
FILTERED = 1  # left out by a reason of its own, before anything is decided

GROUPS = recipe_of('kind = "grpo"\nscorers = ["toy@1"]\n[groups]\nrewards = ["toy.value"]')
KEEP_ALIKE = recipe_of(
    'kind = "grpo"\nscorers = ["toy@1"]\n'
    '[groups]\nrewards = ["toy.value"]\ndrop_zero_variance = false'
)
BALANCED = recipe_of(
    'scorers = ["toy@1"]\n[agreement]\nby = "toy.value"\naccept_min = 1\nrevise_max = 0'
)


def best_of(keep: int | None = None, min_distance: int = 0) -> Recipe:
    limit = "" if keep is None else f"keep = {keep}\n"
    return recipe_of(
        'scorers = ["toy@1", "phash@1"]\n[per_prompt]\nby = "toy.value"\n'
        f"{limit}min_distance = {min_distance}"
    )


def pairs(min_margin: float = 0) -> Recipe:
    return recipe_of(
        'kind = "preference"\nscorers = ["toy@1"]\n'
        f'[pairs]\nby = "toy.value"\nmin_margin = {min_margin}'
    )


def decided(
    rollouts: list[Rollout],
    recipe: Recipe,
    *,
    is_validation: Sequence[bool] | None = None,
    is_ended: Sequence[bool] | None = None,
    num_dead: Sequence[int] | None = None,
) -> Candidates:
    """Decide about these traces. Lists are of each trace; by default all is over and none dead."""
    candidates, num = gathered(rollouts, recipe), len(rollouts)
    endings = Endings(
        is_ended=np.array(is_ended or [True] * num, np.bool_),
        num_dead=np.array(num_dead or [0] * num, np.int64),
    )
    is_aside = np.array(is_validation or [False] * num, np.bool_)
    decide(candidates, recipe, is_aside, endings)
    return candidates


# Gathering


def test_what_is_gathered_counts_through_all_objects():
    first = shard_of(
        [
            Rollout(record=7, category="b", rows=(Row(event=0), Row(event=1))),
            Rollout(record=8, category="a", rows=()),
        ]
    )
    second = shard_of([Rollout(record=9, category="c"), Rollout(record=7, category="b")])

    candidates = gather([first, shard_of([]), second], [1, 1, 0], reasons_of(GROUPS))

    assert candidates.record.tolist() == [7, 8, 9, 7]
    assert candidates.run.tolist() == [1, 1, 0, 0]
    assert candidates.trace.tolist() == [0, 0, 2, 3]
    assert candidates.first_trace.tolist() == [0, 2, 2, 4]
    assert candidates.first_row.tolist() == [0, 2, 2, 4]
    assert candidates.categories == ["a", "b", "c"]
    assert [candidates.categories[index] for index in candidates.category] == ["b", "a", "c", "b"]
    assert candidates.is_kept.all()


# Groups


def test_a_group_is_whole_or_left_out():
    rollouts = [
        *[Rollout(record=1, rank=rank) for rank in (0.0, 1.0)],
        Rollout(record=2, rank=0.0),  # the other rollout is dead
        Rollout(record=3, rank=0.0),
        Rollout(record=3, rank=1.0, rows=(Row(reason=FILTERED),)),
        *[Rollout(record=4, rank=rank) for rank in (0.0, 1.0)],  # a third one is not grown yet
    ]

    candidates = decided(
        rollouts, GROUPS, is_ended=[True] * 5 + [False] * 2, num_dead=[0, 0, 1, 0, 0, 0, 0]
    )

    assert reasons_in(candidates) == [
        *("", "", "incomplete_group", "incomplete_group"),
        reasons_of(GROUPS)[FILTERED],
        *("incomplete_group", "incomplete_group"),
    ]
    assert candidates.group_size.tolist() == [2, 2, 1, 2, 2, 2, 2]


@pytest.mark.parametrize(("max_dead", "is_kept"), [(0, False), (1, False), (2, True)])
def test_a_recipe_may_put_up_with_dead_rollouts_and_the_group_is_of_the_others(
    max_dead: int, is_kept: bool
):
    recipe = recipe_of(
        'kind = "grpo"\nscorers = ["toy@1"]\n'
        f'[groups]\nrewards = ["toy.value"]\nmax_dead = {max_dead}'
    )

    candidates = decided([Rollout(rank=rank) for rank in (0.0, 1.0)], recipe, num_dead=[2, 2])

    assert reasons_in(candidates) == (["", ""] if is_kept else ["incomplete_group"] * 2)
    assert candidates.group_size.tolist() == [2, 2]


@pytest.mark.parametrize("max_dead", [0, 9])
def test_no_dead_rollout_makes_up_for_one_that_is_still_to_come(max_dead: int):
    recipe = recipe_of(
        'kind = "grpo"\nscorers = ["toy@1"]\n'
        f'[groups]\nrewards = ["toy.value"]\nmax_dead = {max_dead}'
    )

    candidates = decided([Rollout(rank=rank) for rank in (0, 1)], recipe, is_ended=[False] * 2)

    assert reasons_in(candidates) == ["incomplete_group"] * 2


@pytest.mark.parametrize("num", range(2, 12))
@pytest.mark.parametrize("reward", [0.1, 0.7, 1 / 3, 0.55, 1e-30])
def test_equal_rewards_are_alike_however_many_they_are(num: int, reward: float):
    rollouts = [Rollout(rank=reward)] * num

    assert reasons_in(decided(rollouts, GROUPS)) == ["zero_variance"] * num
    assert decided(rollouts, KEEP_ALIKE).advantage.tolist() == [0.0] * num


def test_groups_are_of_one_run_each_with_its_own_size():
    same_record = [Rollout(record=1, run=run, rank=rank) for run in (0, 1) for rank in (0.0, 0.5)]

    candidates = decided([*same_record, Rollout(record=1, run=1, rank=1.0)], GROUPS)

    assert reasons_in(candidates) == [""] * 5
    assert candidates.group_size.tolist() == [2, 2, 3, 3, 3]


def test_an_advantage_is_the_reward_less_the_mean_over_the_deviation():
    candidates = decided([Rollout(rank=rank) for rank in (0.0, 0.5, 1.0, np.nan)], GROUPS)

    # Of 0, 1/2 and 1 the mean is 1/2 and the deviation the root of 1/6; the one without a reward
    # has no advantage, and counts in neither.
    unit = 0.5 / ((1 / 6) ** 0.5 + 1e-4)
    assert candidates.advantage.tolist()[:3] == pytest.approx([-unit, 0, unit], rel=1e-6)
    assert np.isnan(candidates.advantage[3])
    assert reasons_in(candidates) == [""] * 4


@pytest.mark.parametrize("ranks", [(0.5, 0.5, 0.5), (0.5, np.nan, np.nan), (np.nan,) * 3])
def test_a_group_whose_rewards_are_alike_teaches_nothing(ranks: tuple[float, ...]):
    rollouts = [Rollout(rank=rank) for rank in ranks]

    assert reasons_in(decided(rollouts, GROUPS)) == [
        "not_scored" if np.isnan(rank) else "zero_variance" for rank in ranks
    ]
    assert reasons_in(decided(rollouts, KEEP_ALIKE)) == [""] * 3


@given(ranks=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=6))
def test_advantages_in_a_group_sum_to_nothing_and_rank_as_rewards_do(ranks: list[float]):
    advantages = decided([Rollout(rank=rank) for rank in ranks], KEEP_ALIKE).advantage

    assert float(np.sum(advantages, dtype=np.float64)) == pytest.approx(0, abs=1e-4)
    for rank, advantage in zip(ranks, advantages.tolist(), strict=True):
        for other, others_advantage in zip(ranks, advantages.tolist(), strict=True):
            assert rank >= other or advantage <= others_advantage


# Pairs


def test_the_best_and_the_worst_of_a_prompt_make_a_pair_and_the_best_names_the_worst():
    candidates = decided([Rollout(rank=rank) for rank in (0.5, 1.0, 0.0, 0.25)], pairs(0.5))

    assert reasons_in(candidates) == ["not_extreme", "", "", "not_extreme"]
    assert candidates.partner.tolist() == [-1, 2, -1, -1]


@pytest.mark.parametrize(
    ("ranks", "min_margin", "is_pair"),
    [
        ((0.25, 0.75), 0.5, True),
        ((0.25, 0.75), 0.75, False),
        ((0.5, 0.5), 0.0, False),  # none is better
        ((0.0, 0.5, np.nan), 0.5, True),
    ],
)
def test_a_pair_needs_its_margin(ranks: tuple[float, ...], min_margin: float, is_pair: bool):
    candidates = decided([Rollout(rank=rank) for rank in ranks], pairs(min_margin))

    assert reasons_in(candidates)[:2] == (["", ""] if is_pair else ["no_margin", "no_margin"])
    assert (candidates.partner >= 0).sum() == int(is_pair)


def test_a_trace_without_a_score_or_alone_or_left_out_is_in_no_pair():
    rollouts = [
        Rollout(record=1, rank=1.0),
        Rollout(record=2, rank=1.0),
        Rollout(record=2, rank=np.nan),
        Rollout(record=3, rank=1.0),
        Rollout(record=3, rank=0.0, rows=(Row(reason=FILTERED),)),
    ]

    candidates = decided(rollouts, pairs())

    assert reasons_in(candidates)[:4] == [
        *("not_extreme", "not_extreme", "not_scored", "not_extreme")
    ]
    assert candidates.reason[4] == FILTERED
    assert (candidates.partner == -1).all()


def test_pairs_are_of_one_run():
    candidates = decided([Rollout(run=0, rank=1.0), Rollout(run=1, rank=0.0)], pairs())

    assert reasons_in(candidates) == ["not_extreme"] * 2


def test_drawings_that_were_replaced_stay_beside_the_pairs_of_traces():
    replaced = Row(task=TASK_OF_REVISION, event=1)
    rollouts = [Rollout(rank=rank, rows=(Row(), replaced)) for rank in (0.0, 0.5, 1.0)]

    assert reasons_in(decided(rollouts, pairs())) == ["", "", "not_extreme", "", "", ""]


def test_among_equals_the_pair_is_drawn_by_lot():
    ranks_and_lots = [(1.0, 3), (1.0, 1), (0.0, 9), (0.0, 4)]
    rollouts = [Rollout(rank=rank, rows=(Row(lot=lot),)) for rank, lot in ranks_and_lots]

    assert decided(rollouts, pairs()).partner.tolist() == [-1, 2, -1, -1]


# The best of a prompt


def test_of_a_prompt_the_best_stay_over_all_runs_and_the_unscored_come_last():
    rollouts = [
        Rollout(run=0, record=1, rank=0.25),
        Rollout(run=0, record=1, rank=np.nan),
        Rollout(run=0, record=2, rank=0.0),
        Rollout(run=1, record=1, rank=1.0),
    ]

    assert reasons_in(decided(rollouts, best_of(2))) == ["", "not_scored", "", ""]


def test_a_trace_that_looks_like_a_better_one_is_left_out_with_all_its_rows():
    both = (Row(task=DRAW_1, event=0), Row(task=DRAW_1 + 1, event=1))
    rollouts = [
        Rollout(rank=0.5, hash=0b0111, rows=both),
        Rollout(rank=1.0, hash=0b0001, rows=both),
        Rollout(rank=0.0, hash=0b1110, rows=both),
    ]

    # 2 bits lie between the first and the second, 4 between the second and the third.
    assert reasons_in(decided(rollouts, best_of(min_distance=3))) == [
        *("near_duplicate", "near_duplicate", "", "", "", "")
    ]
    assert reasons_in(decided(rollouts, best_of(min_distance=2))) == [""] * 6


def test_duplicates_are_looked_for_within_a_prompt_alone():
    rollouts = [Rollout(record=record, rank=1.0, hash=5) for record in (1, 2)]

    assert reasons_in(decided(rollouts, best_of(min_distance=64))) == ["", ""]


def test_a_trace_without_rows_left_takes_no_place():
    rollouts = [
        Rollout(rank=1.0, hash=5, rows=(Row(reason=FILTERED),)),
        Rollout(rank=0.5, hash=5),
    ]

    assert reasons_in(decided(rollouts, best_of(1, 64)))[1] == ""


ROLLOUTS = st.lists(
    st.builds(
        Rollout,
        record=st.integers(0, 2),
        run=st.integers(0, 1),
        rank=st.sampled_from([np.nan, 0.0, 0.5, 1.0]),
        hash=st.none() | st.integers(0, 15),
        rows=st.lists(
            st.builds(
                Row,
                task=st.sampled_from([0, 1, REFLECT_1, DRAW_1, DRAW_1 + 1]),
                reason=st.sampled_from([0, 0, 0, FILTERED]),
                is_revise=st.booleans(),
            ),
            max_size=3,
        ).map(tuple),
    ),
    min_size=1,
    max_size=10,
)


def with_lots(rollouts: list[Rollout], lots: list[int]) -> list[Rollout]:
    """The rollouts in order of their runs, every row with a name and a lot of its own."""
    unused = iter(lots)
    ordered = sorted(rollouts, key=lambda rollout: rollout.run)
    return [
        replace(
            rollout,
            rollout=index,
            rows=tuple(
                replace(row, event=event, lot=next(unused))
                for event, row in enumerate(rollout.rows)
            ),
        )
        for index, rollout in enumerate(ordered)
    ]


LOTS = st.permutations(range(30))


@given(rollouts=ROLLOUTS, lots=LOTS, keep=st.none() | st.integers(1, 3), bits=st.integers(1, 4))
def test_the_best_that_stay_differ_and_what_goes_is_no_better(
    rollouts: list[Rollout], lots: list[int], keep: int | None, bits: int
):
    rollouts = with_lots(rollouts, lots)

    candidates = decided(rollouts, best_of(keep, bits))

    rows: dict[int, set[str]] = defaultdict(set)
    for trace, reason in zip(candidates.trace.tolist(), reasons_in(candidates), strict=True):
        rows[trace].add(reason)
    kept = {trace for trace, reasons in rows.items() if "" in reasons}

    def rank(trace: int) -> float:
        return -1.0 if np.isnan(rollouts[trace].rank) else rollouts[trace].rank

    def alike(trace: int, other: int) -> bool:
        hashes = rollouts[trace].hash, rollouts[other].hash
        return None not in hashes and bin(hashes[0] ^ hashes[1]).count("1") < bits

    for trace, reasons in rows.items():
        beside = [
            other for other in kept - {trace} if rollouts[other].record == rollouts[trace].record
        ]
        if trace in kept:
            assert not any(alike(trace, other) for other in beside)
            assert keep is None or len(beside) < keep
        elif "near_duplicate" in reasons:
            assert any(alike(trace, other) and rank(other) >= rank(trace) for other in beside)
        elif reasons & {"not_best", "not_scored"}:
            assert ("not_scored" in reasons) == bool(np.isnan(rollouts[trace].rank))
            assert len(beside) == keep
            assert all(rank(other) >= rank(trace) for other in beside)
        else:
            assert reasons == {reasons_of(best_of(1))[FILTERED]}


# Balance


def test_critiques_that_ask_for_a_revision_are_as_many_as_those_that_accept():
    rows = [
        *[Row(task=REFLECT_1 + lot % 2, lot=lot, event=lot) for lot in (5, 3, 8)],
        *[Row(task=REFLECT_1, lot=lot, event=lot, is_revise=True) for lot in (2, 9)],
        Row(task=REFLECT_1, lot=0, event=0, reason=FILTERED),
        Row(task=DRAW_1, lot=10, event=10),
    ]

    candidates = decided([Rollout(rows=tuple(rows))], BALANCED)

    # Of the acceptances the lowest two lots stay, over all regions.
    reasons = dict(zip(candidates.event.tolist(), reasons_in(candidates), strict=True))
    assert {event for event, reason in reasons.items() if not reason} == {2, 3, 5, 9, 10}
    assert reasons[8] == "unbalanced"


@given(rollouts=ROLLOUTS, lots=LOTS, aside=st.lists(st.booleans(), min_size=10, max_size=10))
def test_balance_leaves_equal_sides_in_each_split_and_every_other_row_alone(
    rollouts: list[Rollout], lots: list[int], aside: list[bool]
):
    aside = aside[: len(rollouts)]
    before = gathered(with_lots(rollouts, lots), BALANCED)
    after = decided(with_lots(rollouts, lots), BALANCED, is_validation=aside)

    is_critique = (before.task >= 64) & (before.task < 128)
    is_aside = np.array(aside)[before.trace]
    for split in (True, False):
        sides = [
            is_critique & (is_aside == split) & (before.is_revise == side) for side in (True, False)
        ]
        fewest = min(int((before.is_kept & side).sum()) for side in sides)
        assert [int((after.is_kept & side).sum()) for side in sides] == [fewest, fewest]
    assert (after.reason[~is_critique] == before.reason[~is_critique]).all()


# All of them


EVERYTHING = recipe_of(
    'scorers = ["toy@1", "phash@1"]\n'
    '[agreement]\nby = "toy.value"\naccept_min = 1\nrevise_max = 0\n'
    '[per_prompt]\nkeep = 2\nby = "toy.value"\nmin_distance = 2'
)


def decisions(candidates: Candidates, rollouts: list[Rollout]) -> dict[tuple[int, int], str]:
    """By the names of rows."""
    keys = [
        (rollouts[trace].rollout, event)
        for trace, event in zip(candidates.trace.tolist(), candidates.event.tolist(), strict=True)
    ]
    return dict(zip(keys, reasons_in(candidates), strict=True))


@given(rollouts=ROLLOUTS, lots=LOTS, random=st.randoms(use_true_random=False))
def test_decisions_do_not_depend_on_how_rows_are_spread_and_ordered(
    rollouts: list[Rollout], lots: list[int], random: Random
):
    rollouts = with_lots(rollouts, lots)
    shuffled = [replace(rollout, rows=tuple(reversed(rollout.rows))) for rollout in rollouts]
    random.shuffle(shuffled)  # and so cut into other objects

    in_order = decisions(decided(rollouts, EVERYTHING), rollouts)

    assert decisions(decided(shuffled, EVERYTHING), shuffled) == in_order


@given(rollouts=ROLLOUTS, lots=LOTS, recipe=st.sampled_from([EVERYTHING, BALANCED, best_of(1)]))
def test_a_row_that_was_left_out_keeps_its_reason(
    rollouts: list[Rollout], lots: list[int], recipe: Recipe
):
    before = gathered(with_lots(rollouts, lots), recipe)
    after = decided(with_lots(rollouts, lots), recipe)

    assert (after.reason[~before.is_kept] == before.reason[~before.is_kept]).all()
    assert set(after.reason.tolist()) <= set(range(len(after.reasons)))
