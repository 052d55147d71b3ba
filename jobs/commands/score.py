"""What `coppice score` does, on Ray Data: one task a trace object, for all scorers that lack it,
and the scorers loaded once an actor.
"""

import gc
import logging
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from jobs.commands.job_folder import check_outlives_job
from jobs.commands.live.line import Fact, Progress
from jobs.commands.terminal import ProgressLine, Terminal, as_typed, counted
from pipeline.plan.configs import read_config_file
from pipeline.plan.endpoints import endpoint_of
from pipeline.scoring.asking import is_out_of_memory
from pipeline.scoring.find import describe_failure, find_in, find_scorer
from pipeline.scoring.judges.remote.settings import with_endpoints
from pipeline.scoring.painting import RunPainter
from pipeline.scoring.scorers import LoadsWeights, Scorer, TorchDevice, id_of, settings_of
from pipeline.scoring.settings import requests_for
from pipeline.scoring.sidecars import Scored, score_together
from pipeline.store.layout import scores_folder
from pipeline.store.open import open_store
from pipeline.store.runs import RunSource, open_run, unscored
from schemas import errors
from schemas.errors import CoppiceError, EndpointAway, InputError, RolloutError, StoreError
from schemas.json_values import JsonObject
from schemas.scores import ScorerId


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRequest:
    """What the user asked for, unchecked."""

    run: str  # URL
    scorers: Sequence[str]  # perhaps with settings in brackets
    config: str | None  # a TOML file with [scorers.NAME] tables
    num_workers: int  # actors
    num_gpus: float  # the share that each of them takes
    address: str | None  # of a Ray cluster


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedScorer:
    """A scorer that was found and checked, with settings that mean the same everywhere."""

    name: str
    settings: JsonObject | None
    id: ScorerId

    def load(self, device: TorchDevice) -> Scorer:
        """The scorer with its weights. Raises InputError, and what torch raises without memory."""
        scorer = find_scorer(self.name, self.settings, is_pinned=True)
        if isinstance(scorer, LoadsWeights):
            if device == "cuda":
                from pipeline.engine.soundness import torch_device

                torch_device("gpu", f"--gpus, for {self.id}", platform.node())
            scorer.load(device)
        return scorer


class _Batch(TypedDict):
    """What a task is given: arrays of one entry each."""

    object: npt.NDArray[np.int64]  # index into the run's trace objects
    scorers: npt.NDArray[np.object_]  # of each an array of indices into the planned scorers


class _Counts(TypedDict):
    """What a task gives back."""

    num_scores: list[int]  # by entry of the batch
    num_sidecars: list[int]
    failure: list[str]  # why none was made; empty: all is well
    kind: list[str]  # the class of that error


def plan_scorers(request: ScoreRequest) -> list[PlannedScorer]:
    """The scorers asked for, each once. Every one is found and checked. Raises InputError."""
    planned: dict[ScorerId, PlannedScorer] = {}
    tables = read_config_file(request.config) if request.config is not None else {}
    wanted = requests_for(request.scorers, request.config)
    for asked in with_endpoints(wanted, partial(endpoint_of, tables)):
        scorer = find_scorer(asked.name, asked.settings)
        settings = settings_of(scorer)
        as_told: JsonObject | None = None if settings is None else settings.model_dump(mode="json")
        own = PlannedScorer(name=asked.name, settings=as_told, id=id_of(scorer))
        before = planned.setdefault(own.id, own)
        if before.name.partition("@")[0] != asked.name.partition("@")[0]:
            raise InputError(
                f"{before.name} and {asked.name} both call themselves {before.id}, so that their "
                "scores would stand in one folder; give one of them another name or version"
            )
    return list(planned.values())


def score_run(
    request: ScoreRequest, terminal: Terminal, planned: Sequence[PlannedScorer] = ()
) -> None:
    """Make the sidecars that are missing. Every scorer is found before any of them works, unless
    the caller planned them. Raises InputError.
    """
    check_outlives_job(request.run)
    scorers = planned or plan_scorers(request)
    run = open_run(request.run)
    work: dict[int, list[int]] = {}
    for number, scorer in enumerate(scorers):
        for source in unscored(run, scorer.id):
            work.setdefault(run.objects.index(source), []).append(number)
    if work:
        with terminal.progress("starting Ray") as line:
            from jobs.cluster.connect import on_ray

            with on_ray(request.address):
                num_sidecars, num_scores = _score_on_ray(run, scorers, work, request, line)
        terminal.say(
            f"Made {counted(num_sidecars, 'sidecar')} with {counted(num_scores, 'score')}."
        )
    for scorer in scorers:
        folder = scores_folder(scorer.id)
        terminal.say(f"Scored by {scorer.id}: {as_typed(request.run)}/{folder}/*.parquet")


