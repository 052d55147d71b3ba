"""What everything around the engine costs: the same rollouts through more and more of Coppice.

`python -m benchmarks.overhead [--full] [--out DIR]` grows rollouts of the toy in four ways, in
turns:

- engine: `drive` over the engine in one process, and nothing is kept;
- worker: one `Worker` in one process, on a local disk;
- ray: `coppice run` with one actor, on a local disk;
- s3: `coppice run` with one actor, on a loopback S3 over the wire, the emulator of the tests.

And `fake`: a `Worker` without a model, whose traces are as large as those of Janus-Pro-7B; and
`idle`: a driver and an actor that do nothing, since threads of Ray's in them work all the time.

All figures but one are CPU time while rollouts grow, which other work on the machine disturbs
least. Starting and ending stand apart, as do Ray's own daemons and threads and the S3 server. The
engine is its calls (`submit`, `poll`, `paint`), counted where they are made; an actor of Ray cannot
be looked into, so there the thread of the models is divided as in `worker`. Prints a table and,
last, one JSON line.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness import Rows, environment, show
from benchmarks.processes import Sampled, run_sampled
from pipeline.toy.scenes import NUM_WORDINGS, prompt_of, sample_scene, sample_spec

LEGS = ("engine", "worker", "idle", "ray", "s3", "fake")
_RATE_7B = 2.3  # rollouts a second of Janus-Pro-7B on one H200: docs/engine.md
_S3_SETTINGS = {
    "AWS_ACCESS_KEY_ID": "an-access-key",
    "AWS_SECRET_ACCESS_KEY": "a-secret-key",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/no/config",
    "AWS_SHARED_CREDENTIALS_FILE": "/no/credentials",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How much is grown in each way: so many rollouts, so many times."""

    rounds: int
    rollouts: int
    shard_rollouts: int


SMALL = Size(rounds=1, rollouts=128, shard_rollouts=64)
FULL = Size(rounds=2, rollouts=1024, shard_rollouts=256)


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """CPU seconds of one way, while rollouts grow where nothing else is said."""

    wall: float  # seconds on the clock
    models: float  # the thread of the models: the engine and `drive`
    engine: float  # of that; 0 where it cannot be told
    rest: float  # the other threads of the worker, and of the process that it is in
    driver: float
    daemons: float  # Ray's
    around: float  # all processes before and after

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(**{name: getattr(self, name) + getattr(other, name) for name in _NAMES})


_NAMES = tuple(Spent.__dataclass_fields__)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="2,048 rollouts in each way")
    parser.add_argument("--legs", nargs="*", choices=LEGS, default=LEGS)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the JSON here, too")
    options = parser.parse_args(arguments)
    size = FULL if options.full else SMALL
    rows = {"benchmark": "overhead"} | measure(size, options.legs) | environment()
    show(rows)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "overhead.json").write_text(json.dumps(rows, indent=1) + "\n")


def measure(size: Size, legs: Sequence[str]) -> Rows:
    """Milliseconds of CPU time a rollout, by way and part, and what share is not the engine's."""
    spent: dict[str, list[Spent]] = {leg: [] for leg in legs}
    with tempfile.TemporaryDirectory(prefix="coppice-overhead-") as name, _s3_server() as endpoint:
        folder = Path(name)
        for number in range(size.rounds):
            prompts = _write_prompts(folder / f"prompts-{number}.txt", number, size.rollouts)
            for leg in legs:
                url = f"s3://bucket/{number}" if leg == "s3" else f"{folder}/{leg}-{number}"
                settings = _S3_SETTINGS | {"AWS_ENDPOINT_URL": endpoint} if leg == "s3" else {}
                if leg != "idle":
                    _plan(prompts, url, leg, size, settings)
                spent[leg].append(_grow(leg, url, folder / "marks", settings))
    return _rows(size, {leg: sum(rest, first) for leg, (first, *rest) in spent.items()})


def _write_prompts(path: Path, seed: int, num_prompts: int) -> Path:
    """So many prompts of the toy's world, no two alike."""
    rng = np.random.default_rng(seed)
    prompts: dict[str, None] = {}
    while len(prompts) < num_prompts:
        spec = sample_spec(rng, sample_scene(rng))
        prompts[prompt_of(spec, int(rng.integers(NUM_WORDINGS)))] = None
    path.write_text("\n".join(prompts) + "\n")
    return path


