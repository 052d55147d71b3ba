"""A recipe, checked against its runs and decided: what there is to write, and why.

Reads the slim columns of traces and their scores, no tokens and no pictures, and writes nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.select.candidates import make_part
from pipeline.select.columns import Flags
from pipeline.select.decide import Candidates, decide, gather, validation_records
from pipeline.select.funnel import Funnel
from pipeline.select.parallel import in_order
from pipeline.select.recipes import Checked, check
from pipeline.select.shard_candidates import Part
from pipeline.store.runs import RunSource
from schemas.errors import InputError
from schemas.recipes import Recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Curation:
    """A recipe, checked against its runs, and decided."""

    runs: tuple[RunSource, ...]
    checked: Checked
    found: Candidates
    parts: tuple[Part, ...]
    is_validation: Flags  # of each trace
    funnel: Funnel

    @property
    def recipe(self) -> Recipe:
        return self.checked.job.recipe

    @property
    def objects(self) -> list[tuple[int, str]]:
        """The run and name of every trace object, in order."""
        return _objects(self.runs)


def open_curation(
    runs: Iterable[RunSource],
    recipe: Recipe,
    folder: Path,
    *,
    evaluation: Sequence[str] = (),
    num_workers: int = 1,
) -> Curation:
    """Check the recipe against the runs, judge every row, and decide. Reads no tokens and no
    pictures, and writes nothing. Raises InputError for what cannot be had.
    """
    ordered = tuple(sorted(runs, key=lambda run: run.run_id))
    if len({run.run_id for run in ordered}) < len(ordered):
        raise InputError("a run is given twice; give each once")
    checked = check(recipe, folder, ordered, evaluation)
    work = [(checked.job, ordered[run].store.url, name) for run, name in _objects(ordered)]
    parts = tuple(in_order(make_part, work, num_workers))
    found = gather(parts, [run for run, _ in _objects(ordered)], checked.job)
    for part in parts:
        part.forget_rows()
    decide(found, checked.job, [run.manifest.plan.rollouts_per_record for run in ordered])
    is_validation = validation_records(found.record, recipe.seed, recipe.split.validation)
    return Curation(
        runs=ordered,
        checked=checked,
        found=found,
        parts=parts,
        is_validation=is_validation,
        funnel=Funnel.of(found, parts, is_validation),
    )


def _objects(runs: Sequence[RunSource]) -> list[tuple[int, str]]:
    return [(place, one.name) for place, run in enumerate(runs) for one in run.objects]
