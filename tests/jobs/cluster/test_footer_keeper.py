"""The log of footers is kept while a run grows, and is no one's trouble."""

import time
from pathlib import Path

import pytest

from jobs.cluster import footer_keeper
from jobs.cluster.footer_keeper import FooterKeeper
from pipeline.store import layout
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.status import take_stock
from schemas.runs import RunManifest
from tests.support import at_work, attempt_at, plan_run, run_all


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "run"))


@pytest.fixture
def manifest(store: Store) -> RunManifest:
    return plan_run(store, 4, rollouts_per_shard=1)


def has_log(store: Store) -> bool:
    return any(True for _ in store.list_folder(layout.FOOTERS))


def test_what_was_committed_is_in_the_log_at_the_end(store: Store, manifest: RunManifest):
    with FooterKeeper(store, manifest):
        run_all(store, manifest)

    assert take_stock(store, manifest).num_read == 0


def test_a_log_is_made_while_a_long_run_goes_on(
    store: Store, manifest: RunManifest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(footer_keeper, "WORTH_KEEPING", 2)
    with FooterKeeper(store, manifest, pause_seconds=0.01), at_work(store, manifest) as worker:
        worker.run_shard(attempt_at(0))
        worker.run_shard(attempt_at(1))
        give_up_at = time.monotonic() + 30
        while not has_log(store) and time.monotonic() < give_up_at:
            time.sleep(0.01)
        assert has_log(store)


def test_who_ends_by_an_error_is_not_held_up(store: Store, manifest: RunManifest):
    def grow() -> None:
        with FooterKeeper(store, manifest):
            run_all(store, manifest)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grow()

    assert not has_log(store)


def test_a_damaged_object_is_told_by_others(store: Store, manifest: RunManifest):
    with FooterKeeper(store, manifest):
        store.put(layout.traces_key(0), b"something else")

    assert list(take_stock(store, manifest).damage) == [0]
