"""What a Parquet footer and its page indexes say, held against the data that they describe.

Readers believe footers: one that says that no row of a group is dead has them skip it. So each row
group is read, and written again where nobody sees it, and what the new footer says of it must be
what the old one says; and what a page index says of a page must be what a footer would say of its
rows. Pages have checksums; footers have none.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.store.evidence.thrift import (
    Struct,
    Value,
    int_of,
    list_of,
    read_struct,
    struct_of,
    structs_of,
)

_TAIL_BYTES = 8  # the footer's length, and the magic bytes
_MAGIC_BYTES = 4

# Numbers of fields in parquet.thrift.
_NUM_ROWS, _ROW_GROUPS = 3, 4  # of FileMetaData
_COLUMNS, _GROUP_ROWS = 1, 3  # of RowGroup
_META, _OFFSET_INDEX, _COLUMN_INDEX = 3, 4, 6  # of ColumnChunk; the indexes' lengths follow them
_TYPE, _PATH, _NUM_VALUES, _COMPRESSED_BYTES = 1, 3, 5, 7  # of ColumnMetaData
_DATA_AT, _DICTIONARY_AT, _STATISTICS = 9, 11, 12
_TOLD_OF_COLUMNS = {_TYPE: "type", _PATH: "path", _NUM_VALUES: "number of values"}
_NUM_NULLS, _GREATEST, _LEAST = 3, 5, 6  # of Statistics; the first two are an older spelling
_TOLD_OF_VALUES = {
    1: "greatest value (max)",
    2: "least value (min)",
    _NUM_NULLS: "number of nulls",
    _GREATEST: "greatest value",
    _LEAST: "least value",
}
_PAGES, _PAGE_FIRST_ROW = 1, 3  # of OffsetIndex, of PageLocation
_IS_NULL_PAGE, _PAGE_NULLS = 1, 5  # of ColumnIndex
_PAGE_ENDS = {_LEAST: 2, _GREATEST: 3}  # by what they are called in Statistics


def footer_problems(body: IO[bytes]) -> Iterator[str]:
    """What a file's footer says that is not so, as `a least value of status in row group 0: ...`.

    Raises one of `traces.UNREADABLE` for what cannot be read.
    """
    parquet = pq.ParquetFile(body, page_checksum_verification=True)
    told = _read_footer(body)
    end = _MAGIC_BYTES  # of what comes before
    for number, group in enumerate(structs_of(told, _ROW_GROUPS)):
        table = parquet.read_row_group(number, use_threads=False)
        if (num_rows := int_of(group, _GROUP_ROWS)) != len(table):
            yield f"{num_rows} rows in row group {number}, which has {len(table)}"
            continue
        columns, rows = structs_of(group, _COLUMNS), _Rows(table)
        seen = _columns_of(table)
        if len(columns) != len(seen):
            yield f"{len(columns)} columns in row group {number}, which has {len(seen)}"
            continue
        for column, now in zip(columns, seen, strict=True):
            meta = struct_of(column, _META)
            where = f"of {_path(struct_of(now, _META))} in row group {number}"
            yield from _differences(where, column, now)
            yield from _page_problems(where, body, column, rows)
            starts = int_of(meta, _DICTIONARY_AT), int_of(meta, _DATA_AT)
            start = min(filter(None, starts), default=0)
            if start != end:
                yield f"a start {where} at byte {start}, not {end}"
            end = start + int_of(meta, _COMPRESSED_BYTES)
    num_rows = sum(int_of(group, _GROUP_ROWS) for group in structs_of(told, _ROW_GROUPS))
    if int_of(told, _NUM_ROWS) != num_rows:
        yield f"{int_of(told, _NUM_ROWS)} rows in all, of which its row groups have {num_rows}"


def _read_footer(body: IO[bytes]) -> Struct:
    size = body.seek(0, 2)
    body.seek(max(0, size - _TAIL_BYTES))
    length = int.from_bytes(body.read(_MAGIC_BYTES), "little")
    return read_struct(_bytes_at(body, size - _TAIL_BYTES - length, length))


def _bytes_at(body: IO[bytes], start: int, length: int) -> bytes:
    if start < 0 or length < 0:
        raise ValueError(f"{length} bytes from {start}")
    body.seek(start)
    return body.read(length)


def _columns_of(table: pa.Table) -> list[Struct]:
    """What pyarrow says of the columns of these rows, as one row group."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table, sink, row_group_size=max(1, len(table)), compression="none", use_dictionary=False
    )
    (group,) = structs_of(_read_footer(pa.BufferReader(sink.getvalue())), _ROW_GROUPS)
    return structs_of(group, _COLUMNS)


