"""The network between a driver and its workers is cut for a moment.

The workers' node stands in a network namespace of its own, at the end of a cable that is pulled.
That takes rights which not everyone has: without them the kind is left out, and that is said.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from jobs.cluster.driver import Driver
from jobs.cluster.snapshot import Snapshot
from pipeline.store.open import open_store
from tests.chaos.cluster import quick_config
from tests.chaos.ledger import Ledger, tokens_in
from tests.support import plan_run, run_all

KIND = "the network is cut for a moment"
_CUT_SECONDS = 2.0
_OURS, _THEIRS = "10.201.77.1", "10.201.77.2"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cable:
    """From this machine to a namespace, `name`, in which commands can be run."""

    name: str

    def pull(self) -> None:
        _ip("link", "set", self.name, "down")

    def plug(self) -> None:
        _ip("link", "set", self.name, "up")

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        """Run a command at the other end."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@contextmanager
def cable() -> Iterator[Cable | None]:
    """None where no namespace can be made."""
    name = f"chaos{os.getpid() % 10**8}"
    try:
        _ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError):
        yield None
        return
    inside = ("-n", name)
    try:
        _ip("link", "add", name, "type", "veth", "peer", "name", "end", "netns", name)
        _ip("addr", "add", f"{_OURS}/24", "dev", name)
        _ip("link", "set", name, "up")
        _ip(*inside, "addr", "add", f"{_THEIRS}/24", "dev", "end")
        _ip(*inside, "link", "set", "end", "up")
        _ip(*inside, "link", "set", "lo", "up")
        yield Cable(name=name)
    finally:
        _ip("netns", "del", name)  # and the cable with it


def cut_networks(ledger: Ledger, folder: Path, number: int) -> None:
    """One run whose workers are beyond a network that is cut again and again."""
    with cable() as line:
        if line is None:
            sys.stderr.write(f"left out, for want of rights: {KIND}\n")
            return
        head = {"num_cpus": 0, "include_dashboard": False, "node_ip_address": _OURS}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        command = str(Path(sys.executable).with_name("ray"))
        words = ("start", f"--address={cluster.address}", f"--node-ip-address={_THEIRS}")
        node = line.start(command, *words, "--num-cpus=2", "--block", "--disable-usage-stats")
        try:
            _run_over(line, ledger, folder, number)
        finally:
            node.terminate()
            node.wait()
            ray.shutdown()
            cluster.shutdown()


def _run_over(line: Cable, ledger: Ledger, folder: Path, number: int) -> None:
    num_prompts = 40 * number
    whole = open_store(str(folder / "network-undisturbed"))
    run_all(whole, plan_run(whole, num_prompts))
    store = open_store(str(folder / "network"))
    config = quick_config(no_progress_seconds=30.0)
    manifest = plan_run(store, num_prompts, config, rollouts_per_shard=2)
    times = {"done": 0, "seen": 0}
    is_whole = threading.Event()
    is_whole.set()

    def mend() -> None:
        line.plug()
        is_whole.set()

    def cut(snapshot: Snapshot) -> None:
        is_moving = snapshot.num_committed >= times["seen"] + 3
        if times["done"] < number and is_moving and is_whole.is_set():
            times["done"] += 1
            times["seen"] = snapshot.num_committed
            is_whole.clear()
            line.pull()
            threading.Timer(_CUT_SECONDS, mend).start()

    with ledger.injecting(KIND, 0):
        summary = Driver(store, manifest, show=cut, is_stopping=lambda: False).run()
    assert not summary.given_up, summary.given_up
    ledger.count(KIND, times["done"])
    ledger.check(store, tokens_in(whole), KIND)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
