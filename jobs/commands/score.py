"""What `coppice score` does, on Ray Data: one task a trace object, one loaded scorer an actor."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from jobs.commands.job_folder import check_outlives_job
from jobs.commands.terminal import Terminal, as_typed, counted
from pipeline.scoring.find import find_scorer
from pipeline.scoring.scorers import Scorer, id_of
from pipeline.scoring.sidecars import score_object
from pipeline.store.layout import scores_folder
from pipeline.store.open import open_store
from pipeline.store.runs import RunSource, open_run, unscored
from schemas.errors import InputError


class _Batch(TypedDict):
    """What a task is given: arrays of one entry each."""

    scorer: npt.NDArray[np.str_]  # as the user named it
    object: npt.NDArray[np.int64]  # index into the run's trace objects


class _Counts(TypedDict):
    """What a task gives back."""

    num_rows: list[int]  # scores made, by entry of the batch
    failure: list[str]  # why none was made; empty: all is well


def score_run(
    url: str,
    names: Sequence[str],
    terminal: Terminal,
    *,
    num_workers: int,
    num_gpus: float,
    address: str | None,
) -> None:
    """Make the sidecars that are missing. Every scorer is found before any of them works.

    `num_gpus` is the share that each of `num_workers` actors takes. Raises InputError.
    """
    check_outlives_job(url)
    scorers = {name: id_of(find_scorer(name)) for name in names}
    run = open_run(url)
    work = [
        (name, index)
        for name, scorer in scorers.items()
        for index in sorted(run.objects.index(source) for source in unscored(run, scorer))
    ]
    if work:
        from jobs.cluster.connect import on_ray

        with on_ray(address):
            num_rows = _score_on_ray(run, work, num_workers=num_workers, num_gpus=num_gpus)
        terminal.say(f"Made {counted(len(work), 'sidecar')} with {counted(num_rows, 'score')}.")
    for scorer in scorers.values():
        terminal.say(f"Scored by {scorer}: {as_typed(url)}/{scores_folder(scorer)}/*.parquet")


class Scoring:
    """One actor's: opens the run once, and each scorer once."""

    def __init__(self, url: str) -> None:
        self._store = open_store(url)
        self._run = open_run(url)
        self._scorers: dict[str, Scorer] = {}

    def __call__(self, batch: _Batch) -> _Counts:
        counts: _Counts = {"num_rows": [], "failure": []}
        for name, index in zip(batch["scorer"], batch["object"], strict=True):
            source, failure, num_rows = self._run.objects[int(index)], "", 0
            try:
                sidecar = score_object(self._store, source, self._scorer(str(name)))
                num_rows = sidecar.num_rows if sidecar.is_new else 0
            except InputError as error:  # told as itself: Ray would wrap it in its own
                failure = str(error)
            counts["num_rows"].append(num_rows)
            counts["failure"].append(failure)
        return counts

    def _scorer(self, name: str) -> Scorer:
        if name not in self._scorers:
            self._scorers[name] = find_scorer(name)
        return self._scorers[name]


def _score_on_ray(
    run: RunSource, work: Sequence[tuple[str, int]], *, num_workers: int, num_gpus: float
) -> int:
    """Score the objects; the number of scores made. Raises InputError for what a scorer gave."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    items = [{"scorer": name, "object": index} for name, index in work]
    counts = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        Scoring,
        fn_constructor_args=(run.store.url,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(num_workers, len(items))),
        num_cpus=1,
        num_gpus=num_gpus,
    )
    num_rows = 0
    for row in counts.iter_rows():
        if row["failure"]:
            raise InputError(row["failure"])
        num_rows += int(row["num_rows"])
    return num_rows
