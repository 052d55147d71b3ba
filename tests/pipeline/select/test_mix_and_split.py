"""Mixes take rows by lot, and the larger one holds the smaller; splits take prompts, never rows."""

from collections import Counter
from contextlib import suppress
from fractions import Fraction
from hashlib import sha256
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.select.decide import Candidates, decide, validation_records
from schemas.errors import InputError
from schemas.recipes import Recipe
from tests.pipeline.select.support import Rollout, Row, gathered, reasons_in, recipe_of

THINK_1, THINK_2, REFLECT_1, DRAW_1 = 0, 1, 64, 128
FILTERED = 1


def mixed(rows: list[Row], recipe: Recipe) -> Candidates:
    candidates = gathered([Rollout(rows=tuple(rows))], recipe)
    decide(candidates, recipe, np.array([False]))
    return candidates


def rows_of(*tasks: int) -> list[Row]:
    """A row a task, the later one with the lower lot."""
    return [Row(task=task, event=event, lot=len(tasks) - event) for event, task in enumerate(tasks)]


def kept_lots(candidates: Candidates) -> set[int]:
    return set(candidates.lot[candidates.is_kept].tolist())


# Mixes


def test_counts_are_exact_and_taken_by_lot_over_all_regions_of_a_role():
    rows = rows_of(THINK_1, THINK_1, THINK_2, DRAW_1, DRAW_1, REFLECT_1)

    candidates = mixed(rows, recipe_of("mix = { counts = { think = 2, draw = 1 } }"))

    assert reasons_in(candidates) == ["beyond_mix", "", "", "beyond_mix", "", "beyond_mix"]


def test_a_pool_may_be_one_region():
    candidates = mixed(
        rows_of(THINK_1, THINK_2, DRAW_1), recipe_of("mix = { weights = { think_2 = 1 } }")
    )

    assert reasons_in(candidates) == ["beyond_mix", "", "beyond_mix"]


@pytest.mark.parametrize(
    ("mix", "sizes"),
    [
        ("weights = { think = 1, draw = 1 }", (6, 6)),
        ("weights = { think = 3, draw = 1 }", (10, 3)),  # 10 thoughts: 3 1/3 drawings
        ("weights = { think = 1, draw = 3 }", (2, 6)),
        ("weights = { think = 0.5, draw = 0.25 }", (10, 5)),
        ("weights = { think = 8, draw = 47 }", (1, 6)),  # 6 / 47 * 47 is less than 6 in floats
        ("weights = { think = 1, draw = 1 }, max_rows = 7", (3, 3)),
        ("weights = { think = 1, draw = 1 }, max_rows = 100", (6, 6)),
    ],
)
def test_weights_take_as_many_rows_as_the_shares_allow(mix: str, sizes: tuple[int, int]):
    rows = rows_of(*[THINK_1] * 7, *[THINK_2] * 3, *[DRAW_1] * 6)

    candidates = mixed(rows, recipe_of(f"mix = {{ {mix} }}"))

    kept = Counter((candidates.task[candidates.is_kept] < REFLECT_1).tolist())
    assert (kept[True], kept[False]) == sizes


def test_rows_that_were_left_out_do_not_count_and_keep_their_reason():
    rows = [Row(task=THINK_1, event=0, reason=FILTERED), *rows_of(THINK_1, DRAW_1, DRAW_1)]
    recipe = recipe_of("mix = { weights = { think = 1, draw = 1 } }")

    assert reasons_in(mixed(rows, recipe)) == ["unparseable", "", "beyond_mix", ""]


def test_a_mix_that_the_rows_left_cannot_fill_is_refused_with_their_numbers():
    rows = rows_of(*[THINK_1] * 3, DRAW_1)

    with pytest.raises(InputError, match=r"asks for think 4, draw 1 rows.*left: think 3, draw 1"):
        mixed(rows, recipe_of("mix = { counts = { think = 4, draw = 1 } }"))
    with pytest.raises(InputError, match=r"no rows left: think 3, reflect 0"):
        mixed(rows, recipe_of("mix = { weights = { think = 1, reflect = 1 } }"))


