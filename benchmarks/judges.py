"""Pictures a second of each judge, and the share of its time that is spent outside its model.

`python -m benchmarks.judges [--judge NAME ...] [--size tiny|published] [--pictures 32]`: random
weights, made on the spot; speed does not depend on values. Published sizes have the published
geometry with a small vocabulary, and want a GPU and many gigabytes of memory; of judges by CLIP
there are `vit-b16` and `vit-l14`, too, which a CPU can do. Pictures are of 384
by 384 pixels, as Janus draws them. `--dry-run` walks through the same code with two pictures.

Outside of the model are cutting and resizing pictures, tokens, questions, formulae, and copies to
the device and back; inside is what happens between call and return of the model's own modules.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.harness import Rows, environment, show_lines
from benchmarks.judge_checkpoints import BUILDERS, CLIP_JUDGES, CLIPS
from pipeline.scoring.find import find_scorer
from pipeline.scoring.scorers import LoadsWeights, Scorer, ScoringInput, TorchDevice

_SIDE = 384
_PROMPT = "a photo of a red cup and a wooden table"  # every judge has something to ask of it
_NUM_RUNS = 5


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judge", action="append", choices=sorted(BUILDERS), help="all by default")
    parser.add_argument("--size", choices=("tiny", "published", *CLIPS), default="tiny")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1, help="of torch on a CPU")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write judges.json here, too")
    parser.add_argument("--runs", type=int, default=_NUM_RUNS)
    options = parser.parse_args(arguments)
    judges = options.judge or list(CLIP_JUDGES if options.size in CLIPS else BUILDERS)
    if options.size in CLIPS and not set(judges) <= set(CLIP_JUDGES):
        parser.error(f"{options.size} is a CLIP: for {', '.join(CLIP_JUDGES)}")
    torch.set_num_threads(options.threads)
    device: TorchDevice = "cuda" if torch.cuda.is_available() else "cpu"
    num_pictures, num_runs = (2, 1) if options.dry_run else (options.pictures, options.runs)
    rows: Rows = {"benchmark": "judges", "size": options.size, "dtype": options.dtype}
    rows |= {"computed_on": device, "pictures": num_pictures, "threads": options.threads}
    rows |= {"load_average": round(os.getloadavg()[0], 1)} | environment()
    show_lines(rows)
    for name in judges:
        with tempfile.TemporaryDirectory() as folder:
            judge = made(name, options.size, Path(folder), device, options.dtype)
        fresh = {
            f"{name}_{figure}": value
            for figure, value in measured(judge, num_pictures, num_runs, device).items()
        }
        del judge
        show_lines(fresh)
        rows |= fresh
        if options.out:  # as each figure comes: what is cut short has told something
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / "judges.json").write_text(json.dumps(rows, indent=1) + "\n")
    sys.stdout.write(json.dumps(rows) + "\n")


def made(name: str, size: str, folder: Path, device: TorchDevice, dtype: str) -> Scorer:
    """A judge with random weights, read from the folder as it would be."""
    settings = BUILDERS[name](folder, size)
    judge = find_scorer(name, {**settings, "dtype": dtype})
    assert isinstance(judge, LoadsWeights)
    judge.load(device)
    return judge


def measured(judge: Scorer, num_pictures: int, num_runs: int, device: str) -> Rows:
    """The median of several runs, after one to warm up, in which the model's parts are found."""
    with outermost_calls() as parts:
        scores = judge.score(pictures(num_pictures, seed=0))
    outcomes = {str(score.parts.get("outcome")) for score in scores}
    wholes, shares = [], []
    for run in range(num_runs):
        batch = pictures(num_pictures, seed=run + 1)  # others: what was read of these is kept
        with timed_calls(parts, device) as inside:
            started = time.perf_counter()
            judge.score(batch)
            whole = time.perf_counter() - started
        wholes.append(whole)
        shares.append(1 - sum(inside) / whole)
    return {
        "pictures_per_second": round(num_pictures / statistics.median(wholes), 2),
        "share_outside_the_model": round(statistics.median(shares), 3),
        "outcomes": ", ".join(sorted(outcomes)),
    }


def pictures(num: int, *, seed: int) -> list[ScoringInput]:
    """Pictures of noise, all for one prompt."""
    generator = np.random.default_rng(seed)
    return [
        ScoringInput(
            prompt=_PROMPT,
            pixels=generator.integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8),
        )
        for _ in range(num)
    ]


@contextmanager
def outermost_calls() -> Iterator[set[nn.Module]]:
    """The modules that are called from outside any other, as they are found."""
    parts: set[nn.Module] = set()
    depth = [0]

    def enter(module: nn.Module, _: object) -> None:
        if not depth[0]:
            parts.add(module)
        depth[0] += 1

    def leave(*_: object) -> None:
        depth[0] -= 1

    hooks = [
        nn.modules.module.register_module_forward_pre_hook(enter),
        nn.modules.module.register_module_forward_hook(leave),
    ]
    try:
        yield parts
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def timed_calls(parts: set[nn.Module], device: str) -> Iterator[list[float]]:
    """The seconds of each call of these modules; on a GPU what was queued before is waited for.

    Only they are watched, since watching every module would slow a small model down.
    """
    seconds: list[float] = []
    started = [0.0]

    def now() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def enter(*_: object) -> None:
        started[0] = now()

    def leave(*_: object) -> None:
        seconds.append(now() - started[0])

    hooks = [part.register_forward_pre_hook(enter) for part in parts]
    hooks += [part.register_forward_hook(leave) for part in parts]
    try:
        yield seconds
    finally:
        for hook in hooks:
            hook.remove()


if __name__ == "__main__":
    main()
