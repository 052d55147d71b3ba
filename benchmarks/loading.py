"""A model opened by many processes of one machine: seconds, and memory.

`python -m benchmarks.loading FOLDER --actors 4`: each process loads it as an actor does, draws a
few tokens, looks at a picture and says a few words. Then all are measured at once: what each holds
by itself, and what all hold together (the sum of `Pss` in `/proc/PID/smaps_rollup`, which divides a
page among those that map it). `--cold` drops the weights from the page cache first. On the CPU
alone. Prints a table and one JSON line.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from benchmarks.harness import Rows, commit, show

if TYPE_CHECKING:
    from pipeline.engine.engine import Engine

_WEIGHTS = ("*.safetensors", "*.bin")
_NUM_TOKENS = 4


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--actors", type=int, default=4)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--act", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.act:
        _act(options.folder, options.dtype)
        return
    if options.cold:
        _drop_from_cache(options.folder)
    rows = measure(options.folder, options.actors, options.dtype)
    show(
        {"benchmark": "loading", "dtype": options.dtype, "cold": options.cold}
        | rows
        | {"cpus": os.cpu_count(), "commit": commit()}
    )


def measure(folder: Path, num_actors: int, dtype: str) -> Rows:
    """Seconds and memory of so many processes, which load it at the same time."""
    command = [sys.executable, "-m", "benchmarks.loading", str(folder), "--act", "--dtype", dtype]
    actors = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(num_actors)
    ]
    try:
        said = [json.loads(_stream(actor.stdout).readline()) for actor in actors]
        memory = [_memory_of(actor.pid) for actor in actors]
    finally:
        for actor in actors:
            _stream(actor.stdin).close()
            actor.wait()
    weights = sum(path.stat().st_size for path in _weight_files(folder))
    total = sum(part["Pss"] for part in memory)
    return {
        "actors": num_actors,
        "weights_gigabytes": _gigabytes(weights),
        "load_seconds": [line["load_seconds"] for line in said],
        "load_cpu_seconds": [line["load_cpu_seconds"] for line in said],
        "use_seconds": [line["use_seconds"] for line in said],
        "before_loading_gigabytes": [line["before_gigabytes"] for line in said],
        "own_gigabytes": [_gigabytes(part["Pss_Anon"]) for part in memory],
        "peak_gigabytes": [line["peak_gigabytes"] for line in said],
        "all_together_gigabytes": _gigabytes(total),
        "at_most_gigabytes": _gigabytes(1.3 * weights + 1e9 * num_actors),
    }


def _act(folder: Path, dtype: str) -> None:
    """What an actor does. Says how it went, and holds all of it until its input ends."""
    import torch

    from pipeline.engine.checkpoints import load_janus
    from pipeline.engine.engine import Engine
    from pipeline.engine.soundness import check_weights

    torch.set_num_threads(1)
    before = _memory_of(os.getpid())["Pss_Anon"]
    started, started_cpu = time.monotonic(), time.process_time()
    janus = load_janus(folder, dtype=getattr(torch, dtype), device="cpu")
    check_weights(janus.model, folder)  # reads every page
    engine = Engine(janus, max_rows=16, kv_bytes=10**9)
    loaded, loaded_cpu = time.monotonic(), time.process_time()
    _use(engine)
    line = {
        "load_seconds": round(loaded - started, 1),
        "load_cpu_seconds": round(loaded_cpu - started_cpu, 1),
        "use_seconds": round(time.monotonic() - loaded, 1),
        "before_gigabytes": _gigabytes(before),
        "peak_gigabytes": _gigabytes(_peak_bytes()),
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


def _use(engine: "Engine") -> None:
    """Touch every part of the model: a drawing, and words about a picture."""
    from pipeline.twig.requests import Canvas, Message, Text, Visual
    from schemas.trace import Role

    codes = tuple(range(_NUM_TOKENS))
    drawing = Visual(
        role=Role.DRAW,
        temperature=0,
        text="a red cat",
        codes=codes,
        num_tokens=_NUM_TOKENS,
        cfg_weight=5.0,
    )
    question = Text(
        role=Role.REFLECT,
        temperature=0,
        messages=(Message(role="user", text="what is it?"),),
        pictures=(Canvas(codes),),
        max_tokens=_NUM_TOKENS,
    )
    for request_id, request in enumerate((drawing, question)):
        engine.submit(request_id, request)
    num_left = 2
    while num_left:
        num_left -= len(engine.poll())


def _memory_of(pid: int) -> dict[str, int]:
    """Bytes, by the names in `smaps_rollup`."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name.rstrip(":"): int(number) * 1024 for name, number, _ in map(str.split, lines)}


def _peak_bytes() -> int:
    """The most memory that this process has held, mapped files included."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def _drop_from_cache(folder: Path) -> None:
    """Have the weights read from the disk again, unless some process maps them."""
    for path in _weight_files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _weight_files(folder: Path) -> Iterator[Path]:
    return (path for pattern in _WEIGHTS for path in folder.glob(pattern))


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def _gigabytes(num_bytes: float) -> float:
    return round(num_bytes / 1e9, 3)


if __name__ == "__main__":
    main(sys.argv[1:])
