"""Files of a stream: numbered, bounded, put when full, and the same bytes from the same rows."""

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.sets import part_files
from pipeline.sets.exports import EXPORTS
from pipeline.sets.part_files import ParquetStream, TarStream
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from schemas.rows import TextRow
from tests.pipeline.sets.hand_made import text_row

SCHEMA = pa.schema([("number", pa.int64())])


@pytest.fixture
def out(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "out"))


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def numbers(first: int, num: int) -> pa.Table:
    return pa.table({"number": range(first, first + num)}, schema=SCHEMA)


def named(*names: str) -> list[TextRow]:
    return [{**text_row(), "id": name} for name in names]


def test_a_full_file_is_put_and_the_next_one_has_the_next_number(
    out: Store, scratch: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(part_files, "ROW_GROUP_BYTES", 10 * 8)
    monkeypatch.setattr(part_files, "FILE_BYTES", 20 * 8)
    stream = ParquetStream(out, "sft/draw_1/train", SCHEMA, scratch)
    for first in range(0, 50, 5):
        stream.add(numbers(first, 5))
    keys = stream.close()

    assert keys == [f"sft/draw_1/train-0000{index}.parquet" for index in range(3)]
    files = [pq.ParquetFile(io.BytesIO(out.read(key))) for key in keys]
    assert [file.metadata.num_rows for file in files] == [20, 20, 10]
    assert [file.num_row_groups for file in files] == [2, 2, 1]
    rows = [number for file in files for number in file.read()["number"].to_pylist()]
    assert rows == list(range(50))
    assert stream.num_rows == 50
    assert not list(scratch.iterdir())


def test_what_is_left_is_put_when_a_stream_is_closed(out: Store, scratch: Path):
    stream = ParquetStream(out, "grpo/train", SCHEMA, scratch)
    stream.add(numbers(0, 3))
    assert not list(out.list_folder("grpo"))

    assert stream.close() == ["grpo/train-00000.parquet"]


def test_a_stream_without_rows_has_no_file(out: Store, scratch: Path):
    assert ParquetStream(out, "grpo/train", SCHEMA, scratch).close() == []
    assert TarStream(out, "exports/webdataset/train/part", scratch).close() == []


def test_a_tar_has_a_sample_beside_its_pictures(out: Store, scratch: Path):
    stream = TarStream(out, "exports/webdataset/train/part", scratch)
    rows = [{**text_row(num_pictures=2), "id": "a"}, {**text_row(num_pictures=0), "id": "b"}]
    stream.add(EXPORTS["webdataset"].table(rows))
    (key,) = stream.close()

    assert key == "exports/webdataset/train/part-00000.tar"
    assert stream.num_rows == 2
    with tarfile.open(fileobj=io.BytesIO(out.read(key))) as tar:
        assert tar.getnames() == ["a.json", "a.0.webp", "a.1.webp", "b.json"]
        owners = {(member.mtime, member.uid, member.uname) for member in tar.getmembers()}
        assert owners == {(0, 0, "")}


def test_a_full_tar_is_put_between_samples(
    out: Store, scratch: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(part_files, "FILE_BYTES", 1)
    stream = TarStream(out, "exports/webdataset/train/part", scratch)
    stream.add(EXPORTS["webdataset"].table(named("a", "b")))
    keys = stream.close()

    assert keys == [f"exports/webdataset/train/part-0000{index}.tar" for index in range(2)]
    for key, name in zip(keys, "ab", strict=True):
        with tarfile.open(fileobj=io.BytesIO(out.read(key))) as tar:
            assert tar.getnames() == [f"{name}.json", f"{name}.0.webp"]


def test_equal_rows_make_equal_bytes(tmp_path: Path, out: Store, scratch: Path):
    other = open_store(str(tmp_path / "other"))
    for store in (out, other):
        stream = TarStream(store, "part", scratch)
        stream.add(EXPORTS["webdataset"].table(named("a", "b")))
        stream.close()

    assert out.read("part-00000.tar") == other.read("part-00000.tar")
