"""Estimates and their 95 % intervals, of figures that a benchmark took."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from benchmarks.harness import Rows

_SEED = 20_000  # of the resampling
_NUM_RESAMPLES = 2000

Floats = npt.NDArray[np.float64]


def auroc(values: Floats, is_positive: npt.NDArray[np.bool_]) -> float:
    """The chance that a positive has the higher value, ties counted half."""
    positive, negative = int(is_positive.sum()), int((~is_positive).sum())
    if not positive or not negative:
        return float("nan")
    ranks = _ranks(values)
    return float((ranks[is_positive].sum() - positive * (positive + 1) / 2) / (positive * negative))


def spearman(a: Floats, b: Floats) -> float:
    """The rank correlation, ties sharing their mean rank."""
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: Floats) -> Floats:
    """From 1, ties sharing their mean rank."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    ranks: Floats = (last - (counts - 1) / 2)[group]
    return ranks


def estimate(values: Floats, num_seeds: int) -> Rows:
    """A mean over rollouts and its 95 % interval, resampled by prompt."""
    by_prompt = sums_by_prompt(values, num_seeds)
    means = by_prompt[resamples(len(by_prompt))].mean(1) / num_seeds
    return {"mean": round(float(values.mean()), 4), "interval": interval_of(means)}


def sums_by_prompt(values: Floats, num_seeds: int) -> Floats:
    """Sums over the seeds of each prompt."""
    sums: Floats = values.reshape(-1, num_seeds).sum(1)
    return sums


def resamples(size: int) -> npt.NDArray[np.int64]:
    """Indices [resamples, size], drawn with replacement; the same at every call."""
    return np.random.default_rng(_SEED).integers(size, size=(_NUM_RESAMPLES, size))


def interval_of(values: Floats) -> list[float]:
    """The middle 95 % of resampled values."""
    return [round(float(value), 4) for value in np.quantile(values, [0.025, 0.975])]


def binomial_interval(num_yes: int, number: int) -> list[float]:
    """The exact 95 % interval of a share (Clopper and Pearson, 1934), by bisection."""

    def tail(share: float, counts: range) -> float:
        return sum(math.comb(number, k) * share**k * (1 - share) ** (number - k) for k in counts)

    def solved(is_below: Callable[[float], bool]) -> float:
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if is_below(middle) else (low, middle)
        return round(low, 4)

    at_least, at_most = range(num_yes, number + 1), range(num_yes + 1)
    return [
        solved(lambda share: tail(share, at_least) < 0.025) if num_yes else 0.0,
        solved(lambda share: tail(share, at_most) > 0.025) if num_yes < number else 1.0,
    ]


def percent(share: Rows) -> str:
    """What `estimate` says of a share, for people."""
    low, high = share["interval"]
    return f"{100 * share['mean']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