def _plan(prompts: Path, url: str, leg: str, size: Size, settings: dict[str, str]) -> None:
    options = ["--shard-rollouts", str(size.shard_rollouts), "--set", "execution.num_actors=1"]
    options += ["--backend", "fake"] if leg == "fake" else ["--model", "toy"]
    run_sampled([sys.executable, "-m", "jobs.cli", "plan", str(prompts), url, *options], settings)


def _grow(leg: str, url: str, marks_path: Path, settings: dict[str, str]) -> Spent:
    """Run one way in a process of its own, and say what it took."""
    command = [sys.executable, "-m", "benchmarks.overhead_legs", leg, url, str(marks_path)]
    root, processes = run_sampled(command, settings)
    marks: Rows = json.loads(marks_path.read_text())
    ready, ended = marks["ready"], marks["ended"]
    whole = sum(process.totals[-1] for process in processes.values() if process.totals)
    grown = {pid: process.between(ready, ended) for pid, process in processes.items()}
    on_ray = leg in ("idle", "ray", "s3")
    workers = (
        [pid for pid, process in processes.items() if _is_actor(process)] if on_ray else [root]
    )
    models = sum(processes[pid].busiest_thread(ready, ended) for pid in workers)
    if not on_ray:  # it has counted itself, to the microsecond
        models, grown[root] = marks["models"], marks["all"]
    in_workers = sum(grown[pid] for pid in workers)
    driver = grown[root] if on_ray else 0.0
    return Spent(
        wall=ended - ready,
        models=models,
        engine=marks.get("engine", 0.0),
        rest=in_workers - models,
        driver=driver,
        daemons=sum(grown.values()) - in_workers - driver,
        around=whole - sum(grown.values()),
    )


def _is_actor(process: Sampled) -> bool:
    return "RolloutActor" in process.title


def _rows(size: Size, spent: dict[str, Spent]) -> Rows:
    num_rollouts = size.rounds * size.rollouts
    rows: Rows = {
        "rollouts": num_rollouts,
        "rounds": size.rounds,
        "shard_rollouts": size.shard_rollouts,
    }
    seen = spent.get("worker")
    engine_share = seen.engine / seen.models if seen else 1.0
    idle = spent.pop("idle", None)
    idle_share = (idle.models + idle.rest + idle.driver) / idle.wall if idle else 0.0
    if idle:
        rows["idle_percent_of_a_core"] = round(100 * idle_share, 2)
    for leg, parts in spent.items():
        engine = parts.engine or parts.models * engine_share
        outside = {
            "drive": parts.models - engine,
            "worker": parts.rest,
            "driver": parts.driver,
        }
        if leg in ("ray", "s3"):
            outside["ray"] = -idle_share * parts.wall
        total = sum(outside.values())
        for name, seconds in {"engine": engine, **outside, "outside": total}.items():
            rows[f"{leg}_{name}_ms"] = round(1000 * seconds / num_rollouts, 3)
        if leg == "fake":
            rows["7b_outside_percent_of_a_core"] = round(100 * _RATE_7B * total / num_rollouts, 2)
            rows["7b_drive_percent_of_a_core"] = round(
                100 * _RATE_7B * outside["drive"] / num_rollouts, 2
            )
        else:
            rows[f"{leg}_outside_percent"] = round(100 * total / (total + engine), 2)
        rows[f"{leg}_daemons_ms"] = round(1000 * parts.daemons / num_rollouts, 3)
        rows[f"{leg}_start_and_end_cpu_seconds"] = round(parts.around / size.rounds, 1)
        rows[f"{leg}_rollouts_per_second"] = round(num_rollouts / parts.wall, 2)
    return rows


@contextmanager
def _s3_server() -> Iterator[str]:
    """The endpoint of an S3 on loopback, in a process of its own."""
    code = (
        "import sys\n"
        "from tests.s3.emulator import emulator\n"
        "with emulator() as client:\n"
        "    print(client.meta.endpoint_url, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip()
    finally:
        server.stdin.close()
        server.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