def test_weights_count_as_they_are_written_however_small_or_large():
    rows = rows_of(*[THINK_1] * 10, *[DRAW_1] * 30)
    for weights, sizes in (
        ("think = 1e-310", (10, 0)),
        ("think = 1e308, draw = 1.7e308", (10, 17)),
        ("think = 5e-324, draw = 1.5e-323", (10, 30)),
        ("think = 0.1, draw = 0.3", (10, 30)),  # in floats, 3 * 0.1 is more than 0.3
    ):
        candidates = mixed(rows, recipe_of(f"mix = {{ weights = {{ {weights} }} }}"))
        kept = Counter((candidates.task[candidates.is_kept] < REFLECT_1).tolist())
        assert (kept[True], kept[False]) == sizes


@pytest.mark.parametrize(
    "mix",
    [
        "weights = { think = 1, draw = 1000 }, max_rows = 10",
        "weights = { think = 1, draw = 1e-310 }",
        "weights = { think = 1, draw = 1 }, max_rows = 1",
        'weights = { think = 1, draw = 1 }, max_rows = 3, regions = "equal"',
    ],
)
def test_a_pool_that_would_be_rounded_to_nothing_is_refused(mix: str):
    rows = rows_of(*[THINK_1] * 5, *[THINK_2] * 5, *[DRAW_1] * 5)

    with pytest.raises(InputError, match=SHARE):
        mixed(rows, recipe_of(f"mix = {{ {mix} }}"))


TASKS = st.lists(st.sampled_from([THINK_1, THINK_2, DRAW_1]), max_size=25).map(
    lambda tasks: [THINK_1, DRAW_1, *tasks]
)
WEIGHTS = st.tuples(st.integers(1, 20), st.integers(1, 20))
SHARE = "is less than (one row|2 equal parts)"


def kept_lots_if_any(rows: list[Row], recipe: Recipe) -> set[int]:
    """Of a mix; none where the share of a pool is less than a row."""
    with suppress(InputError):
        return kept_lots(mixed(rows, recipe))
    return set()


@given(tasks=TASKS, weights=WEIGHTS, lots=st.permutations(range(27)), limit=st.integers(1, 40))
def test_a_pool_gives_its_lowest_lots_as_many_as_its_share(
    tasks: list[int], weights: tuple[int, int], lots: list[int], limit: int
):
    rows = [Row(task=task, event=event, lot=lots[event]) for event, task in enumerate(tasks)]
    think, draw = weights
    recipe = recipe_of(
        f"mix = {{ weights = {{ think = {think}, draw = {draw} }}, max_rows = {limit} }}"
    )

    pools = [
        sorted(row.lot for row in rows if (row.task < REFLECT_1) is is_thought)
        for is_thought in (True, False)
    ]
    shares = [Fraction(len(pool), weight) for pool, weight in zip(pools, weights, strict=True)]
    scale = min(*shares, Fraction(limit, think + draw))
    parts = [pool[: int(scale * weight)] for pool, weight in zip(pools, weights, strict=True)]
    if not all(parts):
        with pytest.raises(InputError, match=SHARE):
            mixed(rows, recipe)
        return
    assert kept_lots(mixed(rows, recipe)) == set().union(*parts)


@given(
    tasks=TASKS,
    weights=WEIGHTS,
    lots=st.permutations(range(27)),
    limits=st.lists(st.integers(1, 40), min_size=2, max_size=2).map(sorted),
)
def test_a_larger_mix_holds_the_smaller_one(
    tasks: list[int], weights: tuple[int, int], lots: list[int], limits: list[int]
):
    rows = [Row(task=task, event=event, lot=lots[event]) for event, task in enumerate(tasks)]
    mix = f"weights = {{ think = {weights[0]}, draw = {weights[1]} }}"
    smaller, larger = (
        kept_lots_if_any(rows, recipe_of(f"mix = {{ {mix}, max_rows = {limit} }}"))
        for limit in limits
    )

    assert smaller <= larger
    assert len(larger) <= limits[1]


