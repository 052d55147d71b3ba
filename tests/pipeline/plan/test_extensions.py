"""Extensions: more records or more rollouts, in shards of their own, whoever else adds at once."""

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.plan.planning import extend_plan
from pipeline.store import layout
from pipeline.store.objects import Source, Store
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest, read_plan_shard
from pipeline.store.status import read_status
from schemas.errors import InputError, StoreUnavailable
from schemas.runs import RunManifest
from tests.support import Wrapped, all_rows, plan_run, prompt_set, run_all


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "run"))


def extend(store: Store, prompts: Any = (), rollouts: int = 1, **changes: Any) -> RunManifest:
    return extend_plan(
        store,
        prompt_set(prompts),
        sources=["more.txt"],
        rollouts_per_record=rollouts,
        **changes,
    )


def keys_of(store: Store) -> list[tuple[str, int]]:
    manifest = read_manifest(store)
    return [
        key
        for shard in range(manifest.num_shards)
        for row in read_plan_shard(store, manifest, shard)
        for key in row.rollout_keys()
    ]


def test_new_records_come_in_shards_of_their_own(store: Store):
    before = plan_run(store, ["a", "b", "c"], rollouts_per_shard=2)
    run_all(store, before)
    traces = {entry.key: store.read(entry.key) for entry in store.list_folder(layout.TRACES)}

    after = extend(store, ["b", "c", "d", "e"])

    assert (before.num_shards, after.num_shards, after.num_rollouts) == (2, 3, 5)
    assert [row.prompt for row in read_plan_shard(store, after, 2)] == ["d", "e"]
    assert {key: store.read(key) for key in traces} == traces
    assert read_status(store, read_manifest(store)).num_missing == 2


def test_more_rollouts_of_each_record(store: Store):
    plan_run(store, 5, rollouts_per_record=2, rollouts_per_shard=4)

    after = extend(store, rollouts=5)

    keys = keys_of(store)
    assert len(keys) == len(set(keys)) == 25
    assert {index for _, index in keys} == set(range(5))
    assert after.extensions[0].num_rollouts == 15


def test_an_extended_run_grows_like_any_other(store: Store):
    plan_run(store, 3)
    extend(store, 5, rollouts=2, rollouts_per_shard=3)
    manifest = read_manifest(store)

    run_all(store, manifest)

    keys = [(row["record_id"], row["rollout_index"]) for row in all_rows(store, manifest)]
    assert sorted(keys) == sorted(keys_of(store))
    assert read_status(store, manifest).num_missing == 0


def test_the_same_again_adds_nothing(store: Store):
    plan_run(store, 3)
    first = extend(store, 6, rollouts=2)

    assert extend(store, 6, rollouts=2) == first
    assert extend(store, 4, rollouts=1) == first


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 4), st.integers(1, 5)), max_size=4))
def test_any_extensions_leave_every_key_once_and_sizes_true(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, int]]
):
    store = open_store(str(tmp_path_factory.mktemp("runs")))
    plan_run(store, 3, rollouts_per_shard=2)
    wanted = {f"prompt number {i}": 1 for i in range(3)}
    for prompts, rollouts, size in steps:
        extend(store, prompts, rollouts, rollouts_per_shard=size)
        names = [f"prompt number {i}" for i in range(prompts)] or list(wanted)
        wanted |= {name: max(wanted.get(name, 0), rollouts) for name in names}

    manifest, keys = read_manifest(store), keys_of(store)
    assert len(keys) == len(set(keys)) == sum(wanted.values()) == manifest.num_rollouts
    for shard in range(manifest.num_shards):
        rows = read_plan_shard(store, manifest, shard)
        assert sum(1 for row in rows for _ in row.rollout_keys()) == manifest.num_rollouts_of(shard)


def test_two_at_once_lose_nothing(store: Store):
    plan_run(store, 2)
    start = threading.Barrier(4)

    def add(first: int) -> None:
        start.wait()
        extend(store, [f"prompt number {i}" for i in range(first, first + 4)], 2)

    threads = [threading.Thread(target=add, args=(first,)) for first in (0, 2, 4, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    keys = keys_of(store)
    assert len(keys) == len(set(keys)) == 16


class Unanswered(Wrapped):
    """A put of an extension's commit lands, and its answer is lost."""

    def put_if_absent(self, key: str, source: Source) -> bool:
        self.store.put_if_absent(key, source)
        raise StoreUnavailable("the answer was lost")


def test_a_commit_whose_answer_was_lost_is_found_by_the_next_call(store: Store):
    plan_run(store, 2)
    with pytest.raises(StoreUnavailable):
        extend(Unanswered(store), 4)

    assert len(extend(store, 4).extensions) == 1
    assert len(keys_of(store)) == 4


def test_a_planner_that_dies_before_its_commit_changes_nothing(store: Store):
    class Dying(Wrapped):
        def put_if_absent(self, key: str, source: Source) -> bool:
            raise KeyboardInterrupt

    before = plan_run(store, 2)
    with pytest.raises(KeyboardInterrupt):
        extend(Dying(store), 4)

    assert read_manifest(store) == before
    extend(store, 3)
    assert len(keys_of(store)) == 3


def test_a_part_of_another_run_is_refused(store: Store, tmp_path: Path):
    other = open_store(str(tmp_path / "other"))
    for each in (store, other):
        plan_run(each, 2)
    extend(other, 3)
    store.put(layout.extension_key(2), other.read(layout.extension_key(2)))

    with pytest.raises(InputError, match="belongs to run"):
        read_manifest(store)
