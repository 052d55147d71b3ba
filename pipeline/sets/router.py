"""Which files a row goes to: one stream a task and split, and one an export and split."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

import pyarrow as pa

from pipeline.sets.exports import EXPORTS
from pipeline.sets.part_files import ParquetStream, Stream, TarStream
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

_ROWS_AT_ONCE = 128  # as Python objects, which take many times what they take as columns
_PICTURE_BYTES_AT_ONCE = 16 * 2**20  # of them; all exports of a row share its picture


def make_tables(store: Store, work: ObjectWork) -> Iterator[dict[str, pa.Table]]:
    """The rows of one object, some at a time, as canonical tables and as exports, by the keys of
    their streams.

    Raises InputError for a row with a number that is not finite: no set holds one.
    """
    rows: dict[str, list[TrainingRow]] = defaultdict(list)
    num_rows = num_bytes = 0
    for pick, row in make_rows(store, work):
        for stream in streams_of(row, pick.split, work.recipe):
            rows[stream].append(row)
        num_rows, num_bytes = num_rows + 1, num_bytes + _picture_bytes(row)
        if num_rows >= _ROWS_AT_ONCE or num_bytes >= _PICTURE_BYTES_AT_ONCE:
            yield _tables(rows)
            rows.clear()
            num_rows = num_bytes = 0
    if rows:
        yield _tables(rows)


def _picture_bytes(row: TrainingRow) -> int:
    return sum(len(image["bytes"]) for image in row["images"]) if _has_images(row) else 0


def _has_images(row: TrainingRow) -> TypeGuard[TextRow | PreferenceRow | GroupRow]:
    return "images" in row


def _tables(rows: Mapping[str, Sequence[TrainingRow]]) -> dict[str, pa.Table]:
    tables = {stream: _table(stream, of_stream) for stream, of_stream in rows.items()}
    for stream, table in tables.items():
        _check_numbers(stream, table)
    return tables


def streams_of(row: TrainingRow, split: str, recipe: Recipe) -> list[str]:
    """The keys of the streams that a row of this split goes to: its own, and exports' that take
    it.
    """
    folder = f"{SetKind.SFT}/{row['task']}" if recipe.kind == SetKind.SFT else recipe.kind
    exports = [name for name in recipe.exports if EXPORTS[name].takes(row)]
    return [f"{folder}/{split}", *(f"exports/{name}/{split}/part" for name in exports)]


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
            key: StreamFiles(files=(stream.close(),), num_rows=stream.num_rows)
            for key, stream in sorted(self._streams.items())
        }

    def _open(self, key: str) -> Stream:
        name, file_key = _export_name(key), f"{key}-{self._number:05d}"
        if name is not None and EXPORTS[name].container == "tar":
            return TarStream(self._out, file_key, self._scratch)
        return ParquetStream(self._out, file_key, schema_of(key), self._scratch)


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


def notes_of(recipe: Recipe, streams: Mapping[str, StreamFiles]) -> dict[str, JsonObject]:
    """Small files that a trainer wants beside its rows, by their keys."""
    if "llama-factory" not in recipe.exports:
        return {}
    splits = [split for split in SPLITS if f"exports/llama-factory/{split}/part" in streams]
    return {
        "exports/llama-factory/dataset_info.json": {
            f"{recipe.name}_{split}": _llama_factory_note(split) for split in splits
        }
    }


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
    return name if folder == "exports" else None


def _table(key: str, rows: Sequence[TrainingRow]) -> pa.Table:
    if (name := _export_name(key)) is not None:
        return EXPORTS[name].table(rows)
    return pa.Table.from_pylist(rows, schema=schema_of(key))


def _check_numbers(stream: str, table: pa.Table) -> None:
    """Scores may be finite and too far apart: their margin is infinite in the columns of a set."""
    for column, rows in rows_not_finite(table).items():
        row = f"row {table['id'][rows[0]]}" if "id" in table.column_names else f"row {rows[0]}"
        raise InputError(
            f"{row} of {stream} would have a number in {column} that is not finite; use scorers "
            "whose values are from 0 to 1, or leave the row out with a filter on its score"
        )


def _llama_factory_note(split: str) -> JsonObject:
    """How LLaMA-Factory reads the files of one split, for its `dataset_info.json`."""
    return {
        "file_name": split,  # a folder
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    }
