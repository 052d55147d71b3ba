"""`coppice repair` as people have it."""

from pathlib import Path

import pytest

from jobs.cluster.heartbeat import DriverHeartbeat
from pipeline.store import layout
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.patient import PatientStore
from tests.jobs.conftest import Coppice
from tests.support import plan_run, run_all


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A run of 3 shards of 2 rollouts."""
    store = open_store(str(tmp_path / "run"))
    run_all(store, plan_run(store, 6, rollouts_per_shard=2))
    return store


def test_a_damaged_shard_is_moved_and_made_again_by_the_command_that_is_printed(
    store: Store, coppice: Coppice
):
    for shard in (0, 1):
        store.put(layout.traces_key(shard), b"something else")

    answer = coppice("repair", "run", "--shards", "0-1")

    assert answer.returncode == 0, answer.stderr
    assert "found     a file that cannot be read" in answer.stdout
    assert "moved traces/shard-00000.parquet to _quarantine/" in answer.stdout
    assert "2 objects moved to run/_quarantine/. 2 shards will be made again." in answer.stdout
    assert answer.stdout.endswith("Next: coppice run run\n")
    status = coppice("status", "run")
    assert status.returncode == 3
    assert "4 of 6 rollouts missing" in status.stdout


def test_nothing_is_moved_while_a_driver_is_at_work(store: Store, coppice: Coppice):
    store.put(layout.traces_key(0), b"something else")

    with DriverHeartbeat(PatientStore(store, patience_seconds=0), beat_seconds=0.1):
        answer = coppice("repair", "run", "--shards", "0")

    assert answer.returncode == 6
    assert "drives" in answer.stderr
    assert store.read(layout.traces_key(0)) == b"something else"


@pytest.mark.parametrize(
    ("shards", "complaint"),
    [
        ("0-2", "shard 0 of"),
        ("7", "no shard 7: the run has shards 0 to 2"),
        ("all", "expected shards such as 3,7-9"),
    ],
)
def test_whole_and_unknown_shards_are_refused(
    store: Store, coppice: Coppice, shards: str, complaint: str
):
    answer = coppice("repair", "run", "--shards", shards)

    assert answer.returncode == 2
    assert complaint in answer.stderr
    assert len(list(store.list_folder(layout.TRACES))) == 3
