"""Which files a row goes to: one stream a task and split, and one an export and split."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeGuard

import pyarrow as pa

from pipeline.sets.exports import EXPORTS
from pipeline.sets.exports.form import Source
from pipeline.sets.exports.tagged import dataset_info
from pipeline.sets.part_files import STREAMS, ParquetStream, Stream
from pipeline.sets.picks import SPLITS
from pipeline.sets.rows import ObjectWork, make_rows
from pipeline.store.contents import rows_not_finite
from pipeline.store.objects import Store
from schemas.errors import InputError
from schemas.json_values import JsonObject
from schemas.recipes import Recipe, SetKind
from schemas.rows import GroupRow, PreferenceRow, TextRow, TrainingRow
from schemas.sets import StreamFiles
from schemas.trace import Role
from schemas.training import DRAW, GROUP, PREFERENCE, TEXT

EXPORTS_FOLDER = "exports"
_ROWS_AT_ONCE = 128  # as Python objects, which take many times what they take as columns
_PICTURE_BYTES_AT_ONCE = 16 * 2**20  # of them; all exports of a row share its picture


class Tables(NamedTuple):
    """Some rows of a set."""

    tables: Mapping[str, pa.Table]  # by the keys of their streams
    left_out: Mapping[str, Counter[str]]  # by export: how many rows for what reason


def make_tables(store: Store, work: ObjectWork) -> Iterator[Tables]:
    """The rows of one object, some at a time, as canonical tables and as exports.

    Raises InputError for a row with a number that is not finite: no set holds one.
    """
    sources: dict[str, list[Source]] = defaultdict(list)  # by split
    num_rows = num_bytes = 0
    for pick, source in make_rows(store, work):
        sources[pick.split].append(source)
        num_rows, num_bytes = num_rows + 1, num_bytes + _picture_bytes(source)
        if num_rows >= _ROWS_AT_ONCE or num_bytes >= _PICTURE_BYTES_AT_ONCE:
            yield tables_of(sources, work.recipe)
            sources.clear()
            num_rows = num_bytes = 0
    if sources:
        yield tables_of(sources, work.recipe)


def _picture_bytes(source: Source) -> int:
    images = list(source.row["images"]) if _has_images(source.row) else []
    images += [] if source.facts is None else source.facts.canvases.values()
    return sum(len(image["bytes"]) for image in images)


def _has_images(row: TrainingRow) -> TypeGuard[TextRow | PreferenceRow | GroupRow]:
    return "images" in row


def tables_of(sources: Mapping[str, Sequence[Source]], recipe: Recipe) -> Tables:
    """The tables of some rows, which are given by split."""
    tables: dict[str, pa.Table] = {}
    left_out: dict[str, Counter[str]] = {}
    for split, of_split in sources.items():
        rows: dict[str, list[TrainingRow]] = defaultdict(list)
        for source in of_split:
            rows[_stream_of(source.row, split, recipe)].append(source.row)
        for key, of_stream in rows.items():
            tables[key] = pa.Table.from_pylist(of_stream, schema=schema_of(key))
        exported = export_tables({split: of_split}, recipe.exports)
        tables |= exported.tables
        for name, counts in exported.left_out.items():
            left_out[name] = left_out.get(name, Counter()) + counts
    for key, table in tables.items():
        _check_numbers(key, table)
    return Tables(tables, left_out)


def export_tables(sources: Mapping[str, Sequence[Source]], names: Sequence[str]) -> Tables:
    """Some rows, which are given by split, as these exports."""
    tables: dict[str, pa.Table] = {}
    left_out: dict[str, Counter[str]] = {}
    for split, of_split in sources.items():
        for name in names:
            exported = EXPORTS[name].of(of_split)
            left_out[name] = left_out.get(name, Counter()) + exported.left_out
            for folder, table in exported.tables.items():
                parts = filter(None, [EXPORTS_FOLDER, name, split, folder, "part"])
                tables["/".join(parts)] = table
    return Tables(tables, left_out)


def _stream_of(row: TrainingRow, split: str, recipe: Recipe) -> str:
    """The key of the stream of a row of this split."""
    folder = f"{SetKind.SFT}/{row['task']}" if recipe.kind == SetKind.SFT else recipe.kind
    return f"{folder}/{split}"


class Streams:
    """The files of one unit of a set, one a stream."""

    def __init__(self, out: Store, scratch: Path, number: int) -> None:
        """`number` is that of the unit, from 0, by which its files are called."""
        self._out, self._scratch, self._number = out, scratch, number
        self._streams: dict[str, Stream] = {}

    def add(self, tables: Mapping[str, pa.Table]) -> None:
        """Append tables, by the keys of their streams."""
        for key, table in tables.items():
            if key not in self._streams:
                self._streams[key] = self._open(key)
            self._streams[key].add(table)

    def close(self) -> dict[str, StreamFiles]:
        """Put all files. The streams in the order of their keys."""
        return {
            key: StreamFiles(files=(stream.close(), *stream.others), num_rows=stream.num_rows)
            for key, stream in sorted(self._streams.items())
        }

    def _open(self, key: str) -> Stream:
        name, file_key = _export_name(key), f"{key}-{self._number:05d}"
        container = "parquet" if name is None else EXPORTS[name].container
        if container == "parquet":
            return ParquetStream(self._out, file_key, schema_of(key), self._scratch)
        return STREAMS[container](self._out, file_key, self._scratch)


def joined(units: Sequence[Mapping[str, StreamFiles]]) -> dict[str, StreamFiles]:
    """The streams of all units as those of the set, in the order of their keys."""
    keys = sorted({key for unit in units for key in unit})
    return {
        key: StreamFiles(
            files=tuple(file for unit in units if key in unit for file in unit[key].files),
            digests=tuple(of for unit in units if key in unit for of in unit[key].digests),
            num_rows=sum(unit[key].num_rows for unit in units if key in unit),
        )
        for key in keys
    }


def notes_of(
    name: str, exports: Iterable[str], streams: Mapping[str, StreamFiles]
) -> dict[str, JsonObject]:
    """Small files that a trainer wants beside its rows, by their keys, of a set of this name."""
    if "llama-factory" not in exports:
        return {}
    folder = f"{EXPORTS_FOLDER}/llama-factory"
    splits = [split for split in SPLITS if f"{folder}/{split}/part" in streams]
    return {f"{folder}/dataset_info.json": dataset_info(name, splits)}


def schema_of(key: str) -> pa.Schema:
    """The columns of a stream."""
    if (name := _export_name(key)) is not None:
        return EXPORTS[name].schema
    kind, task, *_ = key.split("/")
    if kind != SetKind.SFT:
        return PREFERENCE if kind == SetKind.PREFERENCE else GROUP
    return DRAW if task.startswith(Role.DRAW) else TEXT


def _export_name(key: str) -> str | None:
    """The export that a stream is of; None: canonical rows."""
    folder, name, *_ = key.split("/")
    return name if folder == EXPORTS_FOLDER else None


def _check_numbers(stream: str, table: pa.Table) -> None:
    """Scores may be finite and too far apart: their margin is infinite in the columns of a set."""
    for column, rows in rows_not_finite(table).items():
        row = f"row {table['id'][rows[0]]}" if "id" in table.column_names else f"row {rows[0]}"
        raise InputError(
            f"{row} of {stream} would have a number in {column} that is not finite; use scorers "
            "whose values are from 0 to 1, or leave the row out with a filter on its score"
        )
