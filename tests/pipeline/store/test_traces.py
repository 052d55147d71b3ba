"""What a shard file holds, and who else can read it."""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow

from pipeline.store import layout
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.traces import TraceWriter, read_footer, read_rows, try_read_footer
from pipeline.twig.schedules import equal_bands
from schemas.errors import ObjectMissing
from schemas.geometry import Geometry
from schemas.ids import record_id
from schemas.tables import STACK, TRACES
from schemas.trace import (
    TRACE_VERSION,
    Event,
    Finish,
    Image,
    Reflection,
    Role,
    Schedule,
    Status,
    Trace,
    Verdict,
)
from tests.support import Wrapped, some_event, some_origin, some_trace, write_shard

SCHEDULE: Schedule = equal_bands(Geometry(image_size=32, rows=4, columns=4, num_codes=512), 1)
REVISE = Reflection(verdict=Verdict.REVISE, score=40.0, better_thought="a redder cube")
UNREADABLE = Reflection(
    verdict=Verdict.UNPARSEABLE, score=None, better_thought="", problem="no score"
)
PIXELS = [(255, 0, 0), (0, 0, 255)]  # a picture each: red, then blue


def picture(colour: tuple[int, int, int]) -> Image:
    sink = io.BytesIO()
    Pillow.new("RGB", (8, 8), colour).save(sink, "WEBP", lossless=True)
    return Image(data=sink.getvalue(), path="-".join(map(str, colour)) + ".webp")


def drawn(index: int, revision: int, **changes: Any) -> Event:
    return some_event(
        index,
        Role.DRAW,
        revision=revision,
        seed=2**64 - 1 - revision,
        codes=tuple(range(revision, revision + 16)),
        logp_sample=(-0.5,) * 16,
        logp_cond=(-0.25,) * 16,
        **changes,
    )


def reflected(index: int, reflection: Reflection, **changes: Any) -> Event:
    return some_event(index, Role.REFLECT, reflection=reflection, token_ids=(7, 8), **changes)


def full_trace() -> Trace:
    """One region, thought of, drawn, judged and drawn again, with both pictures."""
    thought = some_event(0, token_ids=(9, 10, 11), finish=Finish.STOP)
    return some_trace(
        "un caf\u00e9 \U0001f33f",
        rollout_index=3,
        metadata={"category": "colour", "counts": [1, None], "note": "caf\u00e9"},
        schedule=SCHEDULE,
        events=(
            thought,
            drawn(1, 0, superseded_by=3, picture=0),
            reflected(2, REVISE, finish=Finish.LENGTH),
            drawn(3, 1, picture=1),
        ),
        codes=tuple(range(1, 17)),
        final_picture=1,
        images=tuple(picture(colour) for colour in PIXELS),
    )


def dead_trace() -> Trace:
    """Given up on after a first critique that cannot be read."""
    return some_trace(
        "a cursed cube",
        status=Status.DEAD,
        events=(drawn(0, 0), reflected(1, UNREADABLE)),
        codes=(),
        dead_reason="too_long",
        dead_message="the question has 5000 tokens",
    )


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """A closed shard file of a finished and a dead rollout."""
    write_shard(tmp_path / "shard.parquet", full_trace(), dead_trace())
    return tmp_path / "shard.parquet"


def put_shard(store: Store, path: Path, number: int = 0) -> None:
    assert store.put_if_absent(layout.traces_key(number), path)


def as_stored(event: Event) -> dict[str, Any]:
    """An event as a row shows it: flat, with lists, and nulls for what does not apply."""
    row = asdict(event)
    row.pop("usage")  # of an endpoint: it goes into the footer
    reflection = row.pop("reflection") or dict.fromkeys(Reflection.__slots__)
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in (row | reflection).items()
    }


# What comes back


