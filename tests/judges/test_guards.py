"""Guards against pleasing the judge: do the statistics tell a good judge from a bad one?"""

from itertools import combinations

import numpy as np
import pytest

from pipeline.scoring.artefacts import artefacts_in
from pipeline.scoring.formulae.guards import (
    agreement,
    best_of_curve,
    estimate,
    expected_best,
    mean_ranks,
    selection_gain,
    spearman,
)


def world(seed: int, num_prompts: int = 60, num_rollouts: int = 4):
    """Prompts of different difficulty, rollouts of different worth: prompts and true worth."""
    generator = np.random.default_rng(seed)
    prompts = np.repeat(np.arange(num_prompts), num_rollouts)
    difficulty = generator.normal(size=num_prompts)[prompts]
    return prompts, difficulty + generator.normal(size=len(prompts)), generator


def best_two(judge: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    kept = np.zeros(len(judge), np.bool_)
    for prompt in np.unique(prompts):
        rows = np.flatnonzero(prompts == prompt)
        kept[rows[np.argsort(-judge[rows])[:2]]] = True
    return kept


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_selection_by_a_good_judge_gains_on_the_one_held_out_and_by_a_bad_one_does_not(seed: int):
    prompts, worth, generator = world(seed)
    good = worth + generator.normal(size=len(worth))
    bad = generator.normal(size=len(worth))

    by_good = selection_gain(worth, prompts, best_two(good, prompts))
    by_bad = selection_gain(worth, prompts, best_two(bad, prompts))

    assert by_good is not None
    assert by_bad is not None
    assert by_good.within_prompts is not None
    assert by_bad.within_prompts is not None
    assert by_good.within_prompts.low > 0
    assert by_good.gain.low > 0
    assert by_bad.within_prompts.low <= 0
    assert by_good.gain.value == pytest.approx(by_good.after.value - by_good.before.value)


def test_a_judge_that_keeps_easy_prompts_alone_gains_nothing_within_prompts():
    prompts, worth, _ = world(4)
    means = np.array([worth[prompts == prompt].mean() for prompt in range(60)])
    kept = means[prompts] > 0

    gain = selection_gain(worth, prompts, kept)

    assert gain is not None
    assert gain.gain.low > 0
    assert gain.within_prompts is not None
    assert gain.within_prompts.value == pytest.approx(0)


def test_rows_without_a_score_take_no_part_and_nothing_kept_is_no_gain():
    prompts, worth, _ = world(5)
    holed = worth.copy()
    holed[::3] = np.nan
    kept = best_two(worth, prompts)

    gain = selection_gain(holed, prompts, kept)

    assert gain is not None
    assert gain.before.value == pytest.approx(np.nanmean(holed))
    assert gain.after.value == pytest.approx(np.nanmean(holed[kept]))
    assert selection_gain(np.full(8, np.nan), prompts[:8], kept[:8]) is None
    assert selection_gain(worth, prompts, np.zeros_like(kept)) is None


def test_the_best_of_n_is_exact_over_all_ways_to_draw_n():
    judge = np.array([1.0, 3.0, 2.0, 3.0, 1.0])
    values = np.array([10.0, 20.0, 40.0, 80.0, 160.0])

    for n in range(1, 6):
        drawn = [
            np.mean([values[i] for i in rows if judge[i] == max(judge[list(rows)])])
            for rows in combinations(range(5), n)
        ]
        # Equals are taken by lot among all there are: the mean over the rows of that score.
        expected = [
            values[judge == max(judge[list(rows)])].mean() for rows in combinations(range(5), n)
        ]
        assert expected_best(judge, values, n) == pytest.approx(np.mean(expected))
        assert np.mean(drawn) == pytest.approx(np.mean(expected))


def test_the_curve_of_a_hacked_judge_rises_for_itself_and_falls_for_the_other():
    prompts, worth, generator = world(6, num_prompts=80, num_rollouts=8)
    hacked = -worth + 0.3 * generator.normal(size=len(worth))

    own = best_of_curve(hacked, hacked, prompts, [1, 2, 4, 8, 16])
    other = best_of_curve(hacked, worth, prompts, [1, 2, 4, 8, 16])

    assert [best.n for best in own] == [1, 2, 4, 8]  # no prompt has 16
    assert own[-1].value.low > own[0].value.high
    assert other[-1].value.high < other[0].value.low
    assert own[0].value.value == pytest.approx(hacked.mean())


def test_agreement_is_high_for_one_that_sees_the_same_and_its_bands_rise():
    prompts, worth, generator = world(7)
    critic = 1 / (1 + np.exp(-worth))
    judge = worth + 0.5 * generator.normal(size=len(worth))
    judge[:5] = np.nan

    told = agreement(judge, critic, prompts)
    noise = agreement(generator.normal(size=len(worth)), critic, prompts)

    assert told.correlation is not None
    assert told.within_prompts is not None
    assert told.correlation.low > 0.7
    assert told.correlation.num_rows == len(worth) - 5
    assert told.within_prompts.low > 0.5
    means = [band.mean.value for band in told.bands if band.mean is not None]
    assert means == sorted(means)
    assert noise.correlation is not None
    assert noise.correlation.low < 0 < noise.correlation.high


def test_ranks_of_equals_are_shared_and_one_who_says_the_same_of_all_agrees_with_nobody():
    assert mean_ranks(np.array([2.0, 1.0, 2.0])).tolist() == [2.5, 1, 2.5]
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([10.0, 20, 30, 5])) == pytest.approx(-0.2)
    assert spearman(np.ones(5), np.arange(5.0)) is None
    assert spearman(np.arange(2.0), np.arange(2.0)) is None


def test_an_interval_widens_by_prompts_and_not_by_their_rollouts():
    generator = np.random.default_rng(8)
    of_prompt = generator.normal(size=20)
    prompts = np.repeat(np.arange(20), 50)
    values = of_prompt[prompts]

    told = estimate(
        lambda weights: float(weights @ values / weights.sum()),
        prompts,
        np.ones(len(values), np.bool_),
    )

    assert told is not None
    assert told.high - told.low > 2 * of_prompt.std() / np.sqrt(20)
    assert (told.num_rows, told.num_prompts) == (1000, 20)


def test_artefacts_are_told_apart():
    noise = np.random.default_rng(9).integers(30, 220, (96, 96, 3), dtype=np.uint8)
    tile = noise[:16, :16]

    assert artefacts_in(noise) == {"flat": 0, "saturated": 0, "repeated": 0}
    assert artefacts_in(np.tile(tile, (6, 6, 1)))["repeated"] == 1
    flat = artefacts_in(np.full((96, 96, 3), 255, np.uint8))
    assert flat == {"flat": 1, "saturated": 1, "repeated": None}
    half = noise.copy()
    half[:48] = 0
    assert artefacts_in(half)["flat"] == 0.5
    assert artefacts_in(noise[:8, :8]) == {"flat": None, "saturated": 0, "repeated": None}