def _differences(where: str, told: Struct, now: Struct) -> Iterator[str]:
    """What one footer says of a column and the other does not. Absent statistics say nothing."""
    mine, theirs = struct_of(told, _META), struct_of(now, _META)
    for number, what in _TOLD_OF_COLUMNS.items():
        if mine.get(number) != theirs.get(number):
            yield f"another {what} {where}: {mine.get(number)!r:.80}"
    said, seen = struct_of(mine, _STATISTICS), struct_of(theirs, _STATISTICS)
    for number, what in _TOLD_OF_VALUES.items():
        if number in said and number in seen and said[number] != seen[number]:
            yield f"a {what} {where}: {said[number]!r:.80}, not {seen[number]!r:.80}"


class _Rows:
    """The rows of a group, and what pyarrow would say of some of them."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self._columns: dict[tuple[str, int, int], list[Struct]] = {}

    def statistics(self, path: list[Value], start: int, stop: int) -> Struct:
        """Of a leaf over these rows of its column; all leaves of a column are looked at once."""
        if not path:
            raise ValueError("a column without a name")
        name = _text(path[0])
        if (name, start, stop) not in self._columns:
            rows = self.table.select([name]).slice(start, stop - start)
            self._columns[name, start, stop] = _columns_of(rows)
        for column in self._columns[name, start, stop]:
            meta = struct_of(column, _META)
            if list_of(meta, _PATH) == path:
                return struct_of(meta, _STATISTICS)
        return {}


def _page_problems(where: str, body: IO[bytes], column: Struct, rows: _Rows) -> Iterator[str]:
    """What the index of a column's pages says that is not so. No index says nothing."""
    pages = structs_of(_index(body, column, _OFFSET_INDEX), _PAGES)
    index = _index(body, column, _COLUMN_INDEX)
    if not pages or not index:
        return
    first_rows, num_rows = [int_of(page, _PAGE_FIRST_ROW) for page in pages], len(rows.table)
    bounds = list(pairwise([*first_rows, num_rows]))
    if num_rows and (first_rows[0] or any(start >= stop for start, stop in bounds)):
        yield f"pages {where} that begin at rows {first_rows}, of {num_rows}"
        return
    empty, nulls = list_of(index, _IS_NULL_PAGE), list_of(index, _PAGE_NULLS)
    ends = {number: list_of(index, field) for number, field in _PAGE_ENDS.items()}
    if {len(values) for values in (empty, *ends.values(), nulls or pages)} != {len(pages)}:
        yield f"an index {where} of other pages than there are"
        return
    path = list_of(struct_of(column, _META), _PATH)
    for page, (start, stop) in enumerate(bounds):
        seen = rows.statistics(path, start, stop)
        told = {number: values[page] for number, values in ends.items() if not empty[page]}
        told |= {_NUM_NULLS: nulls[page]} if nulls else {}
        for number, value in told.items():
            if number in seen and value != seen[number]:
                yield f"a {_TOLD_OF_VALUES[number]} of page {page} {where}: {value!r:.80}"
        if empty[page] and any(number in seen for number in ends):
            yield f"a page {page} {where} that is said to hold no value"


def _index(body: IO[bytes], column: Struct, field: int) -> Struct:
    """One of the indexes of a column's pages; an empty one, where there is none."""
    at, length = int_of(column, field), int_of(column, field + 1)
    return read_struct(_bytes_at(body, at, length)) if at else {}


def _path(meta: Struct) -> str:
    return ".".join(map(_text, list_of(meta, _PATH)))


def _text(value: Value) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else repr(value)
