"""What whole traces are ranked by: scores, what several judges say together, and rewards that
compare rollouts with each other.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import TypeAlias

import numpy as np

from tests.recompute.prompt_forms import loose_form
from tests.recompute.reading import JUDGE, Row, Run, Score, category_of, combined, is_ok

Ranks: TypeAlias = dict[tuple[str, str], float]
"""By run and trace; NaN: none."""

COMPARED = ("group_zscore_mean", "category_quantile_mean")


def ranks_of(runs: Sequence[Run], recipe: Row) -> Ranks:
    """Of every ok trace."""
    columns, how = _ranked_by(recipe)
    traces = [(run, trace) for run in runs for trace in run.rows() if is_ok(trace)]
    rows = [
        [_number(run.score(column, trace["trace_id"], None)) for column in columns]
        for run, trace in traces
    ]
    if how in COMPARED:
        classes = [_class_of(run, trace, recipe, how) for run, trace in traces]
        change = _zscores if how == "group_zscore_mean" else _quantiles
        parts = [_within(part, classes, change) for part in zip(*rows, strict=True)]
        rows, how = [list(row) for row in zip(*parts, strict=True)], "mean"
    ranks = [combined([value for value in row if not math.isnan(value)], how) for row in rows]
    return {
        (run.run_id, trace["trace_id"]): _number(rank)
        for (run, trace), rank in zip(traces, ranks, strict=True)
    }


def compares(recipe: Row) -> bool:
    """Whether ranks say how a rollout fares among others."""
    return _ranked_by(recipe)[1] in COMPARED


def _ranked_by(recipe: Row) -> tuple[list[str], str]:
    """The columns, and how they become one."""
    columns, how = [], "mean"
    if recipe["per_prompt"] and recipe["per_prompt"]["by"]:
        columns = [recipe["per_prompt"]["by"]]
    elif recipe["pairs"]:
        columns = [recipe["pairs"]["by"]]
    elif recipe["groups"]:
        columns, how = recipe["groups"]["rewards"], recipe["groups"]["aggregate"]
    judge = recipe.get("judge")
    if judge and judge["aggregate"] in COMPARED and columns == [JUDGE]:
        return [Run.judging(name) for name in judge["scorers"]], judge["aggregate"]
    return columns, how


def _number(score: Score) -> float:
    return math.nan if score is None else float(score)


def _class_of(run: Run, trace: Row, recipe: Row, how: str) -> Hashable:
    """Whom a rollout is compared with: all of its category, or those of its group."""
    if how == "category_quantile_mean":
        return category_of(trace)
    if recipe["kind"] == "sft":
        return loose_form(trace["prompt"])
    return run.run_id, trace["record_id"]


def _within(
    values: Sequence[float],
    classes: Sequence[Hashable],
    change: Callable[[list[float]], list[float]],
) -> list[float]:
    """Values, each changed beside those of its class; NaN stays NaN, and takes no part."""
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index, value in enumerate(values):
        if not math.isnan(value):
            members[classes[index]].append(index)
    changed = [math.nan] * len(values)
    for indices in members.values():
        for index, value in zip(indices, change([values[i] for i in indices]), strict=True):
            changed[index] = value
    return changed


def _zscores(values: list[float]) -> list[float]:
    if len(values) == 1:
        return [0.0]
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return [(value - mean) / (spread + 1e-4) for value in values]


def _quantiles(values: list[float]) -> list[float]:
    """The share that is smaller, and half of that which is equal."""
    numbers = np.array(values)
    return [
        float(((numbers < value).sum() + (numbers <= value).sum()) / 2 / len(values))
        for value in values
    ]
