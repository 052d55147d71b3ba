"""Does curating matter? The loop from traces to a better model, in the toy's world.

`python -m benchmarks.loop`: from the toy as it was after 30 % of its training, roll out on 1,000
training prompts, score, curate, fine-tune, and draw held-out prompts: before, after the uncurated
set, and after the curated set. All arms have the same traces, number of rows at most, steps, seeds
and prompts; differences are paired. `--full` fine-tunes with 3 seeds. Prints a table and one JSON
line. The uncurated set has every row whose critique could be read; the curated one is
`twig-50k-toy`.

The settings of `examples/sft_toy.py` were chosen by 120 other held-out prompts, of another seed;
but for the number of steps, which go three times through the curated rows, and were a third of that
in a first measurement.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks.estimates import estimate, percent
from benchmarks.harness import Rows, commit
from benchmarks.toy_rollouts import Drawn, draw_with, make_tasks
from examples.sft_toy import fine_tune
from pipeline.toy.model import write_early
from pipeline.toy.prompts import training_prompts

_PROGRAMS = ("think-while", "think-while + 1 revision")
_SCORERS = ("toy", "thoughts", "critiques", "tokens", "phash", "prompt_filter")
_PROMPT_SEED = 30_000
_UNCURATED = """
name = "uncurated"
about = "All rows, whatever they are worth, in the proportions of TWIG-50K."
scorers = ["toy@1"]
[split]
validation = 0.0
[mix]
weights = { think = 17, reflect = 17, draw = 16 }
"""

Arms = dict[str, dict[str, list[Drawn]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="3 seeds of fine-tuning")
    parser.add_argument("--prompts", type=int, default=1000, help="to roll out on")
    parser.add_argument("--held-out", type=int, default=120, help="to draw in the end")
    parser.add_argument("--steps", type=int, default=600, help="of fine-tuning")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="coppice-loop-") as folder:
        result = measure(
            Path(folder),
            num_prompts=options.prompts,
            num_held_out=options.held_out,
            num_steps=options.steps,
            num_seeds=3 if options.full else 1,
        )
    show(result)
    sys.stdout.write(json.dumps(result) + "\n")


def measure(
    folder: Path, *, num_prompts: int, num_held_out: int, num_steps: int, num_seeds: int
) -> Rows:
    """Go once around, and compare."""
    started = time.monotonic()
    start = folder / "start"
    write_early(start)
    sets = make_sets(folder, start, num_prompts)
    tasks = make_tasks(num_held_out, 2)
    arms: Arms = {"before": draw_with(str(start), _PROGRAMS, tasks)}
    jobs = {
        name: [
            Job(start=start, training_set=training_set, tuned=folder / f"{name}-{seed}", seed=seed)
            for seed in range(num_seeds)
        ]
        for name, (training_set, _) in sets.items()
    }
    fine_tune_all([job for arm_jobs in jobs.values() for job in arm_jobs], num_steps)
    for name, arm_jobs in jobs.items():
        drawn: dict[str, list[Drawn]] = {program: [] for program in _PROGRAMS}
        for job in arm_jobs:
            for program, rows in draw_with(str(job.tuned), _PROGRAMS, tasks).items():
                drawn[program] += rows
        arms[name] = drawn
    return {
        "prompts": num_prompts,
        "rows": {name: num_rows for name, (_, num_rows) in sets.items()},
        "steps": num_steps,
        "fine_tuning_seeds": num_seeds,
        "held_out": num_held_out,
        "accuracy": compare(arms),
        "seconds": round(time.monotonic() - started),
        "cpus": os.cpu_count(),
        "commit": commit(),
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A fine-tuning."""

    start: Path
    training_set: Path
    tuned: Path  # the checkpoint to write
    seed: int


def fine_tune_all(jobs: Sequence[Job], num_steps: int) -> None:
    """Two at a time, a thread each: faster than one after the other on two threads."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(_fine_tune, jobs, [num_steps] * len(jobs)))


def _fine_tune(job: Job, num_steps: int) -> None:
    import torch

    torch.set_num_threads(1)
    fine_tune(str(job.start), job.training_set, job.tuned, num_steps=num_steps, seed=job.seed)


def make_sets(folder: Path, start: Path, num_prompts: int) -> dict[str, tuple[Path, int]]:
    """Roll out, score and curate as a user would; the sets and how many rows each has."""
    prompts, run = folder / "prompts.jsonl", folder / "run"
    rows = training_prompts(num_prompts, seed=_PROMPT_SEED)
    prompts.write_text("\n".join(json.dumps(row) for row in rows))
    grow = ("--model", str(start), "--dtype", "float32", "--pictures", "all")
    _coppice("run", str(prompts), str(run), *grow)
    _coppice("score", str(run), *(word for name in _SCORERS for word in ("--scorer", name)))
    uncurated = folder / "uncurated.toml"
    uncurated.write_text(_UNCURATED)
    sets = {}
    for name, recipe in (("uncurated", str(uncurated)), ("curated", "twig-50k-toy")):
        training_set = folder / f"set-{name}"
        _coppice("curate", str(run), str(training_set), "--recipe", recipe)
        sets[name] = training_set, _num_rows(training_set)
    return sets


def _coppice(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "jobs.cli", *arguments], check=True, stdout=subprocess.DEVNULL
    )


def _num_rows(training_set: Path) -> int:
    import pyarrow.parquet as pq

    return sum(
        pq.read_metadata(path).num_rows for path in training_set.glob("sft/*/train-*.parquet")
    )


def compare(arms: Arms) -> Rows:
    """Accuracy in each arm, and how much better it is than before and than uncurated."""
    table: Rows = {}
    for program in _PROGRAMS:
        num_rollouts = len(arms["before"][program])
        accuracy = {  # of each rollout, the mean over the seeds of fine-tuning
            name: np.array([rollout.accuracy for rollout in drawn[program]])
            .reshape(-1, num_rollouts)
            .mean(0)
            for name, drawn in arms.items()
        }
        table[program] = {
            name: {
                "attributes": estimate(values, 2),
                "minus_before": estimate(values - accuracy["before"], 2),
                "minus_uncurated": estimate(values - accuracy["uncurated"], 2),
            }
            for name, values in accuracy.items()
        }
    return table


def show(result: Rows) -> None:
    """A table for people."""
    line = "{:<26}{:<12}{:<26}{:<26}{}\n"
    sys.stdout.write(line.format("program", "arm", "attributes", "minus before", "minus uncurated"))
    for program, arms in result["accuracy"].items():
        for name, row in arms.items():
            cells = [percent(row[column]) for column in row]
            sys.stdout.write(line.format(program, name, *cells))
    for name in ("prompts", "rows", "steps", "fine_tuning_seeds", "held_out", "seconds"):
        sys.stdout.write(f"{name}: {result[name]}\n")


if __name__ == "__main__":
    main()
