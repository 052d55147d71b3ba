"""A recipe, checked against its runs and decided: what there is to write, and why.

Reads the slim columns of traces and their scores, no tokens and no pictures, and writes nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from pipeline.select.columns import Flags
from pipeline.select.decide import Candidates, Endings, decide, gather, validation_records
from pipeline.select.funnel import Funnel, lines_of
from pipeline.select.guards import GuardsReport, report_of
from pipeline.select.judging import ShardWork, judge_shard
from pipeline.select.opinions import all_opinions, compared
from pipeline.select.parallel import Spread, ordered_map
from pipeline.select.recipes import CheckedRecipe, check_recipe
from pipeline.select.rollouts import RunKeys, endings_of
from pipeline.select.shard_candidates import Criteria, ShardTraces, reasons_of
from pipeline.store.runs import RunSource
from schemas.errors import InputError
from schemas.recipes import Recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Curation:
    """A recipe, checked against its runs, and decided."""

    runs: tuple[RunSource, ...]  # by their ids
    checked: CheckedRecipe
    candidates: Candidates  # of all objects, decided
    shards: tuple[ShardTraces, ...]  # of each of the objects
    is_validation: Flags  # [traces]
    funnel: Funnel
    guards: GuardsReport | None  # None: nobody judges by a role

    @property
    def recipe(self) -> Recipe:
        return self.checked.criteria.recipe

    @property
    def objects(self) -> list[tuple[int, str]]:
        """The index of its run and the name of every trace object, in order."""
        return _objects(self.runs)


def open_curation(
    runs: Iterable[RunSource],
    recipe: Recipe,
    folder: Path,
    *,
    evaluation: Sequence[str] = (),
    spread: Spread = ordered_map,
) -> Curation:
    """Check the recipe against the runs, judge every row, and decide.

    Paths in the recipe start from the folder. `evaluation` are further files of prompts to leave
    out. `spread` says where objects are judged. Raises InputError for what cannot be had.
    """
    ordered = tuple(sorted(runs, key=lambda run: run.run_id))
    if len({run.run_id for run in ordered}) < len(ordered):
        raise InputError("a run is given twice; give each once")
    checked = check_recipe(recipe, folder, ordered, evaluation)
    candidates, shards = _judged(ordered, checked.criteria, spread)
    opinions = all_opinions([shard.opinions for shard in shards])
    if checked.criteria.recipe.compares_rollouts:
        candidates.rank[:] = compared(candidates, opinions, checked.criteria.recipe)
    is_validation = validation_records(
        candidates.record, candidates.prompt, recipe.seed, recipe.split.validation
    )
    keys = _keys_of_runs(ordered, shards)
    endings = endings_of(ordered, keys, candidates) if recipe.groups is not None else None
    num_dead = sum(keys_of_run.num_dead() for keys_of_run in keys)
    count = partial(
        Funnel.of, candidates, is_validation, num_objects=len(shards), num_dead=num_dead
    )
    funnel = _decided(candidates, recipe, is_validation, endings, count)
    return Curation(
        runs=ordered,
        checked=checked,
        candidates=candidates,
        shards=shards,
        is_validation=is_validation,
        funnel=funnel,
        guards=report_of(candidates, opinions, checked.criteria.recipe),
    )


def _decided(
    candidates: Candidates,
    recipe: Recipe,
    is_validation: Flags,
    endings: Endings | None,
    count: Callable[[], Funnel],
) -> Funnel:
    """Decide, and count. Raises InputError, with what was counted, for a mix that the rows left
    cannot fill, and for a set of nothing.
    """
    try:
        decide(candidates, recipe, is_validation, endings)
    except InputError as error:
        lines = [f"{error}; without the mix:", *lines_of(count())]
        raise InputError("\n".join(lines)) from error
    funnel = count()
    if not funnel.num_rows_kept:
        told = f"recipe {recipe.name} leaves no rows, so there is no set to make; "
        lines = [f"{told}loosen its rules, or grow more traces:", *lines_of(funnel)]
        raise InputError("\n".join(lines))
    return funnel


def _judged(
    runs: Sequence[RunSource], criteria: Criteria, spread: Spread
) -> tuple[Candidates, tuple[ShardTraces, ...]]:
    """All candidates, and the traces of each object. The objects' own rows end here: they would
    take their memory twice.
    """
    objects = _objects(runs)
    work = (ShardWork(url=runs[run].store.url, name=name) for run, name in objects)
    shards = list(spread(partial(judge_shard, criteria), work))
    run_indices = [run_index for run_index, _ in objects]
    candidates = gather(shards, run_indices, reasons_of(criteria.recipe))
    return candidates, tuple(shard.traces for shard in shards)


def _keys_of_runs(runs: Sequence[RunSource], shards: Sequence[ShardTraces]) -> list[RunKeys]:
    """The rollouts of each run: of its objects, which stand one run after the other."""
    stops = np.cumsum([0, *(len(run.objects) for run in runs)]).tolist()
    return [RunKeys.of(shards[start:stop]) for start, stop in pairwise(stops)]


def _objects(runs: Sequence[RunSource]) -> list[tuple[int, str]]:
    return [
        (run_index, source.name) for run_index, run in enumerate(runs) for source in run.objects
    ]
