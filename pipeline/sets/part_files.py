"""Files of a set: rows come in, a file a stream goes to the store. The same rows, the same bytes:
nothing here looks at a clock, a host or a path.
"""

import csv
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.store.objects import Store
from schemas.json_values import JsonObject, JsonValue
from schemas.rows import ImageCell

ROW_GROUP_BYTES = 8 * 2**20
"""Of one row group: as many as there are streams are in memory at once."""


TarRow = TypedDict("TarRow", {"__key__": str, "json": str, "png": list[ImageCell]})
"""A sample of a tar: its name, what is known of it, and its pictures."""


class Stream(Protocol):
    """A file of rows. It is in the store when it is closed, and in the scratch folder before."""

    num_rows: int
    others: list[str]  # keys of files that were put beside it

    def add(self, table: pa.Table) -> None:
        """Append rows. Keeps the table until a row group is full."""

    def close(self) -> str:
        """Write what is left, and put the file. Its key."""


class ParquetStream:
    """Rows as Parquet."""

    def __init__(self, store: Store, key: str, schema: pa.Schema, scratch: Path) -> None:
        """`key` is without the suffix."""
        self._store, self._key = store, f"{key}.parquet"
        self._path = _scratch_path(scratch, self._key)
        self._pending: list[pa.Table] = []
        self._pending_bytes = 0
        self._writer = pq.ParquetWriter(
            self._path,
            schema,
            compression="zstd",
            write_page_index=True,
            write_page_checksum=True,
        )
        self.num_rows, self.others = 0, list[str]()

    def add(self, table: pa.Table) -> None:
        self.num_rows += table.num_rows
        self._pending.append(table)
        self._pending_bytes += table.nbytes
        if self._pending_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def close(self) -> str:
        self._flush()
        self._writer.close()
        return _put(self._store, self._key, self._path)

    def _flush(self) -> None:
        if self._pending:
            table = pa.concat_tables(self._pending)
            self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self._pending, self._pending_bytes = [], 0


class TarStream:
    """Rows as samples of a tar: `{__key__}.json`, and `{__key__}.0.png` and so on beside it."""

    def __init__(self, store: Store, key: str, scratch: Path) -> None:
        """`key` is without the suffix."""
        self._store, self._key = store, f"{key}.tar"
        self._path = _scratch_path(scratch, self._key)
        self._tar = tarfile.TarFile(self._path, "w", format=tarfile.USTAR_FORMAT)
        self.num_rows, self.others = 0, list[str]()

    def add(self, table: pa.Table) -> None:
        samples: list[TarRow] = table.to_pylist()
        for sample in samples:
            self.num_rows += 1
            self._add(f"{sample['__key__']}.json", sample["json"].encode())
            for index, image in enumerate(sample["png"]):
                self._add(f"{sample['__key__']}.{index}.png", image["bytes"])

    def close(self) -> str:
        self._tar.close()
        return _put(self._store, self._key, self._path)

    def _add(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)  # owner, mode and time are those of no one and never
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))


class JsonlStream:
    """Rows as JSON Lines."""

    def __init__(self, store: Store, key: str, scratch: Path) -> None:
        """`key` is without the suffix."""
        self._store, self._key = store, f"{key}.jsonl"
        self._path = _scratch_path(scratch, self._key)
        self._file = self._path.open("w", encoding="utf-8")
        self.num_rows, self.others = 0, list[str]()

    def add(self, table: pa.Table) -> None:
        for row in table.to_pylist():
            self.num_rows += 1
            self._file.write(f"{_json(row)}\n")

    def close(self) -> str:
        self._file.close()
        return _put(self._store, self._key, self._path)


class FolderStream:
    """Rows as a folder: pictures as files, and what is known of each in `metadata.jsonl`; of those
    that are whole in `t2i.json` and `t2i.csv`, too, as others call the columns.
    """

    def __init__(self, store: Store, key: str, scratch: Path) -> None:
        """`key` is of the folder."""
        self._store, self._key = store, key
        self._path = _scratch_path(scratch, f"{key}/metadata.jsonl")
        self._file = self._path.open("w", encoding="utf-8")
        self._whole: list[JsonObject] = []
        self.num_rows, self.others = 0, list[str]()

    def add(self, table: pa.Table) -> None:
        rows: list[JsonObject] = table.drop_columns("png").to_pylist()
        for row, png in zip(rows, table["png"].to_pylist(), strict=True):
            self.num_rows += 1
            self._put(str(row["file_name"]), png)
            self._file.write(f"{_json(row)}\n")
            if row["is_whole"]:
                self._whole.append(row)

    def close(self) -> str:
        self._file.close()
        listed: list[JsonValue] = [row | {"image": row["file_name"]} for row in self._whole]
        self._put("t2i.json", _json(listed).encode())
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["image_path", "text_en"])
        writer.writerows([row["file_name"], row["thoughts"]] for row in self._whole)
        self._put("t2i.csv", table.getvalue().encode())
        return _put(self._store, f"{self._key}/metadata.jsonl", self._path)

    def _put(self, name: str, body: bytes) -> None:
        self._store.put(f"{self._key}/{name}", body)
        self.others.append(f"{self._key}/{name}")


STREAMS: Mapping[str, Callable[[Store, str, Path], Stream]] = {
    "tar": TarStream,
    "jsonl": JsonlStream,
    "folder": FolderStream,
}
"""By the container of an export; Parquet has columns as well."""


def _json(value: JsonValue) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _scratch_path(scratch: Path, key: str) -> Path:
    return scratch / key.replace("/", "-")


def _put(store: Store, key: str, path: Path) -> str:
    """Put a file and forget it; the key."""
    store.put(key, path)
    path.unlink()
    return key
