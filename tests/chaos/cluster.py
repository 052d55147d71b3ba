"""Faults of processes, on a Ray cluster that is started once and stays warm.

Drivers are commands of their own, as a user starts them; workers are Ray's. Every process that is
killed or frozen here is one that this suite started.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from jobs.cluster.driver import Driver
from jobs.cluster.heartbeat import DriverNote
from jobs.cluster.snapshot import Snapshot
from pipeline.plan.planning import extend_plan
from pipeline.store import layout
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest
from pipeline.store.status import committed_shards, read_logs, read_status
from pipeline.store.traces import read_rows
from schemas.config import RunConfig
from schemas.errors import ExitCode, RecordFailure
from schemas.runs import RunManifest
from tests.chaos.ledger import Ledger, Tokens, tokens_in
from tests.support import (
    SMALL,
    at_work,
    attempt_at,
    fake_config,
    fake_method,
    plan_run,
    prompt_set,
    run_all,
)

_SLOW = SMALL.model_copy(update={"delay_seconds": 0.004})
_COMMAND_SECONDS = 180


@dataclass(slots=True)
class Site:
    """A warm cluster, a folder for runs, and what is counted."""

    cluster: Cluster
    folder: Path
    ledger: Ledger
    rng: random.Random
    num_runs: int = 0
    expected: dict[tuple[int, int], Tokens] = field(default_factory=dict)

    def fresh(self) -> Store:
        self.num_runs += 1
        return open_store(str(self.folder / f"run-{self.num_runs}"))

    def undisturbed(self, num_prompts: int, rollouts: int = 1) -> Tokens:
        """The tokens that a run of so many prompts has, however it was made."""
        key = num_prompts, rollouts
        if key not in self.expected:
            store = self.fresh()
            run_all(store, plan_run(store, num_prompts, rollouts_per_record=rollouts))
            self.expected[key] = tokens_in(store)
        return self.expected[key]


@contextmanager
def warm_site(folder: Path, ledger: Ledger, seed: int) -> Iterator[Site]:
    """Ray with a head of two CPUs; ended afterwards."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "include_dashboard": False},
    )
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield Site(cluster=cluster, folder=folder, ledger=ledger, rng=random.Random(seed))
    finally:
        ray.shutdown()
        cluster.shutdown()


def quick_config(**changes: Any) -> RunConfig:
    """Every time that a driver waits, cut to a second or less."""
    execution = {
        "num_actors": 2,
        "live_rollouts_per_actor": 4,
        "node_check_seconds": 0.2,
        "no_progress_seconds": 3.0,
        "beat_seconds": 0.3,
        "grace_seconds": 1.0,
        "store_patience_seconds": 5.0,
        "cpus_per_actor": 0.5,
    }
    return fake_config(fake_method(_SLOW), **(execution | changes))


# Workers


def worker_faults(site: Site, name: str, signals: list[int], number: int) -> None:
    """One run whose workers are killed or frozen again and again."""
    num_prompts = 12 + 8 * number
    store = site.fresh()
    manifest = plan_run(store, num_prompts, quick_config(), rollouts_per_shard=2)
    times = {"done": 0, "seen": 0}

    def disturb(snapshot: Snapshot) -> None:
        is_moving = snapshot.num_committed >= times["seen"] + 2
        if times["done"] < number and is_moving and (pids := _worker_pids(store, manifest)):
            times["done"] += 1
            times["seen"] = snapshot.num_committed
            for which in signals:
                with suppress(ProcessLookupError):
                    os.kill(site.rng.choice(pids), which)

    with site.ledger.injecting(name, 0):
        summary = Driver(store, manifest, show=disturb, is_stopping=lambda: False).run()
    assert not summary.given_up, summary.given_up
    site.ledger.count(name, times["done"])
    site.ledger.check(store, site.undisturbed(num_prompts), name)
    # What a death costs: the shards that its worker had open, and none else.
    logs = read_logs(store, manifest, range(manifest.num_shards))
    num_again = sum(log.base.attempt > 1 for log in logs)
    assert num_again <= manifest.config.execution.open_shards_per_actor * times["done"]
    site.ledger.shards_again += num_again
    site.ledger.deaths += times["done"]


