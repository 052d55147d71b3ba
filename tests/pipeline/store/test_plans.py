"""Plans on storage: what comes back, and what is no run of ours."""

import io
import json
from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.store import layout
from pipeline.store.objects import Store
from pipeline.store.plans import (
    PlanRow,
    commit_manifest,
    plan_file,
    read_manifest,
    read_plan_shard,
    try_read_manifest,
    write_plan_shard,
)
from schemas.errors import DamagedPlan, InputError
from schemas.ids import record_id
from schemas.json_values import JsonObject
from schemas.runs import RUN_FORMAT, RunManifest
from tests.support import plan_run


def row_of(prompt: str, start: int, stop: int, metadata: JsonObject | None = None) -> PlanRow:
    return PlanRow(
        record_id=record_id(prompt),
        prompt=prompt,
        metadata=metadata or {},
        rollout_start=start,
        rollout_stop=stop,
    )


ROWS = [
    row_of("un caf\u00e9 \U0001f33f", 3, 7, {"tags": ["a", None], "deep": {"caf\u00e9": 1.5}}),
    row_of("a red cube", 0, 1),
]


def planned(store: Store, num_shards: int = 1) -> RunManifest:
    """A run whose plan has `ROWS` in each shard, as no planner would have it."""
    manifest = plan_run(store, 5 * num_shards, rollouts_per_shard=5)
    digests = [write_plan_shard(store, manifest.plan.folder, n, ROWS) for n in range(num_shards)]
    part = manifest.plan.model_copy(update={"digests": "".join(digests)})
    return manifest.model_copy(update={"plan": part})


def test_a_shard_of_a_plan_comes_back_as_it_went_in(store: Store):
    assert read_plan_shard(store, planned(store), 0) == ROWS


def test_any_parquet_reader_reads_a_plan(store: Store):
    write_plan_shard(store, "plan/0001-abc", 0, ROWS)

    rows = pq.read_table(io.BytesIO(store.read("plan/0001-abc/shard-00000.parquet"))).to_pylist()

    assert [row["prompt"] for row in rows] == [row.prompt for row in ROWS]
    assert [json.loads(row["metadata"]) for row in rows] == [row.metadata for row in ROWS]


def test_equal_rows_make_equal_bytes():
    first, second = (plan_file("plan/0001-abc", 3, ROWS) for _ in range(2))

    assert first == second
    assert first != plan_file("plan/0001-abc", 4, ROWS)


def test_a_row_stands_for_a_range_of_rollouts():
    assert list(ROWS[0].rollout_keys()) == [(ROWS[0].record_id, index) for index in range(3, 7)]


def test_a_file_that_the_plan_lost_is_named(store: Store):
    manifest = plan_run(store)
    store.delete(layout.plan_key(manifest.plan.folder, 0))

    with pytest.raises(DamagedPlan, match=r"shard-00000\.parquet: found nothing"):
        read_plan_shard(store, manifest, 0)


def cut(store: Store, key: str, other: str) -> None:
    del other
    store.put(key, store.read(key)[:-20])


def copied_from_another_shard(store: Store, key: str, other: str) -> None:
    store.put(key, store.read(other))


def written_by_hand(store: Store, key: str, other: str) -> None:
    """Whole, of this shard by its own word, and with other rows than were planned."""
    folder = key.rpartition("/")[0]
    store.put(key, plan_file(folder, 0, [row_of("a blue cube", 0, 5)]))


def of_another_run(store: Store, key: str, other: str) -> None:
    store.put(key, plan_file("plan/0001-of-another", 0, ROWS))


def a_flipped_bit(store: Store, key: str, other: str) -> None:
    body = bytearray(store.read(key))
    body[60] ^= 1  # in the first page
    store.put(key, bytes(body))


Spoil = Callable[[Store, str, str], None]
SPOILT = [cut, copied_from_another_shard, written_by_hand, of_another_run, a_flipped_bit]


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_file_that_is_not_the_one_that_was_planned_is_never_read(store: Store, spoil: Spoil):
    manifest = planned(store, num_shards=2)
    keys = [layout.plan_key(manifest.plan.folder, shard) for shard in (0, 1)]

    spoil(store, *keys)

    with pytest.raises(DamagedPlan, match="coppice repair"):
        read_plan_shard(store, manifest, 0)
    assert read_plan_shard(store, manifest, 1) == ROWS


def test_a_plan_of_an_older_version_has_no_digests_and_is_read(store: Store):
    manifest = planned(store)
    key = layout.plan_key(manifest.plan.folder, 0)
    table = pq.read_table(io.BytesIO(store.read(key))).replace_schema_metadata(None)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    store.put(key, sink.getvalue())
    older = manifest.plan.model_copy(update={"digests": ""})

    assert read_plan_shard(store, manifest.model_copy(update={"plan": older}), 0) == ROWS


# run.json


def test_a_folder_without_a_manifest_is_no_run(store: Store):
    assert try_read_manifest(store) is None
    with pytest.raises(InputError, match="coppice plan"):
        read_manifest(store)


def test_the_manifest_that_comes_first_stands(store: Store):
    first = plan_run(store)
    second = first.model_copy(update={"run_id": "another"})

    assert commit_manifest(store, second) == first
    assert read_manifest(store) == first


def test_a_manifest_comes_back_as_it_was_committed(store: Store):
    manifest = plan_run(store, rollouts_per_record=3)
    store.delete(layout.MANIFEST)

    assert commit_manifest(store, manifest) == manifest == read_manifest(store)


def edit_manifest(store: Store, **changes: Any) -> None:
    content = json.loads(store.read(layout.MANIFEST)) | changes
    store.put(layout.MANIFEST, json.dumps(content).encode())


@pytest.mark.parametrize("more", [{}, {"a_field_of_the_future": 1}])
def test_a_run_of_a_newer_format_asks_for_a_newer_version(store: Store, more: dict[str, int]):
    plan_run(store)
    edit_manifest(store, run_format=RUN_FORMAT + 1, **more)

    with pytest.raises(InputError, match="newer coppice"):
        read_manifest(store)


@pytest.mark.parametrize(
    "changes",
    [{"run_id": None}, {"unknown": 1}, {"plan": {}}, {"run_format": "new"}, {"config": 3}],
    ids=str,
)
def test_a_manifest_with_other_fields_is_refused(store: Store, changes: dict[str, Any]):
    plan_run(store)
    edit_manifest(store, **changes)

    with pytest.raises(InputError, match=r"run\.json is not a manifest"):
        try_read_manifest(store)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"null", b"\xff\xfe", b'{"run_id": "a"}'])
def test_what_is_no_manifest_is_refused(store: Store, body: bytes):
    store.put(layout.MANIFEST, body)

    with pytest.raises(InputError, match=r"run\.json is not a manifest"):
        read_manifest(store)
