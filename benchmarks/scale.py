"""How a run grows: calls and memory a shard, a start at scale, and a long run killed twice.

`python -m benchmarks.scale shards`: plans of 1,000, 10,000 and 100,000 shards; what a worker asks
of the store for one shard, and what a driver holds at most once all of them are committed (each in
a process of its own; the data objects are links to one file). `python -m benchmarks.scale start`:
the start of a run of 400,000 shards, all of them committed, at a store that takes 20 ms a call and
lists 1,000 objects a call: without a log of footers, beside one, and beside one that knows all but
the last 1,000 shards. `python -m benchmarks.scale run`: 100,000 rollouts of the fake backend, whose
driver is killed twice. Prints a table, and one JSON line.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Rows, commit, show, show_lines
from pipeline.engine.backends import open_backends
from pipeline.plan.models import fake_facts
from pipeline.plan.packs import load_pack
from pipeline.plan.planning import commit_plan, make_plan
from pipeline.plan.prompt_files import PromptSet
from pipeline.rollout.worker import Worker
from pipeline.store import layout
from pipeline.store.objects import Entry, Store
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest, try_commit_extension
from schemas.config import (
    ExecutionConfig,
    FakeConfig,
    MethodConfig,
    PackConfig,
    Pictures,
    RunConfig,
)
from schemas.errors import ExitCode
from schemas.prompts import Prompt
from schemas.runs import Attempt, Grow, RunManifest

_SIZES = (1_000, 10_000, 100_000)
_FAKE = FakeConfig(image_size=32, patch_size=8, num_codes=512, num_text_tokens=8)
_START_SHARDS = 400_000
_START_ROLLOUTS = 256  # a shard
_CALL_SECONDS = 0.02
_PAGE_ENTRIES = 1_000  # that S3 lists in a call
_NEWS = 1_000  # shards
_LINKS = 10_000  # to one file: file systems have a limit
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["shards", "start", "run", "driver"])
    parser.add_argument("--rollouts", type=int, default=_SIZES[-1], help="of the long run")
    parser.add_argument("--sizes", type=int, nargs="*", default=_SIZES, help="in shards")
    parser.add_argument("--shards", type=int, default=_START_SHARDS, help="of the start")
    parser.add_argument("--call-seconds", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)  # of `driver`, which the others start
    options = parser.parse_args()
    if options.what == "driver":
        sys.stdout.write(json.dumps(_measure_driver(options.url, options.call_seconds)))
        return
    with tempfile.TemporaryDirectory(prefix="coppice-scale-") as folder:
        if options.what == "shards":
            rows = measure_shards(Path(folder), options.sizes)
        elif options.what == "start":
            rows = measure_start(Path(folder), options.shards)
        else:
            rows = measure_run(f"{folder}/run", options.rollouts)
    show(rows | {"cpus": os.cpu_count(), "commit": commit()})


# Shards


def measure_shards(folder: Path, sizes: list[int]) -> Rows:
    """Calls and bytes a shard, at each size."""
    rows: Rows = {}
    smallest = 0
    for number, size in enumerate(sizes):
        store = open_store(str(folder / f"run-{size}"))
        manifest = _plan(store, size, rollouts_per_shard=1)
        calls = _calls_of_a_shard(store, manifest, size - 1)
        _link_all(Path(store.url), source=size - 1, stop=size)
        driver = json.loads(_python("benchmarks.scale", "driver", "--url", store.url))
        if number == 0:
            smallest = driver["peak_bytes"]
        rows[f"calls of a shard, {size:,} shards"] = dict(calls)
        rows[f"driver's megabytes, {size:,} shards"] = round(driver["peak_bytes"] / 1e6, 1)
        rows[f"driver starts in seconds, {size:,} shards"] = round(driver["seconds"], 1)
        if number:
            more = (driver["peak_bytes"] - smallest) / (size - sizes[0])
            rows[f"driver's bytes a shard, {size:,} shards"] = round(more)
    return rows


def _plan(store: Store, num_rollouts: int, *, rollouts_per_shard: int) -> RunManifest:
    pack = PackConfig(name="default", digest=load_pack("default").digest)
    facts = fake_facts(_FAKE)
    method = MethodConfig(
        model=facts.model, pack=pack, backend="fake", fake=_FAKE, pictures=Pictures.NONE
    )
    config = RunConfig(method=method, execution=ExecutionConfig(beat_seconds=1.0))
    prompts = PromptSet(
        prompts=[
            Prompt(text=f"scene number {i}", metadata={}, source="made", line=i)
            for i in range(num_rollouts)
        ],
        num_duplicates=0,
        rejects=[],
    )
    plan = make_plan(
        prompts, config, facts, sources=["made"], rollouts_per_shard=rollouts_per_shard
    )
    return commit_plan(store, plan, prompts, config, facts)


class _Counted:
    """A store that counts what is asked of it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._store, name)
        return partial(self._count, name, verb) if callable(verb) else verb

    def _count(self, name: str, verb: Callable[..., Any], *arguments: Any) -> Any:
        self.calls[name] += 1
        return verb(*arguments)


