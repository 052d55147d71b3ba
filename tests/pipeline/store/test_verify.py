"""What verify finds in a run that was really damaged, and that it finds nothing in a whole one."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.fake import Fake
from pipeline.pictures import encode_webp
from pipeline.plan.reruns import RerunSelection, open_rerun
from pipeline.store import layout, objects
from pipeline.store.objects import Store
from pipeline.store.patient import PatientStore
from pipeline.store.plans import (
    PlanRow,
    read_manifest,
    read_plan_shard,
    try_commit_extension,
    write_plan_shard,
)
from pipeline.store.shard_check import Finding
from pipeline.store.traces import read_footer, read_rows
from pipeline.store.verify import PlannedKeys, Verification
from schemas.config import Pictures
from schemas.errors import StoreUnavailable
from schemas.runs import PlanPart, RunManifest
from schemas.scores import SCORES_KEY, ScoresFooter, parse_scorer, scores_schema
from tests.support import (
    SMALL,
    Wrapped,
    at_work,
    attempt_at,
    bring_back,
    fake_config,
    fake_method,
    plan_run,
    replace_object,
    rerun_of,
    run_all,
)

Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "FIRST_PAUSE_SECONDS", 0.001)


@pytest.fixture
def manifest(store: Store) -> RunManifest:
    """A whole run of 3 shards of 4 rollouts, about half of them dead."""
    method = fake_method(SMALL.model_copy(update={"dead_share": 0.5}), pictures=Pictures.ALL)
    manifest = plan_run(store, 6, fake_config(method), rollouts_per_record=2, rollouts_per_shard=4)
    run_all(store, manifest, attempt=2)
    return manifest


def dead_shard(store: Store, manifest: RunManifest) -> int:
    """A shard with at least two dead keys."""
    counts = (read_counts(store, shard) for shard in range(manifest.num_shards))
    return next(shard for shard, (_, num_dead) in enumerate(counts) if num_dead > 1)


def read_counts(store: Store, shard: int) -> tuple[int, int]:
    footer = read_footer(store, shard)
    return footer.num_ok, footer.num_dead


def found(
    store: Store, manifest: RunManifest | None = None, *, deep: bool = False
) -> list[Finding]:
    manifest = manifest or read_manifest(store)
    return list(Verification(store, manifest, is_deep=deep).findings())


def only(findings: Iterable[Finding]) -> Finding:
    (finding,) = findings
    return finding


def extend(store: Store, manifest: RunManifest, **changes: Any) -> PlanPart:
    """Commit a part of one more shard, with the third rollout of each record of shard 0."""
    rows = [
        PlanRow(
            record_id=row.record_id,
            prompt=row.prompt,
            metadata=row.metadata,
            rollout_start=2,
            rollout_stop=3,
        )
        for row in read_plan_shard(store, manifest, 0)
    ]
    number = len(manifest.parts) + 1
    fields = manifest.plan.model_dump() | {
        "number": number,
        "folder": layout.plan_folder(number, "abc"),
        "first_shard": manifest.num_shards,
        "num_shards": 1,
        "num_rollouts": len(rows),
        "digests": "",
    }
    part = PlanPart.model_validate(fields | changes)
    write_plan_shard(store, part.folder, manifest.num_shards, rows)
    assert try_commit_extension(store, manifest, part)
    return part


# Whole runs


def test_a_run_with_supplements_is_whole(store: Store, manifest: RunManifest, tmp_path: Path):
    shard = dead_shard(store, manifest)
    bring_back(store, manifest, shard, tmp_path, num_keys=1, num_in_vain=1)
    bring_back(store, manifest, shard, tmp_path, num_keys=0, num_in_vain=1)
    bring_back(store, manifest, shard, tmp_path)

    assert found(store) == []
    assert found(store, deep=True) == []


def test_a_run_that_was_really_rerun_is_whole(store: Store, manifest: RunManifest):
    for share in (1.0, 0.5, 0.0):  # of the records that die again
        opened = open_rerun(store, manifest, RerunSelection())
        assert opened
        fake = Fake(SMALL.model_copy(update={"dead_share": share}))
        with at_work(store, manifest, backend=fake) as worker:
            for shard in opened.left:
                worker.run_shard(rerun_of(shard, opened, 2))
    verification = Verification(store, manifest, is_deep=True)

    assert list(verification.findings()) == []
    assert (verification.num_ok, verification.num_dead) == (12, 0)


def test_planned_is_ok_and_dead_and_missing(store: Store, tmp_path: Path):
    method = fake_method(SMALL.model_copy(update={"dead_share": 0.5}))
    manifest = plan_run(store, 9, fake_config(method), rollouts_per_shard=2)
    with at_work(store, manifest) as worker:
        for shard in (0, 2, 3):
            worker.run_shard(attempt_at(shard, 2))
    for shard in (0, 2, 3):
        if read_counts(store, shard)[1]:
            bring_back(store, manifest, shard, tmp_path, num_keys=1)

    verification = Verification(store, manifest)

    assert list(verification.findings()) == []
    assert verification.num_committed == 3
    assert (verification.num_planned, verification.num_missing) == (9, 3)
    assert verification.num_ok + verification.num_dead == 6


def test_an_extended_run_is_whole_before_and_after_it_is_grown(store: Store, manifest: RunManifest):
    extend(store, manifest)
    assert found(store) == []

    run_all(store, read_manifest(store))

    assert found(store, deep=True) == []


def test_what_comes_while_verify_is_at_work_is_no_damage(store: Store, manifest: RunManifest):
    """The manifest was read before the run was extended and the new shard grown."""
    extend(store, manifest)
    run_all(store, read_manifest(store))

    assert found(store, manifest) == []


class Flaky(Wrapped):
    """Every other call finds the store away."""

    num_calls = 0

    def _blink(self) -> None:
        self.num_calls += 1
        if self.num_calls % 2:
            raise StoreUnavailable("blink")

    def read(self, key: str) -> bytes:
        self._blink()
        return bytes(self.store.read(key))

    def size(self, key: str) -> int:
        self._blink()
        return int(self.store.size(key))


def test_a_store_that_blinks_is_asked_again(store: Store, manifest: RunManifest):
    verification = Verification(PatientStore(Flaky(store), patience_seconds=60), manifest)

    assert list(verification.findings()) == []
    with pytest.raises(StoreUnavailable):
        list(Verification(Flaky(store), manifest).findings())


# The plan


def test_a_plan_file_that_is_gone_is_found_and_its_shard_still_counted(
    store: Store, manifest: RunManifest
):
    key = layout.plan_key(manifest.plan.folder, 1)
    store.delete(key)

    finding = only(found(store))

    assert (finding.shard, finding.key, finding.found) == (1, key, "nothing")
    assert not finding.can_repair


@pytest.mark.parametrize("body", [b"", b"not Parquet at all", b"PAR1 and no more"])
def test_a_plan_file_that_cannot_be_read_is_found(store: Store, manifest: RunManifest, body: bytes):
    store.put(layout.plan_key(manifest.plan.folder, 1), body)

    finding = only(found(store))

    assert finding.shard == 1
    assert "cannot be read" in finding.found


def test_a_plan_file_with_a_rollout_too_few_is_found(store: Store, manifest: RunManifest):
    rows = read_plan_shard(store, manifest, 1)
    write_plan_shard(store, manifest.plan.folder, 1, rows[:-1])

    findings = found(store)

    assert {finding.shard for finding in findings} == {1}
    assert findings[0].found == "a plan of 2 rollouts"
    assert findings[0].expected == "a plan of 4 rollouts"


def test_a_plan_file_with_another_prompt_is_found(store: Store, manifest: RunManifest):
    rows = read_plan_shard(store, manifest, 1)
    changed = [replace(rows[0], prompt="something else"), *rows[1:]]
    write_plan_shard(store, manifest.plan.folder, 1, changed)

    finding = only(found(store))

    assert rows[0].record_id in finding.found
    assert not finding.can_repair


def test_a_key_that_is_planned_in_two_shards_is_found(store: Store):
    manifest = plan_run(store, 4, rollouts_per_record=2, rollouts_per_shard=4)
    write_plan_shard(store, manifest.plan.folder, 1, read_plan_shard(store, manifest, 0))
    older = manifest.plan.model_copy(update={"digests": ""})

    findings = found(store, manifest.model_copy(update={"plan": older}))

    assert len(findings) == 2
    assert {finding.shard for finding in findings} == {1}
    assert all("also in shard 0" in finding.found for finding in findings)


class Ranges(list[tuple[int, int]]):
    """Rollouts of one record, as (start, stop)."""

    def overlap(self) -> bool:
        keys = [rollout for start, stop in self for rollout in range(start, stop)]
        return len(keys) != len(set(keys))


ranges = st.tuples(st.integers(0, 12), st.integers(1, 5)).map(lambda at: (at[0], at[0] + at[1]))


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(ranges, max_size=5).map(Ranges)))
def test_overlaps_of_ranges_are_found_by_record(planned: dict[str, Ranges]):
    keys = PlannedKeys()
    for record, of_record in planned.items():
        for start, stop in of_record:
            row = PlanRow(
                record_id=record,
                prompt="",
                metadata={},
                rollout_start=start,
                rollout_stop=stop,
            )
            keys.add([row])

    assert len(keys.planned_twice()) == sum(each.overlap() for each in planned.values())


def test_a_hash_that_two_records_share_is_no_clash(
    store: Store, manifest: RunManifest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pipeline.store.verify._hash", lambda record_id: 7)

    assert found(store) == []


def test_a_part_that_does_not_follow_the_one_before_it_is_found(
    store: Store, manifest: RunManifest
):
    extend(store, manifest, first_shard=4)

    assert any(
        finding.key == layout.extension_key(2) and finding.expected == "part 2, shards 3 to 3"
        for finding in found(store)
    )


def test_a_part_that_is_gone_while_a_later_one_stands_is_found(store: Store, manifest: RunManifest):
    extend(store, manifest)
    extend(store, read_manifest(store))
    store.delete(layout.extension_key(2))

    finding = only(found(store))

    assert finding.key == layout.extension_key(3)
    assert layout.extension_key(2) in finding.expected


# Data objects


def test_a_base_that_is_gone_is_missing_and_no_damage(store: Store, manifest: RunManifest):
    store.delete(layout.traces_key(1))
    verification = Verification(store, manifest)

    assert list(verification.findings()) == []
    assert (verification.num_missing, verification.num_committed) == (4, 2)


def test_a_supplement_whose_base_vanished_is_found(
    store: Store, manifest: RunManifest, tmp_path: Path
):
    shard = dead_shard(store, manifest)
    bring_back(store, manifest, shard, tmp_path)
    store.delete(layout.traces_key(shard))

    finding = only(found(store))

    assert (finding.shard, finding.key) == (shard, layout.traces_key(shard, 1))
    assert layout.traces_key(shard) in finding.expected
    assert finding.can_repair


@pytest.mark.parametrize("also_base", [False, True])
def test_a_supplement_whose_forerunner_vanished_is_found(
    store: Store, manifest: RunManifest, tmp_path: Path, also_base: bool
):
    shard = dead_shard(store, manifest)
    bring_back(store, manifest, shard, tmp_path, num_keys=1)
    bring_back(store, manifest, shard, tmp_path)
    store.delete(layout.traces_key(shard, 1))
    if also_base:
        store.delete(layout.traces_key(shard))

    finding = only(found(store))

    assert (finding.shard, finding.key) == (shard, layout.traces_key(shard, 2))
    assert layout.traces_key(shard, 0 if also_base else 1) in finding.expected
    assert finding.can_repair


@pytest.mark.parametrize("keep", [0, 4, 400, -4])
def test_an_object_that_was_cut_short_is_found(store: Store, manifest: RunManifest, keep: int):
    key = layout.traces_key(1)
    store.put(key, store.read(key)[:keep])

    finding = only(found(store))

    assert (finding.key, finding.can_repair) == (key, True)
    assert "cannot be read" in finding.found


def without_first(rows: Rows) -> Rows:
    return rows[1:]


def with_first_twice(rows: Rows) -> Rows:
    return [rows[0], *rows]


def with_a_stranger(rows: Rows) -> Rows:
    return [*rows, rows[0] | {"record_id": "0123456789abcdef"}]


def without_reasons(rows: Rows) -> Rows:
    return [row | {"dead_reason": None} for row in rows]


def with_a_code_too_few(rows: Rows) -> Rows:
    return [row | {"codes": row["codes"][:-1]} for row in rows]


def with_a_state_of_its_own(rows: Rows) -> Rows:
    return [rows[0] | {"status": "done"}, *rows[1:]]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without_first, "no row for"),
        (with_first_twice, "a second row"),
        (with_a_stranger, "rows for 0123456789abcdef rollout"),
        (without_reasons, "dead without a reason"),
        (with_a_code_too_few, "ok without the 16 codes"),
        (with_a_state_of_its_own, "neither ok nor dead"),
    ],
)
def test_rows_that_no_worker_writes_are_found(
    store: Store, manifest: RunManifest, damage: Callable[[Rows], Rows], words: str
):
    for shard in range(manifest.num_shards):
        replace_object(store, shard, rows=damage)

    findings = found(store)

    assert any(words in finding.found for finding in findings), findings
    assert all(finding.can_repair for finding in findings)


@pytest.mark.parametrize(
    ("footer", "words"),
    [
        ({"num_ok": 3, "num_dead": 3}, "3 ok and 3 dead, as its footer says"),
        ({"shard": 2}, "its own footer"),
        ({"supplement": 1}, "its own footer"),
    ],
)
def test_a_footer_that_does_not_fit_is_found(
    store: Store, manifest: RunManifest, footer: dict[str, int], words: str
):
    replace_object(store, 1, footer=footer)

    finding = only(found(store))

    assert finding.expected == words
    assert finding.can_repair


@pytest.mark.parametrize("other", [{"run_id": "another-run"}, {"fingerprint": "another-method"}])
def test_an_object_of_another_run_is_found_and_cannot_be_repaired(
    store: Store, manifest: RunManifest, other: dict[str, str]
):
    replace_object(store, 1, footer=other)
    verification = Verification(store, manifest)

    finding = only(verification.findings())

    assert finding.key == layout.traces_key(1)
    assert next(iter(other.values())) in finding.found
    assert not finding.can_repair
    assert verification.num_missing == 4  # its rows count for nothing here


@pytest.mark.parametrize(
    "name", ["notes.txt", "shard-00000.parquet.part", "shard-00003.parquet", "shard-000001.parquet"]
)
def test_an_object_that_nobody_planned_is_found(store: Store, manifest: RunManifest, name: str):
    store.put(f"{layout.TRACES}/{name}", b"something else")

    finding = only(found(store))

    assert (finding.shard, finding.key) == (None, f"{layout.TRACES}/{name}")


class Lagging(Wrapped):
    """Lists an object that is gone."""

    def list_folder(self, folder: str) -> Iterable[objects.Entry]:
        yield from self.store.list_folder(folder)
        yield objects.Entry(key=f"{folder}/gone.parquet", size_bytes=1)
        yield objects.Entry(key=layout.traces_key(0, 1), size_bytes=1)


def test_a_list_alone_proves_nothing(store: Store, manifest: RunManifest):
    assert found(Lagging(store), manifest) == []


# Supplements


@pytest.fixture
def supplemented(store: Store, manifest: RunManifest, tmp_path: Path) -> int:
    """A shard with two supplements, of one key each."""
    shard = dead_shard(store, manifest)
    bring_back(store, manifest, shard, tmp_path, num_keys=1)
    bring_back(store, manifest, shard, tmp_path, num_keys=1)
    return shard


def test_a_key_that_two_supplements_brought_back_is_found(store: Store, supplemented: int):
    store.put(layout.traces_key(supplemented, 2), store.read(layout.traces_key(supplemented, 1)))

    findings = found(store)

    assert {finding.key for finding in findings} == {layout.traces_key(supplemented, 2)}
    assert any("dead in the base and all supplements before" in f.expected for f in findings)
    assert any(finding.expected == "its own footer" for finding in findings)


def test_a_dead_row_in_a_supplement_is_found(store: Store, supplemented: int):
    def die(rows: Rows) -> Rows:
        return [row | {"status": "dead", "dead_reason": "crash"} for row in rows]

    replace_object(store, supplemented, 1, rows=die, footer={"num_ok": 0, "num_dead": 1})

    assert any(finding.expected == "ok rows only" for finding in found(store))


def test_a_note_in_vain_of_a_key_that_lives_is_found(store: Store, supplemented: int):
    alive = next(
        (row["record_id"], row["rollout_index"]) for row in read_rows(store, supplemented, 1)
    )
    replace_object(store, supplemented, 2, footer={"in_vain": (alive,)})

    finding = only(found(store))

    assert finding.key == layout.traces_key(supplemented, 2)
    assert "in vain" in finding.found


def test_supplements_of_a_shard_that_was_made_again_are_found(store: Store, supplemented: int):
    def live(rows: Rows) -> Rows:
        return [row | {"status": "ok", "dead_reason": None, "codes": [7] * 16} for row in rows]

    replace_object(store, supplemented, rows=live, footer={"num_ok": 4, "num_dead": 0})

    keys = [layout.traces_key(supplemented, number) for number in (1, 2)]
    assert [finding.key for finding in found(store)] == keys


# Deep


def test_other_tokens_than_the_footer_vouches_for_are_found_only_by_reading_all(
    store: Store, manifest: RunManifest
):
    def change(rows: Rows) -> Rows:
        rows[0]["events"][0]["token_ids"] = [1, 2, 3]
        return rows

    replace_object(store, 1, rows=change)

    assert found(store) == []
    assert "digest" in only(found(store, deep=True)).found


@pytest.mark.parametrize("data", [b"", b"no picture", None])
def test_a_picture_that_cannot_be_shown_is_found_only_by_reading_all(
    store: Store, manifest: RunManifest, data: bytes | None
):
    body = encode_webp(np.zeros((8, 8, 3), np.uint8)) if data is None else data

    def change(rows: Rows) -> Rows:
        return [
            row | {"images": [image | {"bytes": body} for image in row["images"]]} for row in rows
        ]

    shard = next(n for n in range(3) if any(row["images"] for row in read_rows(store, n)))
    replace_object(store, shard, rows=change)

    assert found(store) == []
    assert "a picture that" in only(found(store, deep=True)).found


@pytest.mark.parametrize("column", ["worker", "codes", "status"])
def test_a_flipped_bit_is_found_where_it_is_read(store: Store, manifest: RunManifest, column: str):
    key = layout.traces_key(1)
    body = bytearray(store.read(key))
    group = pq.ParquetFile(pa.BufferReader(bytes(body))).metadata.row_group(0)
    chunk = next(
        chunk
        for chunk in map(group.column, range(group.num_columns))
        if chunk.path_in_schema.startswith(column)
    )
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    body[start + chunk.total_compressed_size - 2] ^= 16
    store.put(key, bytes(body))

    assert only(found(store, deep=True)).key == key
    assert bool(found(store)) is (column != "worker")


# Numbers that are none


def an_event(row: dict[str, Any], role: str = "draw") -> dict[str, Any]:
    event: dict[str, Any] = next(event for event in row["events"] if event["role"] == role)
    return event


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "column",
    [
        *("events.logp_sample", "events.logp_cond", "events.score"),
        *("events.duration_seconds", "duration_seconds"),
    ],
)
def test_a_number_that_is_none_is_found_with_its_row_and_column(
    store: Store, manifest: RunManifest, column: str, value: float
):
    broken: list[str] = []

    def spoil(rows: Rows) -> Rows:
        row = next(row for row in rows if row["status"] == "ok")
        broken.append(row["record_id"])
        name = column.rpartition(".")[2]
        if column == name:
            row[name] = value
        elif name.startswith("logp"):
            an_event(row)[name][-1] = value
        else:
            an_event(row)[name] = value
        return rows

    replace_object(store, 1, rows=spoil)

    assert found(store) == []
    finding = only(found(store, deep=True))
    assert (finding.shard, finding.key) == (1, layout.traces_key(1))
    assert f"not finite in {column}: {broken[0]} rollout " in finding.found
    assert finding.can_repair
    assert "coppice repair" in finding.advice


def test_numbers_of_any_size_and_none_at_all_are_no_damage(store: Store, manifest: RunManifest):
    def change(rows: Rows) -> Rows:
        for row in rows:
            for event in row["events"]:
                event["score"], event["duration_seconds"] = None, 1e-45
                if event["logp_cond"]:
                    event["logp_cond"][0], event["logp_sample"] = -3e38, None
        return rows

    replace_object(store, 0, rows=change)

    assert found(store, deep=True) == []


def put_scores(store: Store, name: str, rows: Rows, scorer: str = "mine@1") -> str:
    footer = ScoresFooter(
        scorer=parse_scorer(scorer),
        source=name,
        source_digest="",
        num_rows=len(rows),
        digest="",
        settings=None,
    )
    columns = scores_schema({"value": "float32", "hash": "uint64", "other": "float32"})
    schema = columns.with_metadata({SCORES_KEY: footer.as_json()})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink)
    key = f"scores/{scorer}/{name}"
    store.put(key, sink.getvalue().to_pybytes())
    return key


def test_scores_that_are_none_are_found_beside_the_traces(store: Store, manifest: RunManifest):
    nothing = {"hash": None, "value": None, "other": None, "tokens": "ab"}
    sound = [{**nothing, "trace_id": "t-1", "event": None, "value": 1.0}]
    put_scores(store, "shard-00000.parquet", sound)
    rows = [
        {**nothing, "trace_id": "t-1", "event": None, "other": float("inf")},
        {**nothing, "trace_id": "t-2", "event": 3, "other": float("nan")},
        {**nothing, "trace_id": "t-3", "event": 0, "hash": 2**64 - 1, "value": -0.0},
    ]
    key = put_scores(store, "shard-00002.parquet", rows)

    assert found(store) == []
    finding = only(found(store, deep=True))
    assert (finding.shard, finding.key, finding.can_repair) == (2, key, False)
    assert finding.found == "scores that are not finite in other: t-1, t-2 event 3"
    assert "coppice score" in finding.advice
    assert "--scorer mine" in finding.advice


def test_a_sidecar_that_cannot_be_read_is_found(store: Store, manifest: RunManifest):
    store.put("scores/mine@1/shard-00001.parquet", b"PAR1, and then nothing")
    store.put("scores/mine@1/notes.txt", b"not ours")

    finding = only(found(store, deep=True))
    assert finding.key == "scores/mine@1/shard-00001.parquet"
    assert "cannot be read" in finding.found
