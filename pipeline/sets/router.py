"""Which files a row goes to: one stream a task and split, and one an export and split."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from pipeline.sets.exports import EXPORTS
from pipeline.sets.part_files import ParquetStream, Stream, TarStream
from pipeline.sets.picks import SPLITS
from pipeline.sets.rows import ObjectWork, make_rows
from pipeline.store.contents import rows_not_finite
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from schemas.errors import InputError
from schemas.json_values import JsonObject
from schemas.recipes import Recipe, SetKind
from schemas.rows import TrainingRow
from schemas.sets import StreamFiles
from schemas.trace import Role
from schemas.training import DRAW, GROUP, PREFERENCE, TEXT

_ROWS_AT_ONCE = 128  # as Python objects, which take many times what they take as columns


def make_tables(work: ObjectWork) -> dict[str, pa.Table]:
    """The rows of one object, as canonical tables and as exports, by the keys of their streams.
    Runs in a worker.

    Raises InputError for a row with a number that is not finite: no set holds one.
    """
    rows: dict[str, list[TrainingRow]] = defaultdict(list)
    tables: dict[str, list[pa.Table]] = defaultdict(list)
    for pick, row in make_rows(open_store(work.url), work):
        for stream in streams_of(row, pick.split, work.recipe):
            rows[stream].append(row)
            if len(rows[stream]) == _ROWS_AT_ONCE:
                tables[stream].append(_table(stream, rows.pop(stream)))
    for stream, rest in rows.items():
        tables[stream].append(_table(stream, rest))
    whole = {stream: pa.concat_tables(parts) for stream, parts in tables.items()}
    for stream, table in whole.items():
        _check_numbers(stream, table)
    return whole


def streams_of(row: TrainingRow, split: str, recipe: Recipe) -> list[str]:
    """The keys of the streams that a row of this split goes to: its own, and exports' that take
    it.
    """
    folder = f"{SetKind.SFT}/{row['task']}" if recipe.kind == SetKind.SFT else recipe.kind
    exports = [name for name in recipe.exports if EXPORTS[name].takes(row)]
    return [f"{folder}/{split}", *(f"exports/{name}/{split}/part" for name in exports)]


class Streams:
    """All files of a set that hold rows."""

    def __init__(self, out: Store, scratch: Path) -> None:
        self._out, self._scratch = out, scratch
        self._streams: dict[str, Stream] = {}

    def add(self, tables: Mapping[str, pa.Table]) -> None:
        """Append the tables of one object. Call in the order of objects."""
        for key, table in tables.items():
            if key not in self._streams:
                self._streams[key] = self._open(key)
            self._streams[key].add(table)

    def close(self) -> dict[str, StreamFiles]:
        """Put what is left. The streams in the order of their keys."""
        return {
            key: StreamFiles(files=tuple(stream.close()), num_rows=stream.num_rows)
            for key, stream in sorted(self._streams.items())
        }

    def notes(self, recipe: Recipe) -> dict[str, JsonObject]:
        """Small files that a trainer wants beside its rows, by their keys."""
        if "llama-factory" not in recipe.exports:
            return {}
        splits = [
            split for split in SPLITS if f"exports/llama-factory/{split}/part" in self._streams
        ]
        return {
            "exports/llama-factory/dataset_info.json": {
                f"{recipe.name}_{split}": _llama_factory_note(split) for split in splits
            }
        }

    def _open(self, key: str) -> Stream:
        name = _export_name(key)
        if name is not None and EXPORTS[name].container == "tar":
            return TarStream(self._out, key, self._scratch)
        return ParquetStream(self._out, key, schema_of(key), self._scratch)


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