# Balance in a mix


BALANCE = '[agreement]\nby = "toy.value"\naccept_min = 1\nrevise_max = 0\n'
Side = tuple[int, bool, bool]
"""Of a critique: the region, whether it asks for a revision, whether it is set aside."""
SIDES = st.lists(
    st.tuples(st.integers(0, 2), st.booleans(), st.booleans()), min_size=12, max_size=30
)


def balanced(mix: str) -> Recipe:
    return recipe_of(f'scorers = ["toy@1"]\n{BALANCE}[mix]\n{mix}')


def kept_sides(
    sides: list[Side], lots: list[int], recipe: Recipe
) -> tuple[Counter[Side], set[int]]:
    """Of traces with one critique and one thought each, the critiques that stay: their sides and
    their lots.
    """
    rollouts = [
        Rollout(
            record=index,
            rows=(
                Row(task=REFLECT_1 + region, event=0, lot=lot, is_revise=is_revise),
                Row(task=THINK_1, event=1, lot=lot + 100),
            ),
        )
        for index, ((region, is_revise, _), lot) in enumerate(zip(sides, lots, strict=False))
    ]
    candidates = gathered(rollouts, recipe)
    decide(candidates, recipe, np.array([is_aside for _, _, is_aside in sides]))
    is_critique = candidates.is_kept & (candidates.task >= REFLECT_1)
    kept = candidates.trace[is_critique].tolist()
    return Counter(sides[trace] for trace in kept), set(candidates.lot[is_critique].tolist())


def num_pairs(sides: list[Side]) -> int:
    """How many pairs of a revision and an acceptance there are, each in one split."""
    nums = Counter((is_revise, is_aside) for _, is_revise, is_aside in sides)
    return sum(min(nums[True, split], nums[False, split]) for split in (True, False))


@given(sides=SIDES, lots=st.permutations(range(30)), weight=st.integers(1, 9))
def test_a_mix_keeps_as_many_revisions_as_acceptances_in_each_split(
    sides: list[Side], lots: list[int], weight: int
):
    recipe = balanced(f"weights = {{ think = 9, reflect = {weight} }}")
    if not num_pairs(sides):
        with pytest.raises(InputError, match="reflect 0 in 2 equal parts"):
            kept_sides(sides, lots, recipe)
        return
    share = min(Fraction(len(sides), 9), Fraction(2 * num_pairs(sides), weight))
    if not (num := int(share * weight) // 2 * 2):
        with pytest.raises(InputError, match=SHARE):
            kept_sides(sides, lots, recipe)
        return
    kept, _ = kept_sides(sides, lots, recipe)

    for split in (True, False):
        revisions, acceptances = (
            sum(num for side, num in kept.items() if side[1:] == (is_revise, split))
            for is_revise in (True, False)
        )
        assert revisions == acceptances
    assert kept.total() == num


@given(sides=SIDES, lots=st.permutations(range(30)))
def test_a_larger_balanced_mix_holds_the_smaller_one(sides: list[Side], lots: list[int]):
    mixes = [
        kept_sides(sides, lots, balanced(f"counts = {{ reflect = {2 * num} }}"))[1]
        for num in range(1, num_pairs(sides) + 1)
    ]

    assert [len(kept) for kept in mixes] == [2 * num for num in range(1, len(mixes) + 1)]
    for smaller, larger in pairwise(mixes):
        assert smaller < larger


def test_regions_may_be_equal_in_a_pool_that_is_a_role():
    rows = rows_of(*[THINK_1] * 7, *[THINK_2] * 3, *[DRAW_1] * 6)
    recipe = recipe_of('mix = { weights = { think = 1, draw = 1 }, regions = "equal" }')

    candidates = mixed(rows, recipe)

    assert Counter(candidates.task[candidates.is_kept].tolist()) == {
        THINK_1: 3,
        THINK_2: 3,
        DRAW_1: 6,
    }


@given(sides=SIDES, lots=st.permutations(range(40)))
def test_regions_and_verdicts_may_both_be_equal(sides: list[Side], lots: list[int]):
    cells = [(region, is_revise, False) for region in (0, 1) for is_revise in (False, True)]
    some = [(region % 2, is_revise, False) for region, is_revise, _ in sides]
    recipe = balanced('weights = { reflect = 1 }\nregions = "equal"')

    kept, _ = kept_sides([*cells, *some], lots, recipe)

    assert kept.keys() == set(cells)
    assert len(set(kept.values())) == 1


def test_a_count_that_has_no_equal_parts_is_refused():
    sides = [(0, index % 2 == 0, False) for index in range(8)]

    with pytest.raises(InputError, match="reflect is to have 2 equal parts; ask for a multiple"):
        kept_sides(sides, list(range(8)), balanced("counts = { reflect = 3 }"))


# Splits


RECORDS = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=30)


