"""The role of the judge in a recipe: who fills it, and `judge.value` as a score like any other."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from pipeline.select.columns import Floats, SidecarColumns, TraceColumns, read_scores
from pipeline.select.shard_candidates import aggregated
from pipeline.store.layout import sidecar_key
from pipeline.store.objects import Store
from schemas.errors import InputError
from schemas.recipe_names import JUDGE, judge_column
from schemas.recipes import RELATIVE, Judge, Recipe
from schemas.scores import parse_scorer

VALUE = "value"
"""The only column of the role."""


def with_judge(recipe: Recipe, scorers: Sequence[str], held_out: Sequence[str] = ()) -> Recipe:
    """The recipe with these in the role of its judge; without any, those that it names itself, or
    the ensemble where it goes by a judge and names none.

    Each is a column such as `toy.value`, or a scorer. Raises InputError for a recipe that goes by
    no judge, and for what can fill no role.
    """
    if not scorers and not held_out:
        is_silent = recipe.is_judged and recipe.judge is None
        return recipe.model_copy(update={"judge": Judge()}) if is_silent else recipe
    if not recipe.is_judged:
        raise InputError(
            f"recipe {recipe.name} goes by no {JUDGE}.{VALUE}, so there is no role that --judge "
            "could fill; leave it away, or give a recipe that does, such as twig-50k"
        )
    named = recipe.judge or Judge()
    try:
        judge = Judge(
            scorers=tuple(scorers) or named.scorers,
            aggregate=named.aggregate,
            held_out=tuple(held_out),
        )
    except ValueError as error:
        raise InputError(f"--judge {' --judge '.join(scorers)}: {_first_line(error)}") from error
    return recipe.model_copy(update={"judge": judge})


def columns_of(judge: Judge) -> dict[str, set[str]]:
    """The columns that make `judge.value`, by the names of their scorers."""
    columns: dict[str, set[str]] = {}
    for scorer, column in map(judge_column, judge.scorers):
        columns.setdefault(scorer.partition("@")[0], set()).add(column)
    return columns


def read_column(
    store: Store, name: str, column: str, recipe: Recipe, columns: TraceColumns
) -> SidecarColumns:
    """The scores that a column such as `toy.value` or `judge.value` names, of the trace object of
    this name. The recipe has its scorers pinned.
    """
    pins = {scorer.name: scorer for scorer in map(parse_scorer, recipe.scorers)}
    source, _, bare = column.partition(".")
    needed = {source: {bare}}
    if source == JUDGE and recipe.judge is not None:
        needed = columns_of(recipe.judge)
    scores = {
        scorer: read_scores(store, sidecar_key(name, pins[scorer]), names, columns)
        for scorer, names in needed.items()
    }
    return scores[source] if source in scores else judged(scores, recipe.judge or Judge())


def judged(scores: Mapping[str, SidecarColumns], judge: Judge) -> SidecarColumns:
    """What the judges' scores make together, of everything that one of them scored.

    `scores` are by the names of scorers, and have each judge's column. Of judges who compare
    rollouts only whether they say anything counts here, and their mean stands for it.
    """
    parts = [judge_column(scorer) for scorer in judge.scorers]
    sidecars = [scores[scorer.partition("@")[0]] for scorer, _ in parts]
    keys = np.unique(np.concatenate([sidecar.keys for sidecar in sidecars]))
    rows: list[Floats] = [
        sidecar.at_keys(column, keys) for sidecar, (_, column) in zip(sidecars, parts, strict=True)
    ]
    how = "mean" if judge.aggregate in RELATIVE else judge.aggregate
    values = aggregated(np.stack(rows), how)
    table = pa.table({VALUE: pa.array(values, from_pandas=True)})  # NaN is null again
    return SidecarColumns(keys=keys, table=table)


def _first_line(error: ValueError) -> str:
    """What a check of pydantic's said, without its frame."""
    messages = [line.strip() for line in str(error).splitlines() if line.startswith("  ")]
    return (
        messages[0].removeprefix("Value error, ").partition(" [type=")[0]
        if messages
        else str(error)
    )
