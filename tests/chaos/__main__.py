"""Run the fault suite: `python -m tests.chaos [--cut]`, or `make chaos`.

Prints one JSON line at the end: faults by kind, keys lost, keys twice, wrong tokens, seconds. Exits
with 1 if anything was lost, doubled or wrong, or a kind of fault never happened.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

from tests.chaos import cluster, nodes, stops, storage
from tests.chaos.damage import flip_bits, follow_advice
from tests.chaos.garbage import garbage
from tests.chaos.ledger import Ledger
from tests.chaos.lines import all_works, kill_on_lines
from tests.chaos.network import cut_networks
from tests.chaos.verbs import Harm, fail_at_every_call
from tests.chaos.waits import full_disk, silent_server
from tests.s3.ceph import CephS3
from tests.s3.emulator import BUCKET, emulator

_SEED = 20
_KILLED = "a worker is killed"
_ENDS_OF_WORKERS = {
    _KILLED: (60, signal.SIGKILL),
    "a worker crashes": (40, signal.SIGSEGV),
    "a worker aborts": (40, signal.SIGABRT),
    "a worker is told to end": (40, signal.SIGTERM),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Inject faults, and count what they cost.")
    parser.add_argument("--cut", action="store_true", help="a few of each kind")
    parser.add_argument("--real", action="store_true", help="a real S3 server too, not moto alone")
    parser.add_argument("--seed", type=int, default=_SEED, help="of moments and victims")
    options = parser.parse_args()
    ledger, started = Ledger(), time.monotonic()
    with _only_to_errors(), tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        in_process(ledger, Path(folder), step=40 if options.cut else 6)
        _say(ledger, started)
        garbage(ledger, Path(folder), step=5 if options.cut else 1)
        full_disk(ledger, Path(folder), 1 if options.cut else 5)
        follow_advice(ledger, Path(folder) / "damage", step=8 if options.cut else 1)
        flip_bits(ledger, Path(folder) / "bits", 200 if options.cut else 2000, options.seed)
        _say(ledger, started)
        on_storage(ledger, Path(folder), is_real=options.real)
        _say(ledger, started)
        ledger.is_real = True
        on_a_cluster(ledger, Path(folder), seed=options.seed, is_cut=options.cut)
        _say(ledger, started)
        cut_networks(ledger, Path(folder), 1 if options.cut else 5)
        _say(ledger, started)
    summary = ledger.summary() | {"total_seconds": round(time.monotonic() - started, 1)}
    for kind in ("lost", "twice", "wrong"):
        for what in getattr(ledger, kind)[:20]:
            sys.stderr.write(f"{kind}: {what}\n")
    never = [kind for kind, number in ledger.faults.items() if not number]
    sys.stderr.write("".join(f"never happened: {kind}\n" for kind in never))
    sys.stdout.write(json.dumps(summary) + "\n")
    sys.exit(1 if ledger.lost or ledger.twice or ledger.wrong or never else 0)


def in_process(ledger: Ledger, folder: Path, *, step: int) -> None:
    """Kills on lines, and calls that fail, of every `step`-th line and call."""
    numbers = count()
    for work in all_works():
        kill_on_lines(ledger, work, lambda: str(folder / f"line-{next(numbers)}"), step=step)
    for work in all_works():
        for harm in Harm:
            fail_at_every_call(ledger, work, harm, step=max(1, step // 2))


def on_storage(ledger: Ledger, folder: Path, *, is_real: bool) -> None:
    """Faults on the wire to S3, and outages of a real server."""
    os.environ |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    with emulator() as client:
        rounds = 2 if is_real else 1
        storage.faults_on_the_wire(ledger, client.meta.endpoint_url, BUCKET, folder, rounds)
    if is_real:
        with CephS3(folder / "ceph") as server:
            os.environ |= server.settings
            storage.faults_on_the_wire(ledger, server.endpoint, BUCKET, folder)
            silent_server(ledger, server.endpoint, BUCKET, folder, 5)
            ledger.is_real = True
            for _ in range(5):
                storage.outages_of_a_server(ledger, server, BUCKET, folder)
            ledger.is_real = False
            server.wipe()


def on_a_cluster(ledger: Ledger, folder: Path, *, seed: int, is_cut: bool) -> None:
    """Kills and freezes of workers, drivers and a node; two of everything at once."""
    frozen = "a worker is frozen past its timeout"
    with cluster.warm_site(folder, ledger, seed) as site:
        for name, (number, ending) in _ENDS_OF_WORKERS.items():
            if name == _KILLED or not is_cut:
                cluster.worker_faults(site, name, [ending], 2 if is_cut else number)
        cluster.worker_faults(site, frozen, [signal.SIGSTOP], 1 if is_cut else 5)
        rounds = 1 if is_cut else 5
        scenes = [
            partial(cluster.poison, harm="exit"),
            cluster.two_reruns,
            cluster.two_extensions,
            cluster.wipe_an_object,
            partial(cluster.kill_drivers, number=1 if is_cut else 4),
        ]
        for name in list(stops.STOPS)[-1 if is_cut else 0 :]:
            stops.stop_drivers(site, name, 1 if is_cut else 5)
        if not is_cut:
            scenes += [
                partial(cluster.poison, harm="hang"),
                partial(cluster.poison, harm="hoard"),
                cluster.freeze_a_driver,
                cluster.two_drivers,
                cluster.kill_a_rerun,
                cluster.lose_a_node,
            ]
            stops.stop_beginnings(site, 5)
            nodes.late_nodes(site, 5)
            nodes.memory_monitor(site, 5)
        for _ in range(rounds):
            for scene in scenes:
                scene(site)


@contextmanager
def _only_to_errors() -> Iterator[None]:
    """Ray prints what died. That goes to standard error: the other one is for one line alone."""
    sys.stdout.flush()
    before = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(before, 1)
        os.close(before)


def _say(ledger: Ledger, started: float) -> None:
    sys.stderr.write(f"{ledger.faults.total()} faults in {time.monotonic() - started:.0f} s\n")


if __name__ == "__main__":
    main()