def _calls_of_a_shard(store: Store, manifest: RunManifest, shard: int) -> Counter[str]:
    counted = _Counted(store)
    worker = Worker(counted, manifest, open_backends(manifest.config), name="bench")  # type: ignore[arg-type]
    worker.run_shard(Grow(attempt=Attempt(shard=shard, number=1, attempt_id="bench")))
    worker.close()
    return counted.calls


def _link_all(root: Path, *, source: int, stop: int) -> None:
    """Give every other shard before `stop` the data object of one, which costs no room."""
    body = (root / layout.traces_key(source)).read_bytes()
    last, num_links = root / layout.traces_key(source), _LINKS
    for shard in range(stop):
        path = root / layout.traces_key(shard)
        if shard == source:
            continue
        if num_links == _LINKS:
            path.write_bytes(body)
            last, num_links = path, 0
        else:
            os.link(last, path)
            num_links += 1


def _measure_driver(url: str, call_seconds: float) -> Rows:
    """The most memory that a driver of a run has held, once it has taken in what is committed.

    The time is of all that `coppice run` asks of the store before it asks for actors.
    """
    from jobs.cluster.driver import Driver
    from pipeline.store.status import keep_footers

    store: Any = _Slow(open_store(url), call_seconds)
    started, cpu_started = time.monotonic(), time.process_time()
    manifest = read_manifest(store)
    num_read = keep_footers(store, manifest).num_read
    driver = Driver(store, manifest, show=lambda _: None, is_stopping=lambda: False)
    snapshot = driver.snapshot()
    seconds = time.monotonic() - started
    assert snapshot.num_committed == snapshot.num_shards
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return {
        "peak_bytes": int(peak.split()[1]) * 1024,
        "seconds": seconds,
        "cpu_seconds": time.process_time() - cpu_started,
        "num_read": num_read,
        "calls": store.num_calls,
    }


# A start


class _Slow:
    """A store that takes its time for each call, and for each page of a list."""

    def __init__(self, store: Store, call_seconds: float) -> None:
        self._store, self._call_seconds = store, call_seconds
        self._lock, self.num_calls = threading.Lock(), 0
        self.url = store.url

    def __getattr__(self, name: str) -> Any:
        return partial(self._ask, getattr(self._store, name))

    def list_folder(self, folder: str) -> Iterator[Entry]:
        self._wait()
        for number, entry in enumerate(self._store.list_folder(folder), start=1):
            yield entry
            if number % _PAGE_ENTRIES == 0:
                self._wait()

    def _ask(self, verb: Callable[..., Any], *arguments: Any) -> Any:
        self._wait()
        return verb(*arguments)

    def _wait(self) -> None:
        with self._lock:
            self.num_calls += 1
        time.sleep(self._call_seconds)


