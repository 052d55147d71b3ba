"""Rollouts of the toy Janus on held-out prompts, scored exactly, in processes that have it open."""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np

from pipeline.toy.scenes import (
    NUM_BANDS,
    NUM_WORDINGS,
    Scene,
    Spec,
    codes_of,
    is_held_out,
    prompt_of,
    sample_held_out_spec,
    sample_scene,
    sample_spec,
    spec_of,
    thought_of,
)
from pipeline.toy.scorer import Marks, mark, share_right
from pipeline.toy.teacher import misdrawn
from pipeline.toy.training.lessons import settings_for
from pipeline.toy.views import View, views_of_pixels
from pipeline.twig.drive import Backends, Given, Outcome, Rollout, drive
from pipeline.twig.programs import PROGRAMS, Draft, Running, Settings
from pipeline.twig.programs import plan_regions as plan_bands
from pipeline.twig.requests import Backend, Codes
from schemas.config import Program
from schemas.ids import record_id
from schemas.trace import Event, Role, Verdict

if TYPE_CHECKING:
    from benchmarks.lockstep import Lockstep

_SEED = 20_000  # of the prompts; far from the training's
_NUM_PROCESSES = 2
_LIVE = 128
VARIANTS: dict[str, tuple[Program, int]] = {  # name: program, revisions
    "plain": (Program.PLAIN, 0),
    "think-before": (Program.THINK_BEFORE, 0),
    "think-after": (Program.THINK_AFTER, 1),
    "think-while": (Program.THINK_WHILE, 0),
    "think-while + 1 revision": (Program.THINK_WHILE, 1),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A prompt to draw, and what it says."""

    prompt: str
    spec: Spec
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class BandChange:
    """What became of one band between its first drawing and the last."""

    was_right: bool
    is_right: bool
    is_revised: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """How one rollout came out."""

    accuracy: float  # share of attributes right
    is_right: bool  # all of them
    bands: tuple[BandChange, ...]
    num_unparseable: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What the critic said of a band, beside the truth."""

    source: str  # "planted", "true" or "drawn at CFG 1"
    share_right: float
    score: float | None
    verdict: Verdict


def draw_with(model: str, names: Iterable[str], tasks: Sequence[Task]) -> dict[str, list[Drawn]]:
    """What a model draws with these programs of `VARIANTS`, by their names."""
    with opened(model) as pool:
        return draw(pool, names, tasks)


def draw(
    pool: ProcessPoolExecutor, names: Iterable[str], tasks: Sequence[Task]
) -> dict[str, list[Drawn]]:
    """Run programs over prompts, spread over the processes."""
    parts = _deal(tasks, _NUM_PROCESSES)
    return {
        name: [
            rollout for part in pool.map(_draw_all, [name] * len(parts), parts) for rollout in part
        ]
        for name in names
    }


def opened(model: str) -> ProcessPoolExecutor:
    """Processes that have the model open."""
    context = get_context("spawn")
    return ProcessPoolExecutor(
        _NUM_PROCESSES, mp_context=context, initializer=_open, initargs=(model,)
    )


def judge(pool: ProcessPoolExecutor, num_bands: int) -> list[Judgement]:
    """What the critic says of so many bands of each kind, spread over the processes."""
    shares = [num_bands // _NUM_PROCESSES] * _NUM_PROCESSES
    judged = pool.map(_judge_all, shares, range(_NUM_PROCESSES))
    return [judgement for part in judged for judgement in part]


def make_tasks(num_prompts: int, num_seeds: int) -> list[Task]:
    """Held-out prompts, each with so many seeds, in blocks of a prompt."""
    rng = np.random.default_rng(_SEED)
    specs = [sample_held_out_spec(rng) for _ in range(num_prompts)]
    prompts = [prompt_of(spec, int(rng.integers(NUM_WORDINGS))) for spec in specs]
    return [
        Task(prompt=prompt, spec=spec, seed=seed)
        for prompt, spec in zip(prompts, specs, strict=True)
        for seed in range(num_seeds)
    ]


def _deal(tasks: Sequence[Task], num_parts: int) -> list[Sequence[Task]]:
    """The tasks in so many runs of about the same length."""
    edges = [len(tasks) * part // num_parts for part in range(num_parts + 1)]
    return [tasks[edges[part] : edges[part + 1]] for part in range(num_parts)]


# In the worker processes

_backend: "list[Lockstep]" = []  # this process's, opened once


def _open(model: str) -> None:
    import torch

    from benchmarks.lockstep import Lockstep
    from pipeline.engine.checkpoints import load_janus, resolve_checkpoint

    torch.set_num_threads(1)
    janus = load_janus(resolve_checkpoint(model), dtype=torch.float32, device="cpu")
    _backend.append(Lockstep(janus))


def _draw_all(name: str, tasks: Sequence[Task]) -> list[Drawn]:
    """Run one program over prompts, and score what it draws."""
    program, max_revisions = VARIANTS[name]
    settings = settings_for(program, max_revisions=max_revisions)
    started = time.monotonic()
    outcomes = _run([(task, PROGRAMS[program](task.prompt, settings)) for task in tasks])
    seconds = (time.monotonic() - started) / len(tasks)
    canvases = [_first_and_last(outcome) for outcome in outcomes]
    views = iter(_look_at([codes for pair in canvases for codes in pair]))
    return [
        _score(task, outcome, next(views), next(views), seconds)
        for task, outcome in zip(tasks, outcomes, strict=True)
    ]


def _judge_all(num_bands: int, part: int) -> list[Judgement]:
    """Critiques of bands: true ones, planted mistakes, and what is drawn without guidance."""
    rng = np.random.default_rng([_SEED, part])
    settings = settings_for(Program.THINK_WHILE)
    unguided = _without_guidance(settings)
    cases: list[tuple[str, Scene, int, Task, Running]] = []
    for index in range(3 * num_bands):
        while not is_held_out(spec_of(scene := sample_scene(rng))):
            pass
        band, source = (
            index % NUM_BANDS,
            ("planted", "drawn at CFG 1", "true")[index // NUM_BANDS % 3],
        )
        spec = sample_spec(rng, scene)
        prompt = prompt_of(spec, int(rng.integers(NUM_WORDINGS)))
        task = Task(prompt=prompt, spec=spec_of(scene), seed=index)
        drawn = _true_band(scene, band) if source == "true" else misdrawn(rng, scene, [band])
        shown = None if source == "drawn at CFG 1" else drawn
        program = _judge_band(prompt, unguided, scene, band, shown)
        cases.append((source, scene, band, task, program))
    outcomes = _run([(task, program) for *_, task, program in cases])
    views = _look_at([outcome.codes for outcome in outcomes])
    return [
        _judgement(source, spec_of(scene), band, outcome, view)
        for (source, scene, band, _, _), outcome, view in zip(cases, outcomes, views, strict=True)
    ]


def _judge_band(
    prompt: str, settings: Settings, scene: Scene, band: int, shown: Codes | None
) -> Running:
    """A program that judges one band of a right picture: as given, or as the model draws it."""
    schedule = yield from plan_bands(prompt, settings)
    draft = Draft(prompt, schedule, settings)
    for before in range(band):
        draft.keep(thought_of(scene, before), _true_band(scene, before))
    region, thought = schedule.regions[band], thought_of(scene, band)
    drawn = shown
    if drawn is None:
        drawn = yield from draft.draw(region, thought)
    yield from draft.reflect(region, thought, drawn, 0)
    return draft.codes + drawn


def _run(programs: Sequence[tuple[Task, Running]]) -> list[Outcome]:
    """Run programs side by side; their outcomes in order."""
    backend: Backend = _backend[0]
    backends = Backends({"lockstep": backend}, dict.fromkeys(Role, "lockstep"))
    rollouts = [
        Rollout(
            record_id=record_id(task.prompt),
            rollout_index=task.seed,
            run_seed=0,
            program=program,
            tag=index,
        )
        for index, (task, program) in enumerate(programs)
    ]
    outcomes = sorted(
        drive(Given(rollouts), backends, max_live=_LIVE), key=lambda outcome: outcome.rollout.tag
    )
    for outcome in outcomes:
        if outcome.error:
            raise outcome.error
    return outcomes


def _look_at(canvases: Sequence[Codes]) -> list[View]:
    """What the model's own pictures of these tokens show."""
    return views_of_pixels(np.stack(_backend[0].paint(canvases)))


def _first_and_last(outcome: Outcome) -> tuple[Codes, Codes]:
    """The picture that the first drawings of all bands make, and the finished one."""
    first = [event.codes for event in outcome.events if _is_drawing(event) and not event.revision]
    return tuple(code for codes in first for code in codes), outcome.codes


def _is_drawing(event: Event) -> bool:
    return event.role is Role.DRAW


def _score(task: Task, outcome: Outcome, first: View, last: View, seconds: float) -> Drawn:
    before, after = mark(first, task.spec), mark(last, task.spec)
    revised = {event.region for event in outcome.events if _is_drawing(event) and event.revision}
    verdicts = [event.reflection.verdict for event in outcome.events if event.reflection]
    regions = range(NUM_BANDS) if outcome.schedule and len(outcome.schedule.regions) > 1 else ()
    return Drawn(
        accuracy=share_right(after.all.values()) or 0.0,
        is_right=_all_right(after.all.values()),
        bands=tuple(
            BandChange(
                was_right=_all_right(before.bands[band].values()),
                is_right=_all_right(after.bands[band].values()),
                is_revised=band in revised,
            )
            for band in regions
        ),
        num_unparseable=sum(verdict is Verdict.UNPARSEABLE for verdict in verdicts),
        seconds=seconds,
    )


def _judgement(source: str, spec: Spec, band: int, outcome: Outcome, view: View) -> Judgement:
    marks: Marks = mark(view, spec)
    (reflection,) = [event.reflection for event in outcome.events if event.reflection]
    return Judgement(
        source=source,
        share_right=share_right(marks.bands[band].values()) or 0.0,
        score=reflection.score,
        verdict=reflection.verdict,
    )


def _without_guidance(settings: Settings) -> Settings:
    sampling = settings.method.sampling.model_copy(update={"cfg_weight": 1.0})
    method = settings.method.model_copy(update={"sampling": sampling})
    return Settings(method=method, pack=settings.pack, geometry=settings.geometry)


def _true_band(scene: Scene, band: int) -> Codes:
    codes = codes_of(scene)
    size = len(codes) // NUM_BANDS
    return codes[band * size : (band + 1) * size]


def _all_right(marks: Iterable[bool | None]) -> bool:
    return all(right is not False for right in marks)
