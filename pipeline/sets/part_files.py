"""Files of a set: rows come in, files of bounded size go to the store. The same rows, the same
bytes: nothing here looks at a clock, a host or a path.
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

FILE_BYTES = 256 * 2**20
"""A file is closed at this size."""


TarRow = TypedDict("TarRow", {"__key__": str, "json": str, "webp": list[ImageCell]})
"""A sample of a tar: its name, what is known of it, and its pictures."""


class Stream(Protocol):
    """A sequence of files, `{key}-00000` and so on. The files are in the store when it is closed,
    and in the scratch folder before.
    """

    num_rows: int

    def add(self, table: pa.Table) -> None:
        """Append rows. Keeps the table until a row group is full."""

    def close(self) -> list[str]:
        """Put what is left. The keys of all files, in the order of rows."""


class _Files:
    """Numbers the files of a stream and puts each when it is full."""

    def __init__(self, store: Store, key: str, suffix: str, scratch: Path) -> None:
        self._store, self._key, self._suffix = store, key, suffix
        self._path = scratch / f"{key.replace('/', '-')}{suffix}"
        self.keys: list[str] = []

    @property
    def path(self) -> Path:
        return self._path

    def put(self) -> None:
        key = f"{self._key}-{len(self.keys):05d}{self._suffix}"
        self._store.put(key, self._path)
        self._path.unlink()
        self.keys.append(key)


class ParquetStream:
    """Rows as Parquet."""

    def __init__(self, store: Store, key: str, schema: pa.Schema, scratch: Path) -> None:
        self._files = _Files(store, key, ".parquet", scratch)
        self._schema = schema
        self._pending: list[pa.Table] = []
        self._pending_bytes = self._file_bytes = 0
        self._writer: pq.ParquetWriter | None = None
        self.num_rows = 0

    def add(self, table: pa.Table) -> None:
        self.num_rows += table.num_rows
        self._pending.append(table)
        self._pending_bytes += table.nbytes
        if self._pending_bytes >= ROW_GROUP_BYTES:
            self._flush()
        if self._file_bytes >= FILE_BYTES:
            self._end_file()

    def close(self) -> list[str]:
        self._flush()
        self._end_file()
        return self._files.keys

    def _flush(self) -> None:
        if not self._pending:
            return
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._files.path,
                self._schema,
                compression="zstd",
                write_page_index=True,
                write_page_checksum=True,
            )
        table = pa.concat_tables(self._pending)
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self._file_bytes += self._pending_bytes
        self._pending, self._pending_bytes = [], 0

    def _end_file(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._files.put()
        self._writer, self._file_bytes = None, 0


class TarStream:
    """Rows as samples of a tar: `{__key__}.json`, and `{__key__}.0.webp` and so on beside it."""

    def __init__(self, store: Store, key: str, scratch: Path) -> None:
        self._files = _Files(store, key, ".tar", scratch)
        self._tar: tarfile.TarFile | None = None
        self._file_bytes = 0
        self.num_rows = 0

    def add(self, table: pa.Table) -> None:
        samples: list[TarRow] = table.to_pylist()
        for sample in samples:
            self.num_rows += 1
            self._add(f"{sample['__key__']}.json", sample["json"].encode())
            for index, image in enumerate(sample["webp"]):
                self._add(f"{sample['__key__']}.{index}.webp", image["bytes"])
            if self._file_bytes >= FILE_BYTES:
                self._end_file()

    def close(self) -> list[str]:
        self._end_file()
        return self._files.keys

    def _add(self, name: str, data: bytes) -> None:
        if self._tar is None:
            self._tar = tarfile.TarFile(self._files.path, "w", format=tarfile.USTAR_FORMAT)
        member = tarfile.TarInfo(name)  # owner, mode and time are those of no one and never
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))
        self._file_bytes += len(data)

    def _end_file(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._files.put()
        self._tar, self._file_bytes = None, 0
