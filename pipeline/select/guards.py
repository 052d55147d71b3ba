"""Did selection please more than its judges? A report beside the funnel, of recipes with a judge.

Of very many prompts some are looked at, by lot. An interval is that of 95 % over redrawn prompts.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal

import numpy as np

from pipeline.scoring.formulae.guards import (
    Agreement,
    BestOf,
    Gain,
    Prompts,
    agreement,
    best_of_curve,
    selection_gain,
)
from pipeline.select.columns import Flags, Floats, Ints
from pipeline.select.decide import Candidates
from pipeline.select.opinions import CRITIC, checks, held_out, judge_value, judging, opinion_names
from schemas.config import Frozen
from schemas.recipe_names import JUDGE
from schemas.recipes import Recipe, SetKind

_TOGETHER = f"{JUDGE}.value"
_MOST_PROMPTS = 1000
_CRITIC_EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_FIFTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

Part = Literal["together", "judge", "held_out", "check", "critic"]


class Opinion(Frozen):
    """What one says of whole traces, before selection and of those that are kept."""

    name: str  # such as hps.value
    part: Part  # the judges together, one of them, one held out, an artefact check, or the critic
    gain: Gain | None  # None: nothing is kept that has a score of it


class AgreementOf(Frozen):
    """How far two agree. The bands are those of `other`: fifths of the critic's scale, and of
    anybody else fifths of the traces.
    """

    judge: str
    other: str
    agreement: Agreement


class BestOfCurve(Frozen):
    """What `told_by` says of the rollout that the judges together like best of n."""

    told_by: str
    points: tuple[BestOf, ...]


class GuardsReport(Frozen):
    """As `guards.json` has it. Traces are the ok ones of the runs."""

    num_prompts: int
    num_prompts_looked_at: int  # by lot
    num_traces_looked_at: int
    opinions: tuple[Opinion, ...]
    agreements: tuple[AgreementOf, ...]
    best_of: tuple[BestOfCurve, ...]


def report_of(candidates: Candidates, opinions: Floats, recipe: Recipe) -> GuardsReport | None:
    """The report of decided candidates; None for a recipe without a judge.

    `opinions` are [opinions, traces], in the order of `opinion_names`.
    """
    judge = recipe.judge
    if judge is None or not recipe.is_judged or not len(candidates.record):
        return None
    told = dict(zip(opinion_names(recipe), opinions, strict=True))
    told = {_TOGETHER: judge_value(candidates, opinions, recipe, judge)} | told
    looked_at = _by_lot(candidates)
    told = {name: values[looked_at] for name, values in told.items()}
    _, inverse = np.unique(candidates.prompt[looked_at], return_inverse=True)
    prompts = inverse.astype(np.int64)
    kept = _kept(candidates, recipe)[looked_at]
    listed: tuple[tuple[Part, tuple[str, ...]], ...] = (
        ("together", (_TOGETHER,)),
        ("judge", judging(judge)),
        ("held_out", held_out(judge)),
        ("check", checks(recipe)),  # also where they are held out
        ("critic", (CRITIC,)),
    )
    parts = {name: part for part, names in listed for name in names}
    return GuardsReport(
        num_prompts=len(np.unique(candidates.prompt)),
        num_prompts_looked_at=int(prompts.max()) + 1,
        num_traces_looked_at=len(prompts),
        opinions=tuple(
            Opinion(name=name, part=part, gain=selection_gain(told[name], prompts, kept))
            for name, part in parts.items()
        ),
        agreements=_agreements(told, parts, prompts),
        best_of=_curves(told, parts, prompts),
    )


def _by_lot(candidates: Candidates) -> Ints:
    """The traces of so many prompts at most. Keys are digests, so the lowest come by lot."""
    keys = np.unique(candidates.prompt)[:_MOST_PROMPTS]
    return np.flatnonzero(candidates.prompt <= keys[-1])


def _kept(candidates: Candidates, recipe: Recipe) -> Flags:
    """[traces]: whether the set has rows of it; of pairs of traces only the better one counts."""
    kept = candidates.has_kept_rows()
    if recipe.kind == SetKind.PREFERENCE:
        is_worse = np.zeros_like(kept)
        is_worse[candidates.partner[candidates.partner >= 0]] = True
        kept &= ~is_worse
    return kept


def _agreements(
    told: Mapping[str, Floats], parts: Mapping[str, Part], prompts: Prompts
) -> tuple[AgreementOf, ...]:
    """Of the judges and those held out with each other, and of all of them with the critic."""
    single = [name for name, part in parts.items() if part in ("judge", "held_out")]
    pairs = [*combinations(single, 2), *((name, CRITIC) for name in (_TOGETHER, *single))]
    return tuple(
        AgreementOf(
            judge=judge,
            other=other,
            agreement=agreement(
                told[judge],
                told[other],
                prompts,
                edges=_CRITIC_EDGES if other == CRITIC else _fifths(told[judge], told[other]),
            ),
        )
        for judge, other in pairs
        if np.isfinite(told[judge] + told[other]).any()
    )


def _fifths(judge: Floats, other: Floats) -> Sequence[float]:
    """Where the fifths of the other's scores begin and end; fewer where many are equal."""
    known = other[np.isfinite(judge) & np.isfinite(other)]
    edges: list[float] = np.unique(np.quantile(known, _FIFTHS)).tolist()
    return edges if len(edges) > 1 else [edges[0], edges[0]]


def _curves(
    told: Mapping[str, Floats], parts: Mapping[str, Part], prompts: Prompts
) -> tuple[BestOfCurve, ...]:
    """By the judges together, for 1, 2, 4 and so on, as far as any prompt has rollouts."""
    most = int(np.bincount(prompts).max())
    sizes = sorted({2**power for power in range(most.bit_length())} | {most})
    curves = (
        BestOfCurve(
            told_by=name,
            points=tuple(best_of_curve(told[_TOGETHER], told[name], prompts, sizes)),
        )
        for name, part in parts.items()
        if part in ("together", "held_out")
    )
    return tuple(curve for curve in curves if curve.points)
