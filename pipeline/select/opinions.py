"""What judges and the model's own critic say of whole traces: for rewards that compare rollouts
with each other, and for the report of whether selection pleased more than its judges.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.scoring.formulae.aggregates import Aggregate, aggregate
from pipeline.select.columns import DRAW, REFLECT, WHOLE, Floats, SidecarColumns, TraceColumns
from pipeline.select.decide import Candidates
from pipeline.select.shard_candidates import aggregated
from schemas.recipe_names import judge_column
from schemas.recipes import RELATIVE, Judge, Recipe, SetKind
from schemas.scores import parse_scorer
from schemas.trace import Verdict

CRITIC = "critic"
"""The model's own critiques of the drawings that stand, as `own_critic.value` has them."""

_VALUE = "value"
_FULL = 100.0  # the most points that a critique gives
_ARTEFACTS = "artefacts"
_CHECKS = ("flat", "saturated", "repeated")


def judging(judge: Judge) -> tuple[str, ...]:
    """The columns that make `judge.value`, such as `hps.value`."""
    return tuple(map(_column, judge.scorers))


def held_out(judge: Judge) -> tuple[str, ...]:
    """The columns that are held out."""
    return tuple(map(_column, judge.held_out))


def checks(recipe: Recipe) -> tuple[str, ...]:
    """The columns of artefacts, if the recipe pins their scorer."""
    is_checked = any(parse_scorer(scorer).name == _ARTEFACTS for scorer in recipe.scorers)
    return tuple(f"{_ARTEFACTS}.{check}" for check in _CHECKS) if is_checked else ()


def opinion_names(recipe: Recipe) -> tuple[str, ...]:
    """Whose opinions of whole traces are gathered; each once."""
    names: list[str] = []
    if recipe.judge is not None and recipe.is_judged:
        names += [*judging(recipe.judge), *held_out(recipe.judge), *checks(recipe), CRITIC]
    if recipe.groups is not None and recipe.groups.aggregate in RELATIVE:
        names += recipe.groups.rewards
    return tuple(dict.fromkeys(names))


def opinions_of(
    columns: TraceColumns, scores: Mapping[str, SidecarColumns], recipe: Recipe
) -> Floats:
    """[opinions, traces], in the order of `opinion_names`; NaN: none. `scores` are by the names of
    scorers.
    """
    traces, whole = np.arange(len(columns)), np.full(len(columns), WHOLE)
    opinions = np.full((len(opinion_names(recipe)), len(columns)), np.nan)
    for index, name in enumerate(opinion_names(recipe)):
        if name == CRITIC:
            opinions[index] = critic_of(columns)
        else:
            source, _, column = name.partition(".")
            opinions[index] = scores[source].at(column, traces, whole)
    return opinions


def critic_of(columns: TraceColumns) -> Floats:
    """[traces]: from 0 to 1, the mean over the drawings that stand of what the last usable critique
    of each gave; NaN: there is none.
    """
    events, drawings = columns.events, columns.drawings()
    is_critique = (events.role == REFLECT) & (drawings >= 0)
    is_critique &= events.verdict != Verdict.UNPARSEABLE
    points = np.full((len(columns), int(events.index.max(initial=0)) + 1), np.nan)
    points[events.trace[is_critique], drawings[is_critique]] = events.score[is_critique] / _FULL
    stands = np.zeros(points.shape, np.bool_)
    standing = (events.role == DRAW) & ~events.is_replaced
    stands[events.trace[standing], events.index[standing]] = True
    return aggregated(np.where(stands, points, np.nan).T, "mean")


def compared(candidates: Candidates, opinions: Floats, recipe: Recipe) -> Floats:
    """[traces]: the reward that a recipe which compares rollouts ranks by; NaN: none.

    `opinions` [opinions, traces] are of all traces.
    """
    if recipe.judge is not None and recipe.ranks_by_comparing_judges:
        return judge_value(candidates, opinions, recipe, recipe.judge)
    assert recipe.groups is not None
    rewards = _rows_of(recipe.groups.rewards, opinions, recipe)
    return _relative(candidates, rewards, recipe, recipe.groups.aggregate)


def judge_value(candidates: Candidates, opinions: Floats, recipe: Recipe, judge: Judge) -> Floats:
    """[traces]: what the judges say together of whole traces; NaN: nothing."""
    rows = _rows_of(judging(judge), opinions, recipe)
    if judge.aggregate in RELATIVE:
        return _relative(candidates, rows, recipe, judge.aggregate)
    return aggregated(rows, judge.aggregate)


def _rows_of(names: Sequence[str], opinions: Floats, recipe: Recipe) -> Floats:
    known = opinion_names(recipe)
    rows: Floats = opinions[[known.index(name) for name in names]]
    return rows


def _relative(candidates: Candidates, rows: Floats, recipe: Recipe, how: str) -> Floats:
    """Scores [names, traces] as one a trace. A rollout is compared with those of its group, which
    for SFT is its prompt over all runs, or with those of its category.
    """
    records = zip(candidates.run.tolist(), candidates.record.tolist(), strict=True)
    rewards = aggregate(
        Aggregate(how),
        [[None if np.isnan(score) else score for score in scores] for scores in rows.T.tolist()],
        groups=candidates.prompt.tolist() if recipe.kind == SetKind.SFT else list(records),
        categories=candidates.category.tolist(),
    )
    return np.array(rewards, np.float64)  # None becomes NaN


def all_opinions(of_shards: Sequence[Floats]) -> Floats:
    """[opinions, traces] of all objects, one after the other."""
    return np.concatenate(of_shards, axis=1)


def _column(judge: str) -> str:
    scorer, column = judge_column(judge)
    return f"{scorer.partition('@')[0]}.{column}"
