"""From the scores of several judges to one reward a row. What is missing is left out, and a row
without any score has none: a missing reward must look neither like a bad nor like a perfect one.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TypeAlias

import numpy as np

Scores: TypeAlias = Sequence[float | None]
"""Of one row: a score of each judge, in the same order; None: does not apply."""

Rows: TypeAlias = Sequence[Scores]
Rewards: TypeAlias = list[float | None]

_EPSILON = 1e-4  # T2I-R1's, so that a group without spread has none


class Aggregate(StrEnum):
    """How scores become one reward. By z-score or quantile, a judge of small spread counts too."""

    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    GROUP_ZSCORE_MEAN = "group_zscore_mean"
    CATEGORY_QUANTILE_MEAN = "category_quantile_mean"
    ADVANTAGE = "advantage"


def aggregate(
    method: Aggregate,
    rows: Rows,
    *,
    groups: Sequence[Hashable],
    categories: Sequence[Hashable],
) -> Rewards:
    """One reward a row, whose group (the rollouts of a prompt) and category are given alongside."""
    match method:
        case Aggregate.SUM:
            return _each(rows, sum)
        case Aggregate.MEAN:
            return _each(rows, _mean)
        case Aggregate.MIN:
            return _each(rows, min)
        case Aggregate.GROUP_ZSCORE_MEAN:
            return _each(_by_judge(rows, groups, zscores), _mean)
        case Aggregate.CATEGORY_QUANTILE_MEAN:
            return _each(_by_judge(rows, categories, quantiles), _mean)
        case Aggregate.ADVANTAGE:
            return _within(_each(rows, _mean), groups, zscores)


def zscores(values: Sequence[float]) -> list[float]:
    """(x - mean) / (std + 1e-4), std with n - 1; 0 for one alone."""
    if len(values) == 1:
        return [0.0]
    numbers = np.asarray(values, np.float64)
    return list(map(float, (numbers - numbers.mean()) / (numbers.std(ddof=1) + _EPSILON)))


def quantiles(values: Sequence[float]) -> list[float]:
    """The share that is smaller, and half of that which is equal, itself included; 0 to 1."""
    numbers = np.asarray(values, np.float64)
    ordered = np.sort(numbers)
    smaller = np.searchsorted(ordered, numbers, side="left")
    not_larger = np.searchsorted(ordered, numbers, side="right")
    return list(map(float, (smaller + not_larger) / 2 / len(numbers)))


def published_sum(rows: Sequence[Sequence[float]]) -> list[float]:
    """T2I-R1's reward: the plain sum, of scores that are all there."""
    return [sum(scores) for scores in rows]


def published_advantage(rows: Sequence[Sequence[float]], group_size: int) -> list[float]:
    """T2I-R1's advantage of consecutive groups; not a number in a group of one."""
    sums = np.asarray(published_sum(rows), np.float64).reshape(-1, group_size)
    if group_size == 1:
        return [float("nan")] * sums.size
    spread = sums.std(axis=1, ddof=1, keepdims=True) + _EPSILON
    return list(map(float, ((sums - sums.mean(axis=1, keepdims=True)) / spread).ravel()))


def _each(rows: Rows, reduce: Callable[[list[float]], float]) -> Rewards:
    present = ([score for score in scores if score is not None] for scores in rows)
    return [reduce(scores) if scores else None for scores in present]


def _mean(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores)


def _by_judge(
    rows: Rows,
    classes: Sequence[Hashable],
    change: Callable[[Sequence[float]], list[float]],
) -> list[Rewards]:
    """The rows again, with each judge's scores changed within each class."""
    columns = [_within(column, classes, change) for column in zip(*rows, strict=True)]
    return (
        [list(scores) for scores in zip(*columns, strict=True)] if columns else [[] for _ in rows]
    )


def _within(
    values: Iterable[float | None],
    classes: Sequence[Hashable],
    change: Callable[[Sequence[float]], list[float]],
) -> Rewards:
    """Values changed together with those of their class; None stays None and takes no part."""
    listed = list(values)
    members: Mapping[Hashable, list[int]] = _members(listed, classes)
    changed: Rewards = [None] * len(listed)
    for indices in members.values():
        present = [value for index in indices if (value := listed[index]) is not None]
        for index, value in zip(indices, change(present), strict=True):
            changed[index] = value
    return changed


def _members(
    values: Sequence[float | None], classes: Sequence[Hashable]
) -> dict[Hashable, list[int]]:
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index, (value, label) in enumerate(zip(values, classes, strict=True)):
        if value is not None:
            members[label].append(index)
    return members
