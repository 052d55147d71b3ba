"""How far a run is, as its storage alone says."""

from pathlib import Path

import pytest

from pipeline.store import layout
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.plans import commit_manifest
from pipeline.store.status import committed_shards, read_logs, read_status
from schemas.errors import ForeignObject
from schemas.runs import RunManifest
from tests.support import (
    SMALL,
    at_work,
    attempt_at,
    bring_back,
    fake_config,
    fake_method,
    plan_run,
    run_all,
)


def run_shards(store: Store, manifest: RunManifest, *shards: int) -> None:
    with at_work(store, manifest) as worker:
        for shard in shards:
            worker.run_shard(attempt_at(shard))


def counts(store: Store, manifest: RunManifest) -> dict[str, int]:
    status = read_status(store, manifest)
    assert status.num_planned == status.num_ok + status.num_dead + status.num_missing
    return {
        "committed": status.num_committed,
        "ok": status.num_ok,
        "dead": status.num_dead,
        "missing": status.num_missing,
    }


def test_a_run_that_has_not_begun_is_all_missing(store: Store):
    manifest = plan_run(store, 3, rollouts_per_record=2)

    assert counts(store, manifest) == {"committed": 0, "ok": 0, "dead": 0, "missing": 6}
    assert committed_shards(store, manifest) == set()


def test_planned_is_ok_and_dead_and_missing_at_any_time(store: Store):
    config = fake_config(fake_method(SMALL.model_copy(update={"dead_share": 0.3})))
    manifest = plan_run(store, 7, config, rollouts_per_shard=2)
    seen = [counts(store, manifest)]

    for shard in (2, 0, 3, 1):
        run_shards(store, manifest, shard)
        seen.append(counts(store, manifest))

    assert [each["committed"] for each in seen] == [0, 1, 2, 3, 4]
    assert [each["missing"] for each in seen] == [7, 5, 3, 2, 0]
    assert seen[-1]["dead"] > 0
    assert seen[-1]["ok"] > 0


def test_shards_are_committed_in_any_order(store: Store):
    manifest = plan_run(store, 5, rollouts_per_shard=1)

    run_shards(store, manifest, 4, 1)

    assert committed_shards(store, manifest) == {1, 4}
    assert [log.base.shard for log in read_logs(store, manifest, {4, 1})] == [1, 4]


def test_other_objects_in_the_folder_are_not_shards(store: Store):
    manifest = plan_run(store, 2, rollouts_per_shard=1)
    run_all(store, manifest)
    before = counts(store, manifest)

    for name in ("shard-00000.s1.parquet", "shard-00001.parquet.part", "notes.txt", "shard-1"):
        store.put(f"{layout.TRACES}/{name}", b"something else")
    store.put(layout.traces_key(2), b"beyond the plan")

    assert counts(store, manifest) == before
    assert committed_shards(store, manifest) == {0, 1}


def test_the_shards_of_another_run_are_never_counted(store: Store):
    first = plan_run(store)
    run_all(store, first)
    store.delete(layout.MANIFEST)
    manifest = commit_manifest(store, first.model_copy(update={"run_id": "another"}))

    with pytest.raises(ForeignObject, match="two runs share a folder"):
        read_status(store, manifest)


def test_a_shard_that_cannot_be_read_is_told_of_and_the_others_are_counted(store: Store):
    manifest = plan_run(store, 6, rollouts_per_shard=2)
    run_all(store, manifest)
    store.put(layout.traces_key(1), b"something else")

    status = read_status(store, manifest)

    assert (status.num_ok, status.num_unreadable, status.num_missing) == (4, 2, 0)
    assert (status.num_committed, list(status.damage)) == (2, [1])
    assert "coppice repair" in status.damage[1]


def test_a_supplement_that_cannot_be_read_makes_its_shard_unreadable(store: Store, tmp_path: Path):
    method = fake_method(SMALL.model_copy(update={"dead_share": 0.5}))
    manifest = plan_run(store, 8, fake_config(method), rollouts_per_shard=8)
    run_all(store, manifest, attempt=2)
    bring_back(store, manifest, 0, tmp_path)
    store.put(layout.traces_key(0, 1), b"something else")

    status = read_status(store, manifest)

    assert (status.num_ok, status.num_unreadable, list(status.damage)) == (0, 8, [0])


def test_a_status_says_which_run_it_is_of(tmp_path: Path):
    store = open_store(str(tmp_path / "run"))
    manifest = plan_run(store, 3, rollouts_per_shard=2)

    status = read_status(store, manifest)

    assert (status.run_id, status.url) == (manifest.run_id, str(tmp_path / "run"))
    assert (status.num_shards, status.num_planned) == (2, 3)