def test_a_rollout_comes_back_as_it_went_in(store: Store, shard: Path):
    put_shard(store, shard)

    row, _ = read_rows(store, 0)

    trace = full_trace()
    assert (row["record_id"], row["rollout_index"]) == (trace.record_id, 3)
    assert (row["prompt"], json.loads(row["metadata"])) == (trace.prompt, trace.metadata)
    assert (row["status"], row["dead_reason"], row["dead_message"]) == ("ok", None, None)
    assert (row["schedule_source"], row["region_stops"]) == ("equal", [16])
    assert row["events"] == [as_stored(event) for event in trace.events]
    assert row["codes"] == list(trace.codes)
    assert row["final_picture"] == 1
    assert row["images"] == [{"bytes": image.data, "path": image.path} for image in trace.images]
    assert row["started_at"] == datetime.fromtimestamp(1_700_000_000.25, UTC)
    assert row["duration_seconds"] == 2.5


def test_a_dead_rollout_keeps_its_reason_and_the_events_that_it_had(store: Store, shard: Path):
    put_shard(store, shard)

    _, row = read_rows(store, 0)

    assert (row["status"], row["dead_reason"]) == ("dead", "too_long")
    assert row["dead_message"] == "the question has 5000 tokens"
    assert row["events"] == [as_stored(event) for event in dead_trace().events]
    assert row["codes"] == []


def test_every_row_says_where_it_comes_from(store: Store, tmp_path: Path):
    stack = {field.name: f"some {field.name}" for field in STACK}
    origin = some_origin(shard=7, attempt=2, stack=stack)
    write_shard(tmp_path / "shard", some_trace(), some_trace("a dog"), origin=origin)
    put_shard(store, tmp_path / "shard", 7)

    for row in read_rows(store, 7):
        assert row["trace_version"] == TRACE_VERSION
        assert row["trace_id"] == f"some-run-{row['record_id']}-0"
        assert (row["run_id"], row["fingerprint"]) == ("some-run", origin.fingerprint)
        assert (row["attempt_id"], row["worker"]) == (origin.attempt_id, "some-worker")
        assert (row["program"], row["run_seed"]) == ("think-while", 0)
        assert row["model"] == {"name": "fake", "digest": "none"}
        assert row["pack"] == origin.method.pack.model_dump()
        assert row["stack"] == stack


def test_what_does_not_apply_is_null_and_never_zero_or_false_or_empty(store: Store, shard: Path):
    put_shard(store, shard)

    row, dead = read_rows(store, 0)

    thought, drawing, *_ = row["events"]
    judgement = ("score", "verdict", "better_thought", "problem")
    assert {name: thought[name] for name in judgement} == dict.fromkeys(judgement)
    greedy = ("seed", "logp_sample", "logp_cond", "superseded_by", "picture")
    assert {name: thought[name] for name in greedy} == dict.fromkeys(greedy)
    assert (drawing["raw_text"], drawing["finish"]) == (None, None)
    assert dead["events"][1]["score"] is None  # a critique without a number
    absent = ("schedule_source", "region_stops", "final_picture")
    assert {name: dead[name] for name in absent} == dict.fromkeys(absent)


def test_zero_stays_zero(store: Store, tmp_path: Path):
    zero = Reflection(verdict=Verdict.REVISE, score=0.0, better_thought="all of it")
    event = reflected(0, zero, seed=0, superseded_by=0, picture=0, logp_sample=(0.0,))
    write_shard(tmp_path / "shard", some_trace(events=(event,), final_picture=0))
    put_shard(store, tmp_path / "shard")

    [row] = read_rows(store, 0)

    assert row["final_picture"] == 0
    assert row["events"] == [as_stored(event)]


def test_columns_can_be_read_alone(store: Store, shard: Path):
    put_shard(store, shard)

    rows = list(read_rows(store, 0, columns=["rollout_index", "status"]))

    assert rows == [
        {"rollout_index": 3, "status": "ok"},
        {"rollout_index": 0, "status": "dead"},
    ]