@given(records=RECORDS, seed=st.integers(0, 9), share=st.sampled_from([0, 0.02, 0.25, 0.5, 0.98]))
def test_a_record_is_set_aside_by_a_lot_of_its_own(records: list[int], seed: int, share: float):
    is_aside = validation_records(
        np.array(records, np.uint64), np.array(records, np.uint64), seed, share
    )

    def lot(record: int) -> int:
        return int.from_bytes(sha256(f"{seed}|split|{record:016x}".encode()).digest()[:8], "big")

    assert is_aside.tolist() == [Fraction(lot(record), 2**64) < share for record in records]


@given(records=RECORDS, random=st.randoms(use_true_random=False))
def test_a_split_never_divides_a_record_and_knows_nothing_of_the_others(
    records: list[int], random: Random
):
    repeated = [*records, *records]
    random.shuffle(repeated)

    is_aside = validation_records(
        np.array(repeated, np.uint64), np.array(repeated, np.uint64), 1, 0.5
    )

    sides = dict(zip(repeated, is_aside.tolist(), strict=True))
    assert [sides[record] for record in repeated] == is_aside.tolist()
    alone = [
        validation_records(
            np.array([record], np.uint64), np.array([record], np.uint64), 1, 0.5
        ).item()
        for record in records
    ]
    assert [sides[record] for record in records] == alone


@given(records=RECORDS, seed=st.integers(0, 9))
def test_prompts_that_are_equal_but_for_their_form_stand_on_one_side(records: list[int], seed: int):
    prompts = np.array([record % 3 for record in records], np.uint64)
    ids = np.array(records, np.uint64)

    is_aside = validation_records(ids, prompts, seed, 0.5)

    for prompt in set(prompts.tolist()):
        alike = is_aside[prompts == prompt]
        first = ids[prompts == prompt].min(keepdims=True)
        assert set(alike.tolist()) == set(validation_records(first, first, seed, 0.5).tolist())


def test_a_larger_share_sets_the_same_records_aside_and_more():
    records = np.arange(2000, dtype=np.uint64)
    shares = [validation_records(records, records, 0, share) for share in (0.0, 0.1, 0.3, 0.9)]

    assert not shares[0].any()
    for smaller, larger in pairwise(shares):
        assert (larger | ~smaller).all()
    # Four deviations of a draw of 2,000 with a chance of 0.3 are 82.
    assert abs(int(shares[2].sum()) - 600) < 82


def test_another_seed_draws_another_split():
    records = np.arange(200, dtype=np.uint64)

    assert (
        validation_records(records, records, 0, 0.5) != validation_records(records, records, 1, 0.5)
    ).any()
