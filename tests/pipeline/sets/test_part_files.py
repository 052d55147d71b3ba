"""Files of a stream: numbered, bounded, put when full, and the same bytes from the same rows."""

import csv
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.sets import part_files
from pipeline.sets.exports import EXPORTS
from pipeline.sets.exports.form import Source
from pipeline.sets.part_files import FolderStream, JsonlStream, ParquetStream, TarStream
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


def samples(rows: Sequence[TextRow]) -> pa.Table:
    tables = EXPORTS["webdataset"].of(Source(row=row) for row in rows).tables
    return pa.concat_tables(tables.values())


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
    stream.add(samples(rows))
    key = stream.close()

    assert key == "exports/webdataset/train/part-00000.tar"
    assert stream.num_rows == 2
    with tarfile.open(fileobj=io.BytesIO(out.read(key))) as tar:
        assert tar.getnames() == ["a.json", "a.0.png", "a.1.png", "b.json"]
        owners = {(member.mtime, member.uid, member.uname) for member in tar.getmembers()}
        assert owners == {(0, 0, "")}


def test_equal_rows_make_equal_bytes(tmp_path: Path, out: Store, scratch: Path):
    other = open_store(str(tmp_path / "other"))
    for store in (out, other):
        stream = TarStream(store, "part-00000", scratch)
        stream.add(samples(named("a", "b")))
        stream.close()

    assert out.read("part-00000.tar") == other.read("part-00000.tar")


def test_json_lines_have_a_row_a_line_as_it_is(out: Store, scratch: Path):
    stream = JsonlStream(out, "part-00000", scratch)
    rows = [{"prompt": 'a "red"\nsky \u00e9', "ids": [1, 2], "none": None}, {"prompt": ""}]
    stream.add(pa.Table.from_pylist(rows))
    lines = out.read(stream.close()).decode().splitlines()

    assert [json.loads(line) for line in lines] == [
        rows[0],
        {"prompt": "", "ids": None, "none": None},
    ]


def test_a_folder_has_its_pictures_as_files_and_lists_the_whole_ones_for_scripts(
    out: Store, scratch: Path
):
    whole, part = (
        {"file_name": f"images/{name}.png", "thoughts": 'a "sky", red', "is_whole": name == "a"}
        for name in ("a", "b")
    )
    stream = FolderStream(out, "part-00000", scratch)
    stream.add(pa.Table.from_pylist([whole | {"png": b"first"}, part | {"png": b"second"}]))
    stream.close()

    assert out.read("part-00000/images/b.png") == b"second"
    lines = out.read("part-00000/metadata.jsonl").decode().splitlines()
    assert [json.loads(line) for line in lines] == [whole, part]
    assert json.loads(out.read("part-00000/t2i.json")) == [whole | {"image": "images/a.png"}]
    table = list(csv.DictReader(io.StringIO(out.read("part-00000/t2i.csv").decode())))
    assert table == [{"image_path": "images/a.png", "text_en": 'a "sky", red'}]
