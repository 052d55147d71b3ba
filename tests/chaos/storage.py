"""Faults between a worker and its storage: on the wire through a proxy, and in the server."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.store import objects
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from schemas.runs import RunManifest, ShardEnd
from tests.chaos.ledger import Ledger, Tokens, tokens_in
from tests.faults.proxy import Fault, FaultyProxy
from tests.s3.ceph import CephS3, Daemon
from tests.support import at_work, attempt_at, fake_config, fake_method, plan_run, run_all

_PROMPTS = 6
_CONFIG = fake_config(fake_method(), store_patience_seconds=60)
_STRUCK = {"traces": "PUT", "plan": "GET"}  # what a fault strikes: a commit, and a read before it
_OUTAGE_SECONDS = 1.0

Outage = Callable[[CephS3], None]


def faults_on_the_wire(
    ledger: Ledger, endpoint: str, bucket: str, folder: Path, rounds: int = 1
) -> None:
    """Runs for each fault that can befall a commit or a read, in front of any S3 server."""
    expected = _expected(folder)
    with FaultyProxy(endpoint) as proxy, at_endpoint(proxy.endpoint):
        for number, fault in enumerate(rounds * list(Fault)):
            for folder_struck, method in _STRUCK.items():
                store, manifest = _planned(f"s3://{bucket}/wire-{number}-{folder_struck}")
                proxy.inject(
                    fault, method=method, key=f"{folder_struck}/*", times=_times(fault), seconds=0.2
                )
                with ledger.injecting(f"on the wire: {fault}", 0):
                    _run(store, manifest)
                proxy.clear()
                proxy.land()
                ledger.check(store, expected, f"{fault} at {folder_struck}")
        for fault, times in proxy.injected.items():
            ledger.count(f"on the wire: {fault}", times)


def _times(fault: Fault) -> int:
    """Refusals and throttling come in series; others are one event."""
    return 3 if fault in (Fault.REFUSED, Fault.THROTTLED, Fault.UNAVAILABLE) else 1


def outages_of_a_server(ledger: Ledger, server: CephS3, bucket: str, folder: Path) -> None:
    """Runs in the middle of which the server is killed, paused and started again."""
    expected = _expected(folder)
    outages: dict[str, Outage] = {
        "the gateway is killed": lambda server: server.kill(Daemon.RGW),
        "the storage daemon is killed": lambda server: server.kill(Daemon.OSD),
        "the whole server is killed": lambda server: server.kill(),
        "the gateway is paused": lambda server: server.pause(Daemon.RGW),
        "the storage daemon is paused": lambda server: server.pause(Daemon.OSD),
    }
    with FaultyProxy(server.endpoint) as proxy, at_endpoint(proxy.endpoint):
        for number, (kind, outage) in enumerate(outages.items()):
            store, manifest = _planned(f"s3://{bucket}/outage-{number}-{time.monotonic_ns()}")
            proxy.requests.clear()
            with ledger.injecting(kind):
                running = threading.Thread(target=_run, args=(store, manifest))
                running.start()
                _wait_for(lambda: any(r.method == "PUT" for r in list(proxy.requests)))
                outage(server)
                time.sleep(_OUTAGE_SECONDS)
                if "paused" in kind:
                    server.resume()
                else:
                    server.start()
                running.join()
            ledger.check(store, expected, kind)


def _wait_for(is_so: Callable[[], bool]) -> None:
    while not is_so():
        time.sleep(0.005)


def _expected(folder: Path) -> Tokens:
    store = open_store(str(folder / f"undisturbed-{time.monotonic_ns()}"))
    run_all(store, plan_run(store, _PROMPTS, rollouts_per_shard=2))
    return tokens_in(store)


def _planned(url: str) -> tuple[Store, RunManifest]:
    store = open_store(url)
    return store, plan_run(store, _PROMPTS, _CONFIG, rollouts_per_shard=2)


def _run(store: Store, manifest: RunManifest) -> None:
    with at_work(store, manifest) as worker:
        for shard in range(manifest.num_shards):
            report = worker.run_shard(attempt_at(shard))
            assert report.end is not ShardEnd.FAILED, report


@contextmanager
def at_endpoint(url: str) -> Iterator[None]:
    """Stores that are opened in here go to this endpoint, and wait only a moment before retries."""
    before, os.environ["AWS_ENDPOINT_URL"] = os.environ.get("AWS_ENDPOINT_URL"), url
    pause, objects.FIRST_PAUSE_SECONDS = objects.FIRST_PAUSE_SECONDS, 0.01
    try:
        yield
    finally:
        objects.FIRST_PAUSE_SECONDS = pause
        os.environ.pop("AWS_ENDPOINT_URL")
        if before is not None:
            os.environ["AWS_ENDPOINT_URL"] = before