def measure_start(folder: Path, num_shards: int) -> Rows:
    """Seconds, calls and memory of a start, by what a log of footers knows."""
    store = open_store(str(folder / "run"))
    manifest = _plan(store, 1, rollouts_per_shard=1)
    _calls_of_a_shard(store, manifest, 0)  # one true data object, which the others are links to
    part = manifest.plan.model_copy(
        update={
            "number": 2,
            "folder": layout.plan_folder(2, "none"),  # no one reads it: nothing is missing
            "first_shard": 1,
            "num_shards": num_shards - 1,
            "num_rollouts": (num_shards - 1) * _START_ROLLOUTS,
            "rollouts_per_shard": _START_ROLLOUTS,
        }
    )
    assert try_commit_extension(store, manifest, part)
    _link_all(Path(store.url), source=0, stop=num_shards - _NEWS)
    body = store.read(layout.traces_key(0))
    news = [Path(store.url) / layout.traces_key(num_shards - _NEWS + i) for i in range(_NEWS)]
    for path in news:  # files of their own: a link more is news of all the others
        path.write_bytes(body)
    rows: Rows = {"shards": num_shards, "seconds a call": _CALL_SECONDS}
    rows |= _start(store, "without a log")
    rows |= _start(store, "beside a log")
    for path in news:
        path.write_bytes(body)
    rows |= _start(store, f"beside a log, {_NEWS:,} shards new to it")
    logs = [entry.size_bytes for entry in store.list_folder(layout.FOOTERS)]
    return rows | {"log's megabytes": round(sum(logs) / 1e6, 1)}


def _start(store: Store, name: str) -> Rows:
    command = ["driver", "--url", store.url, "--call-seconds", str(_CALL_SECONDS)]
    driver = json.loads(_python("benchmarks.scale", *command))
    rows = {
        f"start {name}, seconds": round(driver["seconds"], 1),
        f"start {name}, of these on a CPU": round(driver["cpu_seconds"], 1),
        f"start {name}, calls": driver["calls"],
        f"start {name}, footers read": driver["num_read"],
        f"start {name}, megabytes": round(driver["peak_bytes"] / 1e6, 1),
    }
    show_lines(rows)
    return rows


# A long run


def measure_run(url: str, num_rollouts: int) -> Rows:
    """Plan, run, kill twice, resume and verify. Times are of whole processes."""
    store = open_store(url)
    started = time.monotonic()
    manifest = _plan(store, num_rollouts, rollouts_per_shard=256)
    planned = time.monotonic()
    for share in (1 / 3, 2 / 3):
        driver = subprocess.Popen([sys.executable, "-m", "jobs.cli", "run", url])
        while _num_committed(store) < share * manifest.num_shards and driver.poll() is None:
            time.sleep(0.2)
        driver.kill()
        driver.wait()
    peak = _run_to_the_end(url)
    ran = time.monotonic()
    _python("jobs.cli", "verify", url, "--deep")
    verified = time.monotonic()
    status = json.loads(_python("jobs.cli", "status", url, "--json"))
    return {
        "rollouts": num_rollouts,
        "shards": manifest.num_shards,
        "ok": status["num_ok"],
        "missing": status["num_missing"],
        "drivers killed": 2,
        "plan_seconds": round(planned - started, 1),
        "run_seconds": round(ran - planned, 1),
        "verify_deep_seconds": round(verified - ran, 1),
        "driver_megabytes": round(peak / 1e6, 1),
    }


def _num_committed(store: Store) -> int:
    return sum(1 for _ in store.list_folder(layout.TRACES))


def _run_to_the_end(url: str) -> int:
    """The peak of the driver's memory, in bytes."""
    driver = subprocess.Popen([sys.executable, "-m", "jobs.cli", "run", url])
    peak = 0
    while driver.poll() is None:
        time.sleep(0.5)
        statm = Path(f"/proc/{driver.pid}/statm")
        if statm.exists() and (fields := statm.read_text().split()):
            peak = max(peak, int(fields[1]) * _PAGE_BYTES)
    assert driver.returncode == ExitCode.COMPLETE, driver.returncode
    return peak


def _python(module: str, *arguments: str) -> bytes:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    main()