class Scoring:
    """One actor's: opens the run once, and loads each scorer once, as long as they fit."""

    def __init__(
        self, url: str, scorers: Sequence[PlannedScorer], device: TorchDevice, folder: str
    ) -> None:
        """`folder` is where the command was given, and modules of one's own may lie."""
        find_in(folder)
        self._store = open_store(url)
        self._run = open_run(url)
        self._planned, self._device = scorers, device
        self._painter = RunPainter(self._run.manifest, device)
        self._loaded: dict[int, Scorer] = {}

    def __call__(self, batch: _Batch) -> _Counts:
        counts: _Counts = {"num_scores": [], "num_sidecars": [], "failure": [], "kind": []}
        for index, numbers in zip(batch["object"], batch["scorers"], strict=True):
            num_scores, num_sidecars, failure, kind = 0, 0, "", ""
            try:
                num_scores, num_sidecars = self._score(int(index), [int(n) for n in numbers])
            except CoppiceError as error:  # told as itself: Ray would wrap it in its own
                is_theirs = isinstance(error, RolloutError)  # a scorer that breaks its promises
                failure, kind = (
                    str(error),
                    InputError.__name__ if is_theirs else type(error).__name__,
                )
            counts["num_scores"].append(num_scores)
            counts["num_sidecars"].append(num_sidecars)
            counts["failure"].append(failure)
            counts["kind"].append(kind)
        return counts

    def _score(self, index: int, numbers: list[int]) -> tuple[int, int]:
        """How many scores and sidecars these scorers made of a trace object."""
        num_scores = num_sidecars = 0
        while numbers:
            fitting = self._load_what_fits(numbers)
            for scored in self._score_by(index, fitting):
                num_scores += scored.num_rows if scored.is_new else 0
                num_sidecars += scored.is_new
            numbers = [number for number in numbers if number not in fitting]
        return num_scores, num_sidecars

    def _score_by(self, index: int, fitting: Sequence[int]) -> list[Scored]:
        """Holds the scorers no longer than it works: then others may take their memory."""
        scorers = [self._loaded[number] for number in fitting]
        return score_together(self._store, self._run.objects[index], scorers, self._painter)

    def _load_what_fits(self, numbers: Sequence[int]) -> list[int]:
        """Those of the scorers, in order, that are in memory together now. At least one.

        What is in memory is used first; if nothing of it is wanted and the first that is finds no
        place, all others make way.
        """
        fitting = [number for number in numbers if number in self._loaded]
        for number in numbers:
            if number in fitting:
                continue
            failure = self._try_load(number)
            if failure and not fitting and self._loaded:
                self._loaded.clear()
                free_memory()
                failure = self._try_load(number)
            if failure and not fitting:
                raise InputError(
                    f"{self._planned[number].id} does not fit into memory on {platform.node()} "
                    f"({failure}); give its actors more with --gpus, or choose a smaller dtype"
                )
            if failure:
                return fitting
            fitting.append(number)
        return fitting

    def _try_load(self, number: int) -> str:
        """Load a scorer. Why it did not fit; empty: it is there."""
        failure = ""
        try:
            self._loaded[number] = self._planned[number].load(self._device)
        except CoppiceError:
            raise
        except (
            Exception,
            SystemExit,
        ) as error:  # of a user's code, or of the many that weights pass through
            failure = describe_failure(error)
            if not is_out_of_memory(error):
                raise InputError(
                    f"{self._planned[number].id} cannot be loaded: {failure}"
                ) from error
        if failure:
            free_memory()
        return failure


def free_memory() -> None:
    """Give back what no object holds any more."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def progress_of(num_done: int, num_objects: int, num_scores: int) -> Progress:
    """How far scoring is, in trace objects."""
    facts = [Fact(text=counted(num_scores, "score"))]
    return Progress(noun="shards scored", num_done=num_done, num_all=num_objects, facts=facts)


def _score_on_ray(
    run: RunSource,
    scorers: Sequence[PlannedScorer],
    work: dict[int, list[int]],
    request: ScoreRequest,
    line: ProgressLine,
) -> tuple[int, int]:
    """Score the objects; how many sidecars and scores were made. Raises the first error that a
    task tells.
    """
    import ray.data

    num_there = ray.cluster_resources().get("GPU", 0)
    if request.address is None and num_there < request.num_gpus:  # a cluster may grow
        raise InputError(
            f"asked for {request.num_gpus:g} GPUs an actor, and this machine has {num_there:g}; "
            "leave --gpus away to score on CPUs, or name a cluster with --address"
        )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # importing it put a handler of its own
    items = [{"object": index, "scorers": work[index]} for index in sorted(work)]
    device: TorchDevice = "cuda" if request.num_gpus else "cpu"
    counts = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        Scoring,
        fn_constructor_args=(run.store.url, tuple(scorers), device, os.getcwd()),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(request.num_workers, len(items))),
        num_cpus=1,
        num_gpus=request.num_gpus,
    )
    num_sidecars = num_scores = 0
    line.doing("loading scorers")
    for num_done, row in enumerate(counts.iter_rows(), start=1):
        if row["failure"]:
            raise _error_of(row["kind"], row["failure"])
        num_sidecars += int(row["num_sidecars"])
        num_scores += int(row["num_scores"])
        line.show(progress_of(num_done, len(items), num_scores))
    return num_sidecars, num_scores


def _error_of(kind: str, message: str) -> CoppiceError:
    """The error that a task told of: of its own class, so that it has its exit code."""
    error_class = getattr(errors, kind)
    is_plain = issubclass(error_class, InputError | StoreError | EndpointAway)
    return error_class(message) if is_plain else CoppiceError(message)
