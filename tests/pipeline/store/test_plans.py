"""Plans on storage: what comes back, and what is no run of ours."""

import io
import json
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.store import layout
from pipeline.store.objects import Store
from pipeline.store.plans import (
    PlanRow,
    commit_manifest,
    read_manifest,
    read_plan_shard,
    try_read_manifest,
    write_plan_shard,
)
from schemas.errors import InputError, ObjectMissing
from schemas.runs import RUN_FORMAT
from tests.support import plan_run

ROWS = [
    PlanRow(
        record_id="0123456789abcdef",
        prompt="un caf\u00e9 \U0001f33f",
        metadata={"tags": ["a", None], "deep": {"caf\u00e9": 1.5}},
        rollout_start=3,
        rollout_stop=7,
    ),
    PlanRow(
        record_id="fedcba9876543210",
        prompt="a red cube",
        metadata={},
        rollout_start=0,
        rollout_stop=1,
    ),
]


def test_a_shard_of_a_plan_comes_back_as_it_went_in(store: Store):
    manifest = plan_run(store)

    write_plan_shard(store, manifest.plan.folder, 0, ROWS)

    assert read_plan_shard(store, manifest, 0) == ROWS


def test_any_parquet_reader_reads_a_plan(store: Store):
    write_plan_shard(store, "plan/0001-abc", 0, ROWS)

    rows = pq.read_table(io.BytesIO(store.read("plan/0001-abc/shard-00000.parquet"))).to_pylist()

    assert [row["prompt"] for row in rows] == [row.prompt for row in ROWS]
    assert [json.loads(row["metadata"]) for row in rows] == [row.metadata for row in ROWS]


def test_equal_rows_make_equal_bytes(store: Store):
    for shard in (0, 1):
        write_plan_shard(store, "plan/0001-abc", shard, ROWS)

    first, second = (store.read(layout.plan_key("plan/0001-abc", shard)) for shard in (0, 1))
    assert first == second


def test_a_row_stands_for_a_range_of_rollouts():
    assert list(ROWS[0].rollout_keys()) == [("0123456789abcdef", index) for index in range(3, 7)]


def test_a_shard_that_the_plan_lost_is_missing(store: Store):
    manifest = plan_run(store)
    store.delete(layout.plan_key(manifest.plan.folder, 0))

    with pytest.raises(ObjectMissing):
        read_plan_shard(store, manifest, 0)


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
