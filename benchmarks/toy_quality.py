"""Does thinking, drawing and judging help? The toy Janus on held-out prompts, scored exactly.

`python -m benchmarks.toy_quality [--full] [--model NAME]`: the share of attributes right for every
program, with paired intervals; whether the critic tells wrong bands from right ones; what revisions
repair and break. Prints tables for people and, last, one JSON line for machines.
"""

import argparse
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

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

_SEED = 20_000  # of the prompts; far from the training's
_NUM_RESAMPLES = 2000
_NUM_PROCESSES = 2
_LIVE = 128
_VARIANTS: dict[str, tuple[Program, int]] = {  # name: program, revisions
    "plain": (Program.PLAIN, 0),
    "think-before": (Program.THINK_BEFORE, 0),
    "think-after": (Program.THINK_AFTER, 1),
    "think-while": (Program.THINK_WHILE, 0),
    "think-while + 1 revision": (Program.THINK_WHILE, 1),
}
_FIRST_PASS, _REVISED = "think-while", "think-while + 1 revision"


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="toy", help="a bundled name or a folder")
    parser.add_argument("--full", action="store_true", help="300 prompts x 3 seeds")
    parser.add_argument("--prompts", type=int, help="so many prompts instead")
    options = parser.parse_args()
    num_prompts = options.prompts or (300 if options.full else 120)
    num_seeds = 3 if options.full else 2
    result = measure(options.model, num_prompts, num_seeds)
    _show(result)
    print(json.dumps(result))


