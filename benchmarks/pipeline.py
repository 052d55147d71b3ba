"""Everything but the model: plan, run and read back real numbers of traces, with the fake backend.

`python -m benchmarks.pipeline [PROMPTS...]`: 384-pixel pictures of realistic entropy, 576 tokens, a
lossless WebP each, on a local Ray and a local disk. Prints a table for people and, last, one JSON
line for machines. Without prompts it makes 5,559 of its own, as many as T2I-CompBench trains on.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import Rows, commit

_SAMPLE_SECONDS = 0.5
_NUM_PROMPTS = 5559


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompts", nargs="*")
    parser.add_argument("--keep", metavar="DIR", help="put the run here and keep it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="coppice-bench-") as scratch:
        prompts = options.prompts or [_make_prompts(Path(scratch))]
        result = measure(prompts, options.keep or f"{scratch}/run")
    for name, value in result.items():
        print(f"{name:<34} {value}")
    print(json.dumps(result))


def measure(prompts: list[str], run: str) -> Rows:
    """Plan, run and status, each as a user would call it. Times are of whole processes."""
    fake = ["--backend", "fake"]
    plan_seconds, _ = _timed(["plan", *prompts, run, *fake])
    run_seconds, memory = _timed(["run", run])
    status_seconds, _ = _timed(["status", run])
    status = json.loads(_coppice("status", run, "--json"))
    sizes = [path.stat().st_size for path in Path(run, "traces").iterdir()]
    half = len(memory) // 2
    return {
        "traces": status["num_ok"],
        "dead": status["num_dead"],
        "missing": status["num_missing"],
        "shards": status["num_shards"],
        "plan_seconds": round(plan_seconds, 2),
        "run_seconds": round(run_seconds, 2),
        "status_seconds": round(status_seconds, 2),
        "traces_per_second": round(status["num_ok"] / run_seconds, 1),
        "kilobytes_per_trace": round(sum(sizes) / status["num_ok"] / 1000, 1),
        "driver_megabytes_first_half": round(max(memory[:half], default=0) / 1e6, 1),
        "driver_megabytes_second_half": round(max(memory[half:], default=0) / 1e6, 1),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "commit": commit(),
    }


def _timed(arguments: list[str]) -> tuple[float, list[int]]:
    """Seconds of one command, and its memory in bytes, sampled."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "jobs.cli", *arguments])
    memory = list(_sampled(process))
    seconds = time.monotonic() - started
    if process.returncode:
        raise SystemExit(f"coppice {' '.join(arguments)} ended with {process.returncode}")
    return seconds, memory


def _sampled(process: "subprocess.Popen[bytes]") -> Iterator[int]:
    while process.poll() is None:
        time.sleep(_SAMPLE_SECONDS)
        statm = Path(f"/proc/{process.pid}/statm")
        if statm.exists() and (fields := statm.read_text().split()):
            yield int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def _coppice(*arguments: str) -> bytes:
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", *arguments], check=True, stdout=subprocess.PIPE
    ).stdout


def _make_prompts(folder: Path) -> str:
    path = folder / "prompts.txt"
    lines = (f"a photograph of scene number {index}" for index in range(_NUM_PROMPTS))
    path.write_text("\n".join(lines))
    return str(path)


if __name__ == "__main__":
    main()
