"""Does selection please more than its judge? Statistics over scores, with intervals over prompts.

A judge that is gone by is pleased by what is kept, whatever that is worth. What it is worth shows
on a judge that is held out. Rollouts of a prompt are alike, so prompts and not rollouts are drawn
again for an interval (percentile bootstrap, Efron 1979).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import comb
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.scoring.formulae.phrases import FloatArray

Prompts: TypeAlias = npt.NDArray[np.int64]
"""Of each row the number of its prompt, any."""

Flags: TypeAlias = npt.NDArray[np.bool_]

Classes: TypeAlias = npt.NDArray[np.intp]

Statistic: TypeAlias = Callable[[FloatArray], float | None]
"""A number of rows, by how often each counts [rows]: so rows are drawn again without a copy."""

FEW_PROMPTS = 20
"""Intervals of fewer prompts are too narrow."""

_NUM_DRAWS = 1000
_LEVEL = 0.95
_LEAST_ROWS = 3  # for a correlation


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A number, and the interval in which 95 % of the numbers of redrawn prompts lie."""

    value: float
    low: float
    high: float
    num_rows: int
    num_prompts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """What one judge says where another says `low` to `high`, the upper end excluded."""

    low: float
    high: float
    mean: Estimate | None  # None: no row lies there


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How far two judges agree. None: too few rows, or one of them always says the same."""

    correlation: Estimate | None  # Spearman's, over all rows
    within_prompts: Estimate | None  # over each prompt's own rollouts, the mean of the prompts
    bands: tuple[Band, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Gain:
    """The mean of a judge before and after selection."""

    before: Estimate
    after: Estimate
    gain: Estimate  # after less before
    within_prompts: Estimate | None  # what is kept of a prompt, less all of it


@dataclass(frozen=True, kw_only=True, slots=True)
class BestOf:
    """What a judge is expected to say of the best of `n` rollouts of a prompt."""

    n: int
    value: Estimate


def agreement(
    judge: FloatArray,
    other: FloatArray,
    prompts: Prompts,
    *,
    edges: Sequence[float] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    seed: int = 0,
) -> Agreement:
    """How far a judge agrees with another, such as a critic; [rows] each, NaN where it is silent.

    `edges` are those of the bands of the other's scores; the last band has its upper end, too.
    """
    told = np.isfinite(judge) & np.isfinite(other)
    judge, other, prompts = judge[told], other[told], prompts[told]
    bands = []
    for low, high in pairwise(edges):
        is_last = high == edges[-1]
        inside = (other >= low) & ((other < high) | (is_last & (other == high)))
        bands.append(
            Band(low=low, high=high, mean=estimate(_mean_of(judge), prompts, inside, seed=seed))
        )
    everywhere = np.ones(len(judge), np.bool_)
    of_prompts = [spearman(judge[rows], other[rows]) for rows in _rows_by_prompt(prompts)]
    return Agreement(
        correlation=estimate(_rank_correlation(judge, other), prompts, everywhere, seed=seed),
        within_prompts=_over_prompts(of_prompts, seed=seed),
        bands=tuple(bands),
    )


def spearman(a: FloatArray, b: FloatArray) -> float | None:
    """Spearman's rank correlation of two judges' finite scores, equal ones at their mean rank.

    None for less than three rows, or where one judge says the same of all.
    """
    return _rank_correlation(a, b)(np.ones(len(a)))


def mean_ranks(values: FloatArray) -> FloatArray:
    """Ranks from 1; equal values share the mean of theirs."""
    return _ranks(_classes(values), np.ones(len(values)))


def _rank_correlation(a: FloatArray, b: FloatArray) -> Statistic:
    """`spearman` of rows that count several times, or not at all. Values are sorted but once."""
    classes_a, classes_b = _classes(a), _classes(b)

    def correlation(weights: FloatArray) -> float | None:
        total = float(weights.sum())
        if total < _LEAST_ROWS:
            return None
        ranks_a, ranks_b = _ranks(classes_a, weights), _ranks(classes_b, weights)
        ranks_a -= float(weights @ ranks_a) / total
        ranks_b -= float(weights @ ranks_b) / total
        spread = float(weights @ ranks_a**2) * float(weights @ ranks_b**2)
        if not spread:
            return None
        return float(np.clip(float(weights @ (ranks_a * ranks_b)) / np.sqrt(spread), -1, 1))

    return correlation


def _classes(values: FloatArray) -> Classes:
    """Of each value [n] its number among the different ones, from the smallest."""
    return np.unique(values, return_inverse=True)[1]


def _ranks(classes: Classes, weights: FloatArray) -> FloatArray:
    """`mean_ranks` [n] of values that count `weights` [n] times."""
    of_class = np.bincount(classes, weights=weights)
    ranks: FloatArray = (np.cumsum(of_class) - of_class / 2 + 0.5)[classes]
    return ranks


def selection_gain(
    scores: FloatArray, prompts: Prompts, kept: Flags, *, seed: int = 0
) -> Gain | None:
    """What selection gained on a judge; [rows] each, NaN where it is silent.

    The gain holds both that good prompts were kept and that the good rollouts of a prompt were;
    `within_prompts` holds the second alone. None where nothing was kept that has a score.
    """
    told = np.isfinite(scores)
    scores, prompts, kept = scores[told], prompts[told], kept[told]
    everywhere = np.ones(len(scores), np.bool_)
    mean = _mean_of(scores)

    def gain(weights: FloatArray) -> float | None:
        after, before = mean(weights * kept), mean(weights)
        return None if after is None or before is None else after - before

    before = estimate(mean, prompts, everywhere, seed=seed)
    after = estimate(mean, prompts, kept, seed=seed)
    whole = estimate(gain, prompts, everywhere, seed=seed)
    if before is None or after is None or whole is None:
        return None
    of_prompts = [
        float(scores[rows][kept[rows]].mean() - scores[rows].mean())
        for rows in _rows_by_prompt(prompts)
        if kept[rows].any()
    ]
    return Gain(
        before=before, after=after, gain=whole, within_prompts=_over_prompts(of_prompts, seed=seed)
    )


def best_of_curve(
    judge: FloatArray,
    held_out: FloatArray,
    prompts: Prompts,
    sizes: Sequence[int],
    *,
    seed: int = 0,
) -> list[BestOf]:
    """What the held-out judge says of the rollout that the judge likes best of n, for each n.

    Exact over all ways to draw n rollouts of a prompt, with equals taken by lot; over the prompts
    that have as many. A curve that rises for the judge and falls for the held-out one is a judge
    that is being pleased. [rows] each; rows where one of both is silent are left out.
    """
    told = np.isfinite(judge) & np.isfinite(held_out)
    judge, held_out, prompts = judge[told], held_out[told], prompts[told]
    members = _rows_by_prompt(prompts)
    curve: list[BestOf] = []
    for n in sizes:
        of_prompts = [
            expected_best(judge[rows], held_out[rows], n) for rows in members if len(rows) >= n
        ]
        value = _over_prompts(of_prompts, seed=seed)
        if value is not None:
            curve.append(BestOf(n=n, value=value))
    return curve


def expected_best(judge: FloatArray, values: FloatArray, n: int) -> float:
    """The expected value of the row that the judge likes best of `n` drawn without putting back."""
    num_ways = comb(len(judge), n)
    expected = 0.0
    num_below = 0
    for score in np.unique(judge):
        equals = judge == score
        num_up_to = num_below + int(equals.sum())
        share = (comb(num_up_to, n) - comb(num_below, n)) / num_ways  # the best is one of these
        expected += share * float(values[equals].mean())
        num_below = num_up_to
    return expected


def estimate(
    statistic: Statistic, prompts: Prompts, chosen: Flags, *, seed: int = 0
) -> Estimate | None:
    """A statistic of the chosen rows, with its interval over redrawn prompts. None where it is."""
    value = statistic(chosen.astype(np.float64))
    if value is None:
        return None
    rows = np.flatnonzero(chosen)
    _, own = np.unique(prompts[rows], return_inverse=True)
    num_prompts = int(own.max(initial=-1)) + 1
    generator = np.random.default_rng(seed)
    weights = np.zeros(len(chosen))
    redrawn = []
    for _ in range(_NUM_DRAWS):
        drawn = generator.integers(num_prompts, size=num_prompts)
        weights[rows] = np.bincount(drawn, minlength=num_prompts)[own]
        again = statistic(weights)
        if again is not None:
            redrawn.append(again)
    low, high = _interval(redrawn or [value])
    return Estimate(value=value, low=low, high=high, num_rows=len(rows), num_prompts=num_prompts)


def _rows_by_prompt(prompts: Prompts) -> list[npt.NDArray[np.int64]]:
    """The rows of each prompt, in order."""
    order = np.argsort(prompts, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(prompts[order])) + 1) if len(order) else []


def _over_prompts(of_prompts: Sequence[float | None], *, seed: int) -> Estimate | None:
    """The mean of one number a prompt, without those that have none."""
    numbers = np.array([number for number in of_prompts if number is not None], np.float64)
    return mean_of_classes([numbers], seed=seed) if len(numbers) else None


def mean_of_classes(classes: Sequence[FloatArray], *, seed: int = 0) -> Estimate:
    """The mean over classes of prompts, each of which counts the same, of one number a prompt.

    For the interval prompts are drawn again within their class. [prompts] each, none empty.
    """
    generator = np.random.default_rng(seed)
    redrawn = np.zeros(_NUM_DRAWS)
    for numbers in classes:
        drawn = generator.integers(len(numbers), size=(_NUM_DRAWS, len(numbers)))
        redrawn += numbers[drawn].mean(axis=1)
    low, high = _interval(redrawn / len(classes))
    num_prompts = sum(map(len, classes))
    return Estimate(
        value=float(np.mean([numbers.mean() for numbers in classes])),
        low=low,
        high=high,
        num_rows=num_prompts,
        num_prompts=num_prompts,
    )


def _interval(redrawn: Sequence[float] | FloatArray) -> tuple[float, float]:
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(np.asarray(redrawn, np.float64), [tail, 1 - tail])
    return float(low), float(high)


def _mean_of(values: FloatArray) -> Statistic:
    def mean(weights: FloatArray) -> float | None:
        total = float(weights.sum())
        return float(weights @ values) / total if total else None

    return mean
