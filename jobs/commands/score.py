"""Scoring a run, on Ray Data: one task a trace object, one loaded scorer an actor.

`ray job submit --working-dir . -- python -m jobs.commands.score RUN --scorer NAME` is
`coppice score` on the cluster that the job runs in.
"""

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from jobs.commands.terminal import as_typed, counted
from pipeline.scoring.scorers import find_scorer, id_of
from pipeline.scoring.sidecars import score_object
from pipeline.store.open import open_store
from pipeline.store.runs import RunSource, open_run, unscored


def score_run(
    url: str,
    names: Sequence[str],
    console: Console,
    *,
    num_workers: int,
    num_gpus: float,
    address: str | None,
) -> None:
    """Make the sidecars that are missing. Every scorer is found before any of them works."""
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
        _say(console, f"Made {counted(len(work), 'sidecar')} with {counted(num_rows, 'score')}.")
    for scorer in scorers.values():
        _say(console, f"Scored by {scorer}: {as_typed(url)}/scores/{scorer}/*.parquet")


class Scoring:
    """One actor's: opens the run once, and each scorer once."""

    def __init__(self, url: str) -> None:
        self._store = open_store(url)
        self._run = open_run(url)
        self._scorers: dict[str, Any] = {}

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        scored = [
            score_object(self._store, self._run.objects[int(index)], self._scorer(str(name)))
            for name, index in zip(batch["scorer"], batch["object"], strict=True)
        ]
        return {
            "key": [one.key for one in scored],
            "num_rows": [one.num_rows if one.is_new else 0 for one in scored],
        }

    def _scorer(self, name: str) -> Any:
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
    made = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        Scoring,
        fn_constructor_args=(run.store.url,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(num_workers, len(items))),
        num_cpus=1,
        num_gpus=num_gpus,
    )
    return sum(int(row["num_rows"]) for row in made.iter_rows())


def _say(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)


if __name__ == "__main__":
    from jobs.cli import main

    sys.argv[1:1] = ["score"]
    main()
