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


def test_a_file_has_row_groups_of_bounded_size_and_is_put_when_it_is_closed(
    out: Store, scratch: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(part_files, "ROW_GROUP_BYTES", 10 * 8)
    stream = ParquetStream(out, "sft/draw_1/train-00003", SCHEMA, scratch)
    for first in range(0, 50, 5):
        stream.add(numbers(first, 5))
    assert not list(out.list_folder("sft/draw_1"))
    key = stream.close()

    assert key == "sft/draw_1/train-00003.parquet"
    file = pq.ParquetFile(io.BytesIO(out.read(key)))
    groups = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    assert groups == [10] * 5
    assert file.read()["number"].to_pylist() == list(range(50))
    assert stream.num_rows == 50
    assert not list(scratch.iterdir())


def test_what_is_left_is_written_when_a_stream_is_closed(out: Store, scratch: Path):
    stream = ParquetStream(out, "grpo/train-00000", SCHEMA, scratch)
    stream.add(numbers(0, 3))

    assert pq.read_table(io.BytesIO(out.read(stream.close()))).num_rows == 3


def test_a_tar_has_a_sample_beside_its_pictures(out: Store, scratch: Path):
    stream = TarStream(out, "exports/webdataset/train/part-00000", scratch)
    rows = [{**text_row(num_pictures=2), "id": "a"}, {**text_row(num_pictures=0), "id": "b"}]
    stream.add(EXPORTS["webdataset"].table(rows))
    key = stream.close()

    assert key == "exports/webdataset/train/part-00000.tar"
    assert stream.num_rows == 2
    with tarfile.open(fileobj=io.BytesIO(out.read(key))) as tar:
        assert tar.getnames() == ["a.json", "a.0.webp", "a.1.webp", "b.json"]
        owners = {(member.mtime, member.uid, member.uname) for member in tar.getmembers()}
        assert owners == {(0, 0, "")}


def test_equal_rows_make_equal_bytes(tmp_path: Path, out: Store, scratch: Path):
    other = open_store(str(tmp_path / "other"))
    for store in (out, other):
        stream = TarStream(store, "part-00000", scratch)
        stream.add(EXPORTS["webdataset"].table(named("a", "b")))
        stream.close()

    assert out.read("part-00000.tar") == other.read("part-00000.tar")
