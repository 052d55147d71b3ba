"""Files of a set: rows come in, a file a stream goes to the store. The same rows, the same bytes:
nothing here looks at a clock, a host or a path.
"""

import io
import tarfile
from pathlib import Path
from typing import Protocol, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.store.objects import Store
from schemas.rows import ImageCell

ROW_GROUP_BYTES = 16 * 2**20
"""Of one row group: as many as there are streams are in memory at once."""


TarRow = TypedDict("TarRow", {"__key__": str, "json": str, "webp": list[ImageCell]})
"""A sample of a tar: its name, what is known of it, and its pictures."""


class Stream(Protocol):
    """A file of rows. It is in the store when it is closed, and in the scratch folder before."""

    num_rows: int

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
        self.num_rows = 0

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
    """Rows as samples of a tar: `{__key__}.json`, and `{__key__}.0.webp` and so on beside it."""

    def __init__(self, store: Store, key: str, scratch: Path) -> None:
        """`key` is without the suffix."""
        self._store, self._key = store, f"{key}.tar"
        self._path = _scratch_path(scratch, self._key)
        self._tar = tarfile.TarFile(self._path, "w", format=tarfile.USTAR_FORMAT)
        self.num_rows = 0

    def add(self, table: pa.Table) -> None:
        samples: list[TarRow] = table.to_pylist()
        for sample in samples:
            self.num_rows += 1
            self._add(f"{sample['__key__']}.json", sample["json"].encode())
            for index, image in enumerate(sample["webp"]):
                self._add(f"{sample['__key__']}.{index}.webp", image["bytes"])

    def close(self) -> str:
        self._tar.close()
        return _put(self._store, self._key, self._path)

    def _add(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)  # owner, mode and time are those of no one and never
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))


def _scratch_path(scratch: Path, key: str) -> Path:
    return scratch / key.replace("/", "-")


def _put(store: Store, key: str, path: Path) -> str:
    """Put a file and forget it; the key."""
    store.put(key, path)
    path.unlink()
    return key
