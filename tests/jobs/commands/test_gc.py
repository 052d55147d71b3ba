"""`coppice gc` as people have it."""

from pathlib import Path

from pipeline.store.open import open_store
from tests.jobs.conftest import Coppice
from tests.support import plan_run, run_all


def test_leftovers_are_listed_and_then_removed(coppice: Coppice, tmp_path: Path):
    store = open_store(str(tmp_path / "run"))
    run_all(store, plan_run(store, 6, rollouts_per_shard=2))
    lost = "plan/0001-lost/shard-00000.parquet"
    store.put(lost, b"x" * 1234)

    listed = coppice("gc", "run", "--dry-run")
    assert listed.returncode == 0, listed.stderr
    assert store.size(lost) == 1234
    removed = coppice("gc", "run", "--settle-seconds", "0")
    again = coppice("gc", "run")

    assert lost in listed.stdout
    assert "1,234" in listed.stdout
    assert "1 object, 1.2 kB, would be removed." in listed.stdout
    assert "1 object, 1.2 kB, removed." in removed.stdout
    assert "0 objects, 0 B, removed." in again.stdout
    assert coppice("verify", "run").returncode == 0
