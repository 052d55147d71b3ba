"""The engine against the plain loop, and against what the hardware could do.

`python -m benchmarks.engine cpu`: the embedded model, 64 rollouts at once, the engine and the plain
loop of the published method (`Reference`: batch 1, dynamic cache) in turns, on the same prompts.

`python -m benchmarks.engine gpu STAGE`: stages `kernels`, `7b` and `1b`, on a GPU, with random
weights in the published geometries and forced lengths; speed does not depend on values. It needs
torch, transformers and Triton, and no checkpoint. `--dry-run` walks through the same code in small,
on whatever there is. Each prints a table for people and, last, one JSON line for machines.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import gpu
from benchmarks.harness import Rows, environment, show, show_lines

if TYPE_CHECKING:
    from pipeline.twig.programs import Settings
    from pipeline.twig.requests import Backend

_NUM_RUNS = 5
_COLOURS = ("red", "green", "blue", "yellow")
_SHAPES = ("circle", "square", "triangle")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    cpu = kinds.add_parser("cpu")
    cpu.add_argument("--model", default="toy")
    cpu.add_argument("--rollouts", type=int, default=64)
    cpu.add_argument("--runs", type=int, default=_NUM_RUNS)
    on_gpu = kinds.add_parser("gpu")
    on_gpu.add_argument("stage", choices=sorted(gpu.STAGES))
    on_gpu.add_argument("--dry-run", action="store_true")
    on_gpu.add_argument("--out", type=Path, metavar="DIR", help="write the JSON here, too")
    options = parser.parse_args(arguments)
    if options.kind == "cpu":
        rows = measure_cpu(options.model, options.rollouts, options.runs)
        show({"benchmark": "engine-cpu"} | rows | environment())
    else:
        measure_gpu(options.stage, dry_run=options.dry_run, out=options.out)


def measure_gpu(stage: str, *, dry_run: bool, out: Path | None) -> None:
    """Show and keep each figure as it comes: what is cut short has told something."""
    if dry_run:
        os.environ.setdefault("TRITON_INTERPRET", "1")  # the kernel, without a GPU
    rows: Rows = {"benchmark": f"engine-{stage}"} | environment()
    show_lines(rows)
    for fresh in gpu.STAGES[stage](dry_run=dry_run):
        show_lines(fresh)
        rows |= fresh
        if out:
            out.mkdir(parents=True, exist_ok=True)
            (out / f"engine-{stage}.json").write_text(json.dumps(rows, indent=1) + "\n")
    sys.stdout.write(json.dumps(rows) + "\n")


def measure_cpu(model: str, num_rollouts: int, num_runs: int) -> Rows:
    """Rollouts per second of both, the median of their ratios, and how far from the floor."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from pipeline.engine.checkpoints import load_janus, resolve_checkpoint
    from pipeline.engine.engine import Engine
    from pipeline.engine.reference import Reference

    torch.set_num_threads(1)  # as an actor on one CPU has it
    folder = resolve_checkpoint(model)
    settings = settings_of(model)
    ours, plain = (load_janus(folder, dtype=torch.float32, device="cpu") for _ in range(2))
    reference = Reference(plain)
    with FlopCounterMode(display=False) as counter:
        grow(reference, settings, 4)
    operations = counter.get_total_flops() / 4 * num_rollouts
    grow(Engine(ours), settings, num_rollouts)  # warm up
    pairs = []
    for run in range(num_runs):
        ours_spent = _spent(Engine(ours), settings, num_rollouts, run)
        # The plain loop knows no batch: its time for fewer rollouts tells that for all.
        share = max(1, num_rollouts // 4)
        plain_spent = _spent(reference, settings, share, run)
        pairs.append((ours_spent, [seconds * num_rollouts / share for seconds in plain_spent]))
    engine_seconds = statistics.median(ours_spent[0] for ours_spent, _ in pairs)
    plain_seconds = statistics.median(plain_spent[0] for _, plain_spent in pairs)
    rate = gpu.matrix_rate(torch.device("cpu"), torch.float32, size=1024)
    return {
        "model": model,
        "rollouts_at_once": num_rollouts,
        "runs": num_runs,
        "engine_rollouts_per_second": round(num_rollouts / engine_seconds, 2),
        "plain_rollouts_per_second": round(num_rollouts / plain_seconds, 2),
        "times_faster": round(statistics.median(p[0] / e[0] for e, p in pairs), 2),
        "times_faster_in_cpu_time": round(statistics.median(p[1] / e[1] for e, p in pairs), 2),
        "gigaflop_per_rollout": round(operations / num_rollouts / 1e9, 2),
        "matrix_gigaflop_per_second": round(rate / 1e9, 1),
        "times_the_floor": round(engine_seconds * rate / operations, 2),
        "threads": 1,
    }


def _spent(
    backend: "Backend", settings: "Settings", num_rollouts: int, seed: int
) -> tuple[float, float]:
    """Seconds on the clock and, for when others use the machine, of CPU time."""
    started = time.process_time()
    seconds = grow(backend, settings, num_rollouts, seed=seed)
    return seconds, time.process_time() - started


def settings_of(model: str) -> "Settings":
    """The settings of a run of a bundled model, as `coppice run` would have them."""
    from pipeline.plan.configs import resolve
    from pipeline.plan.packs import load_pack
    from pipeline.twig.programs import Settings

    resolved = resolve({"method": {"model": model}})
    pack = load_pack(resolved.config.method.pack.name)
    return Settings(method=resolved.config.method, pack=pack, geometry=resolved.facts.geometry)


def grow(backend: "Backend", settings: "Settings", num_rollouts: int, *, seed: int = 0) -> float:
    """Seconds that so many rollouts take, all of them live at once."""
    from pipeline.twig.drive import Backends, Given, Rollout, drive
    from pipeline.twig.programs import PROGRAMS
    from schemas.trace import Role

    program = PROGRAMS[settings.method.program]
    objects = [f"{colour} {shape}" for colour in _COLOURS for shape in _SHAPES]
    prompts = [
        f"a {left} left of a {right}" for left in objects for right in objects if left != right
    ]
    rollouts = [
        Rollout(
            record_id=f"{index:016x}",
            rollout_index=0,
            run_seed=seed,
            program=program(prompts[(1009 * seed + 17 * index) % len(prompts)], settings),
        )
        for index in range(num_rollouts)
    ]
    backends = Backends({"measured": backend}, dict.fromkeys(Role, "measured"))
    started = time.perf_counter()
    for outcome in drive(Given(rollouts), backends, max_live=num_rollouts):
        if outcome.error:
            raise outcome.error
    return time.perf_counter() - started


if __name__ == "__main__":
    main(sys.argv[1:])
