"""What gc takes for a leftover, and what it never does."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.store import layout
from pipeline.store.leftovers import find_leftovers
from pipeline.store.local import LocalStore
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest, try_commit_extension, write_plan_shard
from pipeline.store.verify import Verification
from schemas.errors import StoreUnavailable
from tests.support import plan_run, run_all


def nothing(seconds: float) -> None:
    """Nothing happens while gc waits."""


def leftovers(store: Store, sleep: Callable[[float], None] = nothing) -> set[str]:
    found = find_leftovers(store, read_manifest(store), settle_seconds=5, sleep=sleep)
    assert all(store.size(leftover.key) == leftover.size_bytes for leftover in found)
    return {leftover.key for leftover in found}


def put_all(store: Store, *keys: str) -> set[str]:
    for key in keys:
        store.put(key, b"something")
    return set(keys)


def extend(store: Store) -> None:
    """Commit part 2, of one shard."""
    manifest = read_manifest(store)
    folder = layout.plan_folder(2, "abc")
    fields = {"number": 2, "folder": folder, "first_shard": manifest.num_shards, "num_shards": 1}
    write_plan_shard(store, folder, manifest.num_shards, [])
    assert try_commit_extension(store, manifest, manifest.plan.model_copy(update=fields))


def test_a_run_that_is_grown_has_no_leftovers(store: Store):
    run_all(store, plan_run(store, 4, rollouts_per_shard=2))

    assert leftovers(store) == set()


def test_plans_that_lost_are_left_over(store: Store):
    plan_run(store, 4)
    lost = put_all(store, "plan/0001-lost/shard-00000.parquet", "plan/0001-lost/rejects.jsonl")
    put_all(store, "plan/0002-open/shard-00001.parquet", "plan/notes/readme.txt")

    assert leftovers(store) == lost


def test_a_plan_that_may_still_be_committed_is_none_until_its_number_is_taken(store: Store):
    plan_run(store, 4)
    open_plan = put_all(store, "plan/0002-open/shard-00001.parquet")
    assert leftovers(store) == set()

    extend(store)

    assert leftovers(store) == open_plan


def test_a_part_whose_forerunner_is_gone_is_not_touched(store: Store):
    plan_run(store, 4)
    extend(store)
    store.delete(layout.extension_key(2))

    assert leftovers(store) == set()


def test_what_a_killed_call_left_is_left_over_if_it_stands_unchanged(store: Store):
    plan_run(store, 4)
    standing = put_all(store, "_tmp/0123", "_preflight/0123")
    put_all(store, "_tmp/growing", "_tmp/passing", "_preflight/passing")
    waited = []

    def meanwhile(seconds: float) -> None:
        waited.append(seconds)
        store.put("_tmp/growing", b"something more")
        store.delete("_tmp/passing")
        store.delete("_preflight/passing")
        put_all(store, "_tmp/new")

    assert leftovers(store, meanwhile) == standing
    assert waited == [5]


def test_the_newest_two_drivers_stay(store: Store):
    plan_run(store, 4)
    old = put_all(store, *(f"_drivers/00000{n}.{end}" for n in (1, 2) for end in ("json", "beat")))
    put_all(store, "_drivers/000007.json", "_drivers/000007.beat", "_drivers/000008.json")
    put_all(store, "_drivers/notes.txt")

    assert leftovers(store) == old


def test_a_run_is_whole_after_its_leftovers_are_removed(store: Store):
    manifest = plan_run(store, 4, rollouts_per_shard=2)
    run_all(store, manifest)
    put_all(store, "plan/0001-lost/shard-00000.parquet", "_tmp/0123", "_drivers/000001.json")
    for leftover in find_leftovers(store, manifest, settle_seconds=0):
        store.delete(leftover.key)
        store.delete(leftover.key)  # as another gc might

    assert leftovers(store) == set()
    assert list(Verification(store, manifest, is_deep=True).findings()) == []


@pytest.mark.parametrize("verb", ["put", "put_if_absent"])
def test_a_put_whose_temporary_was_taken_for_a_leftover_asks_to_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
):
    """gc beside a put that stood still between its temporary file and its object."""
    store = open_store(str(tmp_path))
    assert isinstance(store, LocalStore)
    sync = os.fsync

    def swept(handle: int) -> None:
        sync(handle)
        for entry in list(store.list_folder("_tmp")):
            store.delete(entry.key)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", swept)
        with pytest.raises(StoreUnavailable):
            getattr(store, verb)("key", b"body")
    getattr(store, verb)("key", b"body")

    assert store.read("key") == b"body"
