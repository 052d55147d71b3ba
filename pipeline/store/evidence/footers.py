"""What a Parquet footer says, held against the data that it describes.

Readers believe footers: one that says that no row of a group is dead has them skip it. So each row
group is read, and written again where nobody sees it, and what the new footer says of it must be
what the old one says. Pages have checksums; footers have none.
"""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq


def footer_problems(parquet: pq.ParquetFile) -> Iterator[str]:
    """What a footer says that is not so, as `a least status of 'tead' in row group 0, not 'dead'`.

    Raises one of `traces.UNREADABLE` for what cannot be read.
    """
    said = parquet.metadata
    end = 4  # of what comes before, from the magic bytes on
    for number in range(said.num_row_groups):
        group = said.row_group(number)
        table = parquet.read_row_group(number, use_threads=False)
        if group.num_rows != len(table):
            yield f"{group.num_rows} rows in row group {number}, which has {len(table)}"
            continue
        seen = _footer_of(table)
        for column in range(group.num_columns):
            chunk = group.column(column)
            where = f"of {chunk.path_in_schema} in row group {number}"
            for what, told, true in _differences(chunk, seen.row_group(0).column(column)):
                yield f"{what} {where}: {told!r:.80}, not {true!r:.80}"
            start = min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset)))
            if start != end:
                yield f"a start {where} at byte {start}, not {end}"
            end = start + chunk.total_compressed_size
    num_rows = sum(said.row_group(number).num_rows for number in range(said.num_row_groups))
    if said.num_rows != num_rows:
        yield f"{said.num_rows} rows in all, of which its row groups have {num_rows}"


def _footer_of(table: pa.Table) -> pq.FileMetaData:
    """What pyarrow says of these rows, as one row group."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table, sink, row_group_size=max(1, len(table)), compression="none", use_dictionary=False
    )
    return pq.read_metadata(pa.BufferReader(sink.getvalue()))


def _differences(
    told: pq.ColumnChunkMetaData, true: pq.ColumnChunkMetaData
) -> Iterator[tuple[str, object, object]]:
    """What one says of a column and the other does not. Absent statistics say nothing."""
    for name in ("path_in_schema", "physical_type", "num_values"):
        if getattr(told, name) != getattr(true, name):
            yield name, getattr(told, name), getattr(true, name)
    mine, theirs = told.statistics, true.statistics
    if mine is None or theirs is None:
        return
    if mine.has_null_count and mine.null_count != theirs.null_count:
        yield "nulls", mine.null_count, theirs.null_count
    if mine.has_min_max and theirs.has_min_max:
        if mine.min_raw != theirs.min_raw:
            yield "a least value", mine.min_raw, theirs.min_raw
        if mine.max_raw != theirs.max_raw:
            yield "a greatest value", mine.max_raw, theirs.max_raw