def _worker_pids(store: Store, manifest: RunManifest) -> list[int]:
    """The processes that made the newest shards, of those that still live."""
    pids = set()
    for shard in committed_shards(store, manifest):
        worker = str(next(iter(read_rows(store, shard, columns=["worker"])))["worker"])
        pids.add(int(worker.rpartition("/")[2]))
    return [pid for pid in pids if _is_worker(pid)]


def _is_worker(pid: int) -> bool:
    try:
        return b"RolloutActor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def poison(site: Site, harm: str) -> None:
    """A record that ends every process that grows it, in one way or another."""
    store = site.fresh()
    config = quick_config(fake_harms={"prompt number 5": harm})
    manifest = plan_run(store, 12, config, rollouts_per_shard=4)
    with site.ledger.injecting(f"a record makes its process {harm}"):
        Driver(store, manifest, show=lambda _: None, is_stopping=lambda: False).run()
    site.ledger.check(store, site.undisturbed(12), f"poison: {harm}", num_dead=1)


def lose_a_node(site: Site) -> None:
    """A raylet is killed, and its workers with it. No record is to blame."""
    node = site.cluster.add_node(num_cpus=2)
    store = site.fresh()
    config = quick_config(num_actors=4, cpus_per_actor=1.0, node_check_seconds=20)
    manifest = plan_run(store, 60, config, rollouts_per_shard=2)
    lost = []

    def lose(snapshot: Snapshot) -> None:
        if snapshot.num_committed >= 6 and snapshot.num_actors >= 3 and not lost:
            lost.append(node)
            site.cluster.remove_node(node, allow_graceful=False)

    with site.ledger.injecting("a raylet is killed"):
        summary = Driver(store, manifest, show=lose, is_stopping=lambda: False).run()
    assert lost, "the node was never lost"
    assert not summary.given_up, summary.given_up
    site.ledger.check(store, site.undisturbed(60), "a lost node")


# Drivers


def start_command(site: Site, *arguments: str) -> "subprocess.Popen[bytes]":
    """A command as a user would start it, on the warm cluster."""
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *arguments],
        env=os.environ | {"RAY_ADDRESS": site.cluster.address},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def end_of(process: "subprocess.Popen[bytes]") -> int:
    return process.wait(_COMMAND_SECONDS)


