"""Which files a row goes to: one stream a task and split, and one an export and split."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.sets.exports import EXPORTS, takes
from pipeline.sets.part_files import ParquetStream, Stream, TarStream
from pipeline.sets.rows import Making, Pick, Row, make_rows
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.twig.programs import Settings
from schemas.recipes import Recipe, SetKind
from schemas.trace import Role
from schemas.training import DRAW, GROUP, PREFERENCE, TEXT

_ROWS_AT_ONCE = 128  # as Python objects, which take many times what they take as columns


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """The tables made of one object, by the keys of their streams."""

    tables: Mapping[str, pa.Table]


def make_tables(
    url: str,
    key: str,
    picks: Mapping[int, Sequence[Pick]],
    settings: Settings,
    recipe: Recipe,
    digest: str,
) -> Made:
    """The rows of one object, as canonical tables and as exports. Runs in a worker."""
    making = Making(recipe=recipe, digest=digest)
    rows: dict[str, list[Row]] = defaultdict(list)
    tables: dict[str, list[pa.Table]] = defaultdict(list)

    def add(stream: str, row: Row) -> None:
        rows[stream].append(row)
        if len(rows[stream]) == _ROWS_AT_ONCE:
            tables[stream].append(_table(stream, rows.pop(stream)))

    for pick, row in make_rows(open_store(url), key, picks, settings, making):
        add(f"{_folder(recipe, pick.task)}/{pick.split}", row)
        for name in recipe.exports:
            if takes(EXPORTS[name], row):
                add(f"exports/{name}/{pick.split}/part", row)
    for stream, left in rows.items():
        tables[stream].append(_table(stream, left))
    return Made(tables={stream: pa.concat_tables(some) for stream, some in tables.items()})


class Streams:
    """All files of a set that hold rows."""

    def __init__(self, out: Store, scratch: Path) -> None:
        self._out, self._scratch = out, scratch
        self._streams: dict[str, Stream] = {}

    def add(self, made: Made) -> None:
        """Append the tables of one object. Call in the order of objects."""
        for key, table in made.tables.items():
            if key not in self._streams:
                self._streams[key] = self._open(key)
            self._streams[key].add(table)

    def close(self) -> dict[str, dict[str, Any]]:
        """Put what is left. The streams in order, each with its number of rows and its files."""
        return {
            key: {"num_rows": self._streams[key].num_rows, "files": self._streams[key].close()}
            for key in sorted(self._streams)
        }

    def notes(self, recipe: Recipe) -> dict[str, Any]:
        """Small files that a trainer wants beside its rows, by their keys."""
        if "llama-factory" not in recipe.exports:
            return {}
        tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user"}
        tags |= {"assistant_tag": "assistant", "system_tag": "system"}
        return {
            "exports/llama-factory/dataset_info.json": {
                f"{recipe.name}_{split}": {
                    "file_name": split,  # a folder
                    "formatting": "sharegpt",
                    "columns": {"messages": "messages", "images": "images"},
                    "tags": tags,
                }
                for split in ("train", "validation")
                if f"exports/llama-factory/{split}/part" in self._streams
            }
        }

    def _open(self, key: str) -> Stream:
        if key.startswith("exports/"):
            export = EXPORTS[key.split("/")[1]]
            if export.container == "tar":
                return TarStream(self._out, key, self._scratch)
            return ParquetStream(self._out, key, export.schema, self._scratch)
        return ParquetStream(self._out, key, schema_of(key), self._scratch)


def schema_of(key: str) -> pa.Schema:
    """The columns of a canonical stream."""
    kind, task, *_ = key.split("/")
    if kind != SetKind.SFT:
        return PREFERENCE if kind == SetKind.PREFERENCE else GROUP
    return DRAW if task.startswith(Role.DRAW) else TEXT


def _table(stream: str, rows: Sequence[Row]) -> pa.Table:
    if stream.startswith("exports/"):
        return EXPORTS[stream.split("/")[1]].table(rows)
    return pa.Table.from_pylist(list(rows), schema=schema_of(stream))


def _folder(recipe: Recipe, task: str) -> str:
    return f"{SetKind.SFT}/{task}" if recipe.kind == SetKind.SFT else recipe.kind
