"""What is waited for: a server that accepts and does not answer, a scratch disk that is full."""

import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.store import objects
from pipeline.store.open import open_store
from schemas.runs import ShardEnd
from tests.chaos.ledger import Ledger, tokens_in
from tests.chaos.storage import at_endpoint
from tests.faults.proxy import Fault, FaultyProxy
from tests.support import at_work, attempt_at, fake_config, fake_method, plan_run, run_all

SILENT = "a server accepts and does not answer"
FULL = "the scratch disk is full"
_PROMPTS = 10
_SILENT_SECONDS = 7.0  # longer than a store is listened to whose patience is ten seconds
_FULL_SECONDS = 0.5
_DISK_BYTES = 2**20


def silent_server(ledger: Ledger, endpoint: str, bucket: str, folder: Path, number: int) -> None:
    """Each shard's commit is met with silence, and is done again while it is still under way."""
    whole = open_store(str(folder / "silence-undisturbed"))
    run_all(whole, plan_run(whole, _PROMPTS))
    with FaultyProxy(endpoint) as proxy, at_endpoint(proxy.endpoint):
        store = open_store(f"s3://{bucket}/silence")
        config = fake_config(fake_method(), store_patience_seconds=10)
        manifest = plan_run(store, _PROMPTS, config, rollouts_per_shard=2)
        with at_work(store, manifest) as worker:
            for shard in range(min(number, manifest.num_shards)):
                proxy.inject(
                    Fault.SLOW, method="PUT", key="traces/*", times=1, seconds=_SILENT_SECONDS
                )
                with ledger.injecting(SILENT):
                    report = worker.run_shard(attempt_at(shard))
                    assert report.end is not ShardEnd.FAILED, report
        proxy.clear()
        proxy.land()
        run_all(store, manifest)
        ledger.check(store, tokens_in(whole), SILENT)


def full_disk(ledger: Ledger, folder: Path, number: int) -> None:
    """The disk of scratch files fills before each shard, and has room a moment later."""
    whole = open_store(str(folder / "disk-undisturbed"))
    run_all(whole, plan_run(whole, _PROMPTS))
    store = open_store(str(folder / "disk"))
    config = fake_config(fake_method(), store_patience_seconds=60)
    manifest = plan_run(store, _PROMPTS, config, rollouts_per_shard=2)
    with _small_disk(folder / "small") as disk:
        if disk is None:
            sys.stderr.write(f"left out, for want of rights: {FULL}\n")
            return
        with at_work(store, manifest) as worker:
            for shard in range(min(number, manifest.num_shards)):
                ballast = disk / "ballast"
                _fill(ballast)
                threading.Timer(_FULL_SECONDS, ballast.unlink).start()
                with ledger.injecting(FULL):
                    report = worker.run_shard(attempt_at(shard))
                    assert report.end is ShardEnd.COMMITTED, report
    run_all(store, manifest)
    ledger.check(store, tokens_in(whole), FULL)


@contextmanager
def _small_disk(place: Path) -> Iterator[Path | None]:
    """A disk of its own, where scratch files go. None where none can be mounted."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        yield None
        return
    before, pause = tempfile.tempdir, objects.FIRST_PAUSE_SECONDS
    tempfile.tempdir, objects.FIRST_PAUSE_SECONDS = str(place), 0.05
    try:
        yield place
    finally:
        tempfile.tempdir, objects.FIRST_PAUSE_SECONDS = before, pause
        subprocess.run(["umount", str(place)], check=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return