def wait_until(is_so: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    """Wait for something while a command runs."""
    deadline = time.monotonic() + _COMMAND_SECONDS
    while not is_so() and process.poll() is None:
        assert time.monotonic() < deadline, "a command did not get on"
        time.sleep(0.02)


def has_committed(store: Store, number: int) -> Callable[[], bool]:
    return lambda: len(committed_shards(store, read_manifest(store))) >= number


def kill_drivers(site: Site, number: int) -> None:
    """One run whose driver is killed again and again, and started again without any flag."""
    store = site.fresh()
    num_prompts = 16 * (number + 1)
    plan_run(store, num_prompts, quick_config(), rollouts_per_shard=2)
    for done in range(number):
        driver = start_command(site, "run", store.url)
        wait_until(has_committed(store, 3 + 6 * done), driver)
        with site.ledger.injecting("a driver is killed"):
            driver.kill()
            driver.wait()
    assert end_of(start_command(site, "run", store.url)) == ExitCode.COMPLETE
    site.ledger.check(store, site.undisturbed(num_prompts), "killed drivers")


def freeze_a_driver(site: Site) -> None:
    """A driver that wakes after another one took over must not change anything."""
    store = site.fresh()
    plan_run(store, 60, quick_config(), rollouts_per_shard=2)
    frozen = start_command(site, "run", store.url)
    wait_until(has_committed(store, 4), frozen)
    with site.ledger.injecting("a driver is frozen, and wakes too late"):
        frozen.send_signal(signal.SIGSTOP)
        other = start_command(site, "run", store.url)
        wait_until(lambda: _num_drivers(store) > 1, other)
        frozen.send_signal(signal.SIGCONT)
        ends = {end_of(frozen), end_of(other)}
    assert ends <= {ExitCode.COMPLETE, ExitCode.DRIVER_ALIVE}, ends
    site.ledger.check(store, site.undisturbed(60), "a frozen driver")


def _num_drivers(store: Store) -> int:
    names = [entry.key for entry in store.list_folder(layout.DRIVERS)]
    for name in names:
        if name.endswith(".json"):
            DriverNote.model_validate_json(store.read(name))
    return sum(name.endswith(".json") for name in names)


def two_drivers(site: Site) -> None:
    """Two at once: one drives, the other one is told so."""
    store = site.fresh()
    plan_run(store, 60, quick_config(), rollouts_per_shard=2)
    with site.ledger.injecting("two drivers at once"):
        ends = sorted(end_of(run) for run in [start_command(site, "run", store.url) for _ in "12"])
    assert ends[0] == ExitCode.COMPLETE, ends
    assert ends[1] in {ExitCode.COMPLETE, ExitCode.DRIVER_ALIVE}, ends
    site.ledger.check(store, site.undisturbed(60), "two drivers")


# Reruns and extensions


def _with_dead_rollouts(site: Site, num_prompts: int) -> Store:
    """A complete run in which every third rollout is dead."""

    def fail(request: Any) -> RecordFailure | None:
        number = re.search(r"prompt number (\d+)", repr(request))
        is_bad = number is not None and int(number[1]) % 3 == 0
        return RecordFailure("not now", reason="scripted") if is_bad else None

    store = site.fresh()
    manifest = plan_run(store, num_prompts, quick_config(), rollouts_per_shard=4)
    with at_work(store, manifest, script=fail) as worker:
        for shard in range(manifest.num_shards):
            worker.run_shard(attempt_at(shard))
    assert read_status(store, manifest).num_dead > 0, "nothing is dead"
    return store


def two_reruns(site: Site) -> None:
    store = _with_dead_rollouts(site, 24)
    with site.ledger.injecting("two reruns at once"):
        ends = [end_of(rerun) for rerun in [start_command(site, "rerun", store.url) for _ in "12"]]
    assert ends[-1] in {ExitCode.COMPLETE, ExitCode.COMPLETE_WITH_DEAD}, ends
    site.ledger.check(store, site.undisturbed(24), "two reruns")


def kill_a_rerun(site: Site) -> None:
    store = _with_dead_rollouts(site, 24)
    manifest = read_manifest(store)
    before = read_status(store, manifest).num_dead
    rerun = start_command(site, "rerun", store.url)
    with site.ledger.injecting("a rerun is killed"):
        wait_until(lambda: read_status(store, manifest).num_dead < before, rerun)
        rerun.kill()
        rerun.wait()
    assert end_of(start_command(site, "rerun", store.url)) == ExitCode.COMPLETE
    site.ledger.check(store, site.undisturbed(24), "a killed rerun")


def two_extensions(site: Site) -> None:
    """Two commands add to a plan at once, one records and one rollouts."""
    store = site.fresh()
    plan_run(store, 6, quick_config(), rollouts_per_shard=2)
    more = site.folder / "more.txt"
    more.write_text("\n".join(f"prompt number {number}" for number in range(10)))
    with site.ledger.injecting("two extensions at once"):
        both = [
            start_command(site, "plan", "--extend", str(more), store.url),
            start_command(site, "plan", "--extend", store.url, "--rollouts", "2"),
        ]
        assert [end_of(command) for command in both] == [0, 0]
    extend_plan(store, prompt_set(10), sources=["more.txt"], rollouts_per_record=2)
    run_all(store, read_manifest(store))
    site.ledger.check(store, site.undisturbed(10, 2), "two extensions")


def wipe_an_object(site: Site) -> None:
    """A committed shard is gone. The next run makes it again, and the same."""
    store = site.fresh()
    manifest = plan_run(store, 12, quick_config(), rollouts_per_shard=2)
    run_all(store, manifest)
    with site.ledger.injecting("an object is wiped"):
        store.delete(layout.traces_key(site.rng.randrange(manifest.num_shards)))
        Driver(store, manifest, show=lambda _: None, is_stopping=lambda: False).run()
    site.ledger.check(store, site.undisturbed(12), "a wiped object")