def measure(model: str, num_prompts: int, num_seeds: int) -> dict[str, Any]:
    """All that the benchmark reports."""
    started = time.monotonic()
    with _opened(model) as pool:
        drawn = draw(pool, _VARIANTS, make_tasks(num_prompts, num_seeds))
        num_bands = 2 * num_prompts
        judged = pool.map(
            _judge_all, [num_bands // _NUM_PROCESSES] * _NUM_PROCESSES, range(_NUM_PROCESSES)
        )
        judgements = [one for part in judged for one in part]
    return {
        "model": model,
        "prompts": num_prompts,
        "seeds": num_seeds,
        "accuracy": accuracies(drawn, num_seeds),
        "repair": repair(drawn[_FIRST_PASS], drawn[_REVISED], num_seeds),
        # The first drawing of think-after is the one of plain, and goes wrong far more often.
        "repair_in_think_after": repair(drawn["plain"], drawn["think-after"], num_seeds),
        "revisions": revisions(drawn[_REVISED]),
        "critic": critic(judgements),
        "seconds": round(time.monotonic() - started, 1),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "commit": _commit(),
    }


def draw_with(model: str, names: Iterable[str], tasks: Sequence[Task]) -> dict[str, list[Drawn]]:
    """What a model draws with these programs of `_VARIANTS`, by their names."""
    with _opened(model) as pool:
        return draw(pool, names, tasks)


def draw(
    pool: ProcessPoolExecutor, names: Iterable[str], tasks: Sequence[Task]
) -> dict[str, list[Drawn]]:
    """Run programs over prompts, spread over the processes."""
    parts = _deal(tasks, _NUM_PROCESSES)
    return {
        name: [one for part in pool.map(_draw_all, [name] * len(parts), parts) for one in part]
        for name in names
    }


def _opened(model: str) -> ProcessPoolExecutor:
    """Processes that have the model open."""
    context = get_context("spawn")
    return ProcessPoolExecutor(
        _NUM_PROCESSES, mp_context=context, initializer=_open, initargs=(model,)
    )


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


# In the worker processes

_backend: list[Any] = []  # this process's, opened once


def _open(model: str) -> None:
    import torch

    from benchmarks.lockstep import Lockstep
    from pipeline.engine.checkpoints import load_janus, resolve_checkpoint

    torch.set_num_threads(1)
    janus = load_janus(resolve_checkpoint(model), dtype=torch.float32, device="cpu")
    _backend.append(Lockstep(janus))


def _draw_all(name: str, tasks: Sequence[Task]) -> list[Drawn]:
    """Run one program over prompts, and score what it draws."""
    program, max_revisions = _VARIANTS[name]
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


# What it comes to


def accuracies(drawn: dict[str, list[Drawn]], num_seeds: int) -> dict[str, Any]:
    """Share of attributes and of whole pictures right; differences to the first pass are paired."""
    base = np.array([one.accuracy for one in drawn[_FIRST_PASS]])
    table = {}
    for name, rows in drawn.items():
        values = np.array([one.accuracy for one in rows])
        table[name] = {
            "attributes": estimate(values, num_seeds),
            "pictures": round(float(np.mean([one.is_right for one in rows])), 4),
            "minus_think_while": estimate(values - base, num_seeds),
        }
    return table


def repair(first: list[Drawn], revised: list[Drawn], num_seeds: int) -> dict[str, Any]:
    """What one revision mends, net of what it breaks, as a share of the rollouts with an error.

    The same prompts and seeds without and with revision. Pairs are resampled by prompt; the share
    that is repaired has the exact binomial interval (Clopper and Pearson, 1934) beside it, since
    resampling says nothing where nearly all are.
    """
    wrong = np.array([not one.is_right for one in first], dtype=float)
    mended = wrong * np.array([one.is_right for one in revised])
    broken = (1 - wrong) * np.array([not one.is_right for one in revised])
    net, per = _by_prompt(mended - broken, num_seeds), _by_prompt(wrong, num_seeds)
    draws = _resamples(len(net))
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = net[draws].sum(1) / per[draws].sum(1)
    return {
        "rollouts": len(first),
        "with_error": int(wrong.sum()),
        "repaired": int(mended.sum()),
        "broken": int(broken.sum()),
        "net_share": round(float(net.sum() / max(1.0, per.sum())), 4),
        "interval": _interval(shares[np.isfinite(shares)]),
        "repaired_interval": _binomial_interval(int(mended.sum()), int(wrong.sum())),
    }


def revisions(revised: list[Drawn]) -> dict[str, Any]:
    """Of all bands: the share drawn again, and what that did to wrong and to right ones."""
    bands = [band for one in revised for band in one.bands]
    again = [band for band in bands if band.is_revised]
    return {
        "bands": len(bands),
        "wrong_at_first": sum(not band.was_right for band in bands),
        "revised": len(again),
        "revised_share": round(len(again) / max(1, len(bands)), 4),
        "repaired": sum(not band.was_right and band.is_right for band in again),
        "broken": sum(band.was_right and not band.is_right for band in again),
        "unparseable": sum(one.num_unparseable for one in revised),
    }


def critic(judgements: list[Judgement]) -> dict[str, Any]:
    """How well scores tell wrong bands from right ones, half and half.

    Wrong bands are half planted and half drawn at CFG 1, as far as those were drawn wrong.
    """
    rng = np.random.default_rng(_SEED)
    usable = [one for one in judgements if one.score is not None]
    groups = {
        (source, wrong): [
            one for one in usable if one.source == source and (one.share_right < 1) == wrong
        ]
        for source in ("planted", "true", "drawn at CFG 1")
        for wrong in (True, False)
    }
    by_chance = groups["drawn at CFG 1", True]
    right = _some(rng, groups["true", False] + groups["drawn at CFG 1", False], len(usable))
    half = min(len(right), len(by_chance) + len(groups["planted", True])) // 2
    wrong_drawn = by_chance[:half]
    wrong = wrong_drawn + groups["planted", True][: 2 * half - len(wrong_drawn)]
    chosen = wrong + right[: len(wrong)]
    scores = np.array([one.score for one in chosen], dtype=float)
    truth = np.array([one.share_right for one in chosen])
    is_wrong = truth < 1
    draws = np.random.default_rng(_SEED).integers(len(chosen), size=(500, len(chosen)))
    resampled = [auroc(-scores[draw], is_wrong[draw]) for draw in draws]
    return {
        "bands": len(chosen),
        "wrong": int(is_wrong.sum()),
        "wrong_drawn_at_cfg_1": len(wrong_drawn),
        "auroc": round(auroc(-scores, is_wrong), 4),
        "auroc_interval": _interval(np.array(resampled)),
        "spearman": round(spearman(scores, truth), 4),
        "wrong_accepted": round(
            float(np.mean([one.verdict is Verdict.ACCEPT for one in wrong])), 4
        ),
        "right_revised": round(
            float(np.mean([one.verdict is Verdict.REVISE for one in right[: len(wrong)]])), 4
        ),
        "drawn_wrong_at_cfg_1": round(
            len(by_chance) / max(1, len(by_chance) + len(groups["drawn at CFG 1", False])), 4
        ),
        "without_score": len(judgements) - len(usable),
    }


Floats = npt.NDArray[np.float64]


def auroc(values: Floats, is_positive: npt.NDArray[np.bool_]) -> float:
    """The chance that a positive has the higher value, ties counted half."""
    positive, negative = int(is_positive.sum()), int((~is_positive).sum())
    if not positive or not negative:
        return float("nan")
    ranks = _ranks(values)
    return float((ranks[is_positive].sum() - positive * (positive + 1) / 2) / (positive * negative))


def spearman(a: Floats, b: Floats) -> float:
    """The rank correlation, ties sharing their mean rank."""
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: Floats) -> Floats:
    """From 1, ties sharing their mean rank."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    ranks: Floats = (last - (counts - 1) / 2)[group]
    return ranks


def _some(rng: np.random.Generator, items: list[Judgement], most: int) -> list[Judgement]:
    return [items[index] for index in rng.permutation(len(items))[:most]]


def estimate(values: Floats, num_seeds: int) -> dict[str, Any]:
    """A mean over rollouts and its 95 % interval, resampled by prompt."""
    by_prompt = _by_prompt(values, num_seeds)
    means = by_prompt[_resamples(len(by_prompt))].mean(1) / num_seeds
    return {"mean": round(float(values.mean()), 4), "interval": _interval(means)}


def _by_prompt(values: Floats, num_seeds: int) -> Floats:
    """Sums over the seeds of each prompt."""
    sums: Floats = values.reshape(-1, num_seeds).sum(1)
    return sums


def _resamples(size: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(_SEED).integers(size, size=(_NUM_RESAMPLES, size))


def _interval(values: Floats) -> list[float]:
    return [round(float(value), 4) for value in np.quantile(values, [0.025, 0.975])]


def _binomial_interval(num_yes: int, number: int) -> list[float]:
    """The exact 95 % interval of a share, by bisection."""

    def tail(share: float, counts: range) -> float:
        return sum(math.comb(number, k) * share**k * (1 - share) ** (number - k) for k in counts)

    def solved(is_below: Callable[[float], bool]) -> float:
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if is_below(middle) else (low, middle)
        return round(low, 4)

    at_least, at_most = range(num_yes, number + 1), range(num_yes + 1)
    return [
        solved(lambda share: tail(share, at_least) < 0.025) if num_yes else 0.0,
        solved(lambda share: tail(share, at_most) > 0.025) if num_yes < number else 1.0,
    ]


def _deal(tasks: Sequence[Task], num_parts: int) -> list[Sequence[Task]]:
    """The tasks in so many runs of about the same length."""
    edges = [len(tasks) * part // num_parts for part in range(num_parts + 1)]
    return [tasks[edges[part] : edges[part + 1]] for part in range(num_parts)]


def _show(result: dict[str, Any]) -> None:
    print(
        f"{result['prompts']} held-out prompts x {result['seeds']} seeds, {result['seconds']} s\n"
    )
    print(f"{'program':<26} {'attributes right':<26} {'pictures':<9} minus think-while")
    for name, row in result["accuracy"].items():
        attributes, difference = _percent(row["attributes"]), _percent(row["minus_think_while"])
        print(f"{name:<26} {attributes:<26} {row['pictures']:<9.1%} {difference}")
    for part in ("repair", "repair_in_think_after", "revisions", "critic"):
        print(f"\n{part}")
        for name, value in result[part].items():
            print(f"  {name:<24} {value}")
    print()


def _percent(estimate: dict[str, Any]) -> str:
    low, high = estimate["interval"]
    return f"{100 * estimate['mean']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