# The file, and other readers of it


def test_the_file_has_the_schema_of_this_version(shard: Path):
    assert pq.read_schema(shard).equals(TRACES)


def test_hugging_face_datasets_shows_the_pictures(
    shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    from datasets import load_dataset

    rows = load_dataset(
        "parquet", data_files=str(shard), split="train", cache_dir=str(tmp_path / "cache")
    )

    assert all(isinstance(image, Pillow.Image) for image in rows[0]["images"])
    assert [image.convert("RGB").getpixel((0, 0)) for image in rows[0]["images"]] == PIXELS
    assert rows[1]["images"] == []
    assert rows[0]["events"][3]["codes"] == list(range(1, 17))


def test_duckdb_reads_rows_and_nested_events(shard: Path):
    found = duckdb.sql(
        f"""
        select record_id, event.role, len(event.codes), event.score
        from (select record_id, unnest(events) as event from '{shard}' where status = 'ok')
        order by event.index
        """
    ).fetchall()

    name = record_id(full_trace().prompt)
    assert found == [
        (name, "think", 0, None),
        (name, "draw", 16, None),
        (name, "reflect", 0, 40.0),
        (name, "draw", 16, None),
    ]


def test_pandas_reads_rows_and_nested_events(shard: Path):
    frame = pd.read_parquet(shard)

    assert list(frame["status"]) == ["ok", "dead"]
    assert [event["role"] for event in frame["events"][0]] == ["think", "draw", "reflect", "draw"]
    assert frame["events"][1][1]["verdict"] == "unparseable"


def test_pictures_are_not_compressed_twice_and_all_else_is_zstd(shard: Path):
    columns = each_column(shard)

    compression = {column.path_in_schema: column.compression for column in columns}
    assert compression.pop("images.list.element.bytes") == "UNCOMPRESSED"
    assert set(compression.values()) == {"ZSTD"}


def test_every_column_has_a_page_index(shard: Path):
    assert all(column.has_offset_index for column in each_column(shard))


def each_column(path: Path) -> list[Any]:
    group = pq.ParquetFile(path).metadata.row_group(0)
    return [group.column(index) for index in range(group.num_columns)]


@pytest.mark.parametrize("where", [b"RIFF", b"un caf"])
def test_a_flipped_bit_in_a_page_is_noticed(tmp_path: Path, where: bytes):
    # Prompts that do not compress stand in their page as they are.
    traces = [some_trace(f"un caf {Random(i).random()}", images=(picture(PIXELS[0]),)) for i in [0]]
    write_shard(tmp_path / "shard", *traces)
    body = bytearray((tmp_path / "shard").read_bytes())
    place = body.find(where)
    assert place > 0
    body[place + 2] ^= 1
    (tmp_path / "shard").write_bytes(body)

    with pytest.raises(OSError, match="CRC"):
        pq.read_table(tmp_path / "shard", page_checksum_verification=True)


def heavy_traces(number: int, size_bytes: int) -> list[Trace]:
    random = Random(0)
    return [
        some_trace(f"prompt {i}", images=(Image(data=random.randbytes(size_bytes), path="x"),))
        for i in range(number)
    ]


def test_row_groups_are_bounded_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipeline.store.traces.ROW_GROUP_BYTES", 100_000)
    traces = heavy_traces(20, 30_000)
    write_shard(tmp_path / "shard", *traces)

    metadata = pq.ParquetFile(tmp_path / "shard").metadata
    sizes = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
    assert metadata.num_rows == 20
    assert max(sizes) < 100_000 + 2 * 30_000  # the row that fills a group is in it
    assert len(sizes) == 5


def test_a_file_without_rows_is_still_a_table(tmp_path: Path):
    footer = write_shard(tmp_path / "shard")

    assert footer.num_rows == 0
    assert pq.read_table(tmp_path / "shard").num_rows == 0


def test_a_file_that_was_not_closed_is_no_parquet_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pipeline.store.traces.ROW_GROUP_BYTES", 1)  # every row is written at once
    writer = TraceWriter(tmp_path / "shard", some_origin())
    writer.add(full_trace())
    writer.add(dead_trace())
    as_after_a_crash = (tmp_path / "shard").read_bytes()

    assert as_after_a_crash
    with pytest.raises(pa.ArrowInvalid):
        pq.read_table(io.BytesIO(as_after_a_crash))
    writer.close("1.2.3")


# The footer


def test_the_footer_says_who_wrote_the_shard_and_what_is_in_it(store: Store, tmp_path: Path):
    origin = some_origin(shard=3, attempt=2)
    written = write_shard(tmp_path / "shard", full_trace(), dead_trace(), origin=origin)
    put_shard(store, tmp_path / "shard", 3)

    footer = read_footer(store, 3)

    assert footer == written
    assert (footer.run_id, footer.fingerprint) == ("some-run", origin.fingerprint)
    assert (footer.shard, footer.attempt, footer.attempt_id) == (3, 2, origin.attempt_id)
    assert (footer.num_ok, footer.num_dead, footer.num_rows) == (1, 1, 2)
    assert footer.coppice_version == "1.2.3"


def test_a_shard_that_is_not_committed_has_no_footer(store: Store):
    assert try_read_footer(store, 0) is None
    with pytest.raises(ObjectMissing):
        read_footer(store, 0)
    with pytest.raises(ObjectMissing):
        list(read_rows(store, 0))


def digest_of(path: Path, traces: Sequence[Trace]) -> str:
    return write_shard(path, *traces).digest


def test_the_digest_is_of_what_was_made_and_not_of_how(tmp_path: Path):
    first, second = full_trace(), dead_trace()
    digest = digest_of(tmp_path / "a", [first, second])

    assert digest_of(tmp_path / "b", [second, first]) == digest
    slower = replace(first, duration_seconds=99.0, started_at=1.0, images=(), final_picture=None)
    assert digest_of(tmp_path / "c", [slower, second]) == digest


def changed(trace: Trace, index: int, **changes: Any) -> Trace:
    """The trace with one of its events changed."""
    events = list(trace.events)
    events[index] = replace(events[index], **changes)
    return replace(trace, events=tuple(events))


@pytest.mark.parametrize(
    "other",
    [
        changed(full_trace(), 0, token_ids=(9, 10, 12)),
        changed(full_trace(), 1, codes=(*range(15), 99)),  # of a drawing that was replaced
        replace(full_trace(), codes=(*range(1, 16), 99)),
        replace(full_trace(), events=full_trace().events[:-1]),
        replace(full_trace(), rollout_index=4),
        replace(full_trace(), record_id="0" * 16),
        replace(full_trace(), status=Status.DEAD),
    ],
    ids=["word", "replaced drawing", "picture", "event", "rollout", "record", "status"],
)
def test_the_digest_tells_what_differs_in_a_single_token_key_or_state(tmp_path: Path, other: Trace):
    assert digest_of(tmp_path / "a", [full_trace()]) != digest_of(tmp_path / "b", [other])


class Metered(Wrapped):
    """Adds up the bytes of its ranged reads, and has no other."""

    num_bytes = 0

    def read(self, key: str) -> bytes:
        raise AssertionError(f"all of {key} is read")

    def read_range(self, key: str, start: int, length: int) -> bytes:
        self.num_bytes += length
        return self.store.read_range(key, start, length)


def test_a_footer_is_read_from_the_end_of_the_object_alone(tmp_path: Path):
    store = open_store(str(tmp_path / "root"))
    written = write_shard(tmp_path / "shard", *heavy_traces(40, 100_000))
    put_shard(store, tmp_path / "shard")
    metered = Metered(store)

    assert read_footer(metered, 0) == written
    assert metered.num_bytes < store.size(layout.traces_key(0)) / 4
