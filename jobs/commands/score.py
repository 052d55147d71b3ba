"""What `coppice score` does, on Ray Data: one task a trace object, one loaded scorer an actor."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from jobs.commands.terminal import Terminal, as_typed, counted
from pipeline.scoring.scorers import Scorer, find_scorer, id_of
from pipeline.scoring.sidecars import score_object
from pipeline.store.layout import scores_folder
from pipeline.store.open import open_store
from pipeline.store.runs import RunSource, open_run, unscored


class _Batch(TypedDict):
    """What a task is given: arrays of one entry each."""

    scorer: npt.NDArray[np.str_]  # as the user named it
    object: npt.NDArray[np.int64]  # index into the run's trace objects


class _Counts(TypedDict):
    """What a task gives back."""

    num_rows: list[int]  # scores made, by entry of the batch


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
        scored = [
            score_object(self._store, self._run.objects[int(index)], self._scorer(str(name)))
            for name, index in zip(batch["scorer"], batch["object"], strict=True)
        ]
        return {"num_rows": [sidecar.num_rows if sidecar.is_new else 0 for sidecar in scored]}

    def _scorer(self, name: str) -> Scorer:
        if name not in self._scorers:
            self._scorers[name] = find_scorer(name)
        return self._scorers[name]


def _score_on_ray(
    run: RunSource, work: Sequence[tuple[str, int]], *, num_workers: int, num_gpus: float
) -> int:
    """Score the objects; the number of scores made."""
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
    return sum(int(row["num_rows"]) for row in counts.iter_rows())
