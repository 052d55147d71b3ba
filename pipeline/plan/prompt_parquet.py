"""Parquet files of prompts. Columns that hold bytes, such as pictures, stay behind unread."""

from collections.abc import Collection, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.plan.prompt_rows import (
    Cell,
    Content,
    ReadOptions,
    Row,
    check_unique,
    choose_prompt_column,
    dropping,
    shown,
)
from pipeline.plan.prompt_sources import OpenFile
from schemas.errors import InputError

_BATCH_ROWS = 1024
_SAMPLED_ROWS = 16  # at a time, of columns that may hold pictures
_BUFFER_BYTES = 1024 * 1024  # of a column at a time: a row group of pictures may be gigabytes

# A value that Python cannot hold is a ValueError (text that is not UTF-8) or an OverflowError.
_UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError)


def read_parquet(file: OpenFile, options: ReadOptions) -> Content:
    """The rows of a Parquet file, a batch at a time, and which columns stay behind.

    Raises InputError for one that cannot be read, or has no prompts.
    """
    try:
        parquet = pq.ParquetFile(
            file.start(), buffer_size=_BUFFER_BYTES, page_checksum_verification=True
        )
        schema = parquet.schema_arrow
    except _UNREADABLE as error:
        raise InputError(f"{file.name}: unreadable Parquet after row 0: {error}") from error
    prompt_column = choose_prompt_column(schema.names, options, file.name)
    if not options.is_text_only:
        check_unique(schema.names, options, file.name)
    other = [
        name
        for name in schema.names
        if name != prompt_column and name not in options.dropped_columns
    ]
    left = [] if options.is_text_only else _columns_of_bytes(parquet, other, file.name)
    kept = {prompt_column} | (set() if options.is_text_only else set(other) - set(left))
    return Content(
        rows=_rows(parquet, kept, file.name),
        prompt_column=prompt_column,
        columns=schema.names,
        left_behind=left,
    )


def _rows(parquet: pq.ParquetFile, kept: Collection[str], name: str) -> Iterator[Row]:
    row = 0
    columns = None if kept == set(parquet.schema_arrow.names) else list(kept)
    try:
        for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
            for fields in _values(batch):
                row += 1
                yield Row(line=row, fields={key: fields[key] for key in fields if key in kept})
    except _UNREADABLE as error:
        raise InputError(f"{name}: unreadable Parquet after row {row}: {error}") from error


def _values(batch: pa.RecordBatch) -> list[dict[str, Cell]]:
    """Raises ValueError that names a column whose values Python cannot hold."""
    try:
        values: list[dict[str, Cell]] = batch.to_pylist()
    except (ValueError, OverflowError):
        for column, array in zip(batch.schema.names, batch.columns, strict=True):
            try:
                array.to_pylist()
            except (ValueError, OverflowError) as error:
                raise ValueError(
                    f"column {shown(column)}: {error}; unless it holds the prompts, leave it out "
                    f"with {dropping(column)}"
                ) from error
        raise
    return values


def _columns_of_bytes(parquet: pq.ParquetFile, names: list[str], name: str) -> list[str]:
    """Those of these columns in which any value is or contains bytes."""
    schema = parquet.schema_arrow
    try:
        return [
            column
            for column in dict.fromkeys(names)
            if any(
                _may_hold_bytes(schema.field(at).type)
                for at in schema.get_all_field_indices(column)
            )
            and _has_bytes(parquet, column)
        ]
    except _UNREADABLE as error:
        raise InputError(f"{name}: unreadable Parquet after row 0: {error}") from error


def _may_hold_bytes(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _may_hold_bytes(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _may_hold_bytes(kind.value_type)
    is_bytes = (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )
    return is_bytes or any(
        _may_hold_bytes(kind.field(index).type) for index in range(kind.num_fields)
    )


def _has_bytes(parquet: pq.ParquetFile, column: str) -> bool:
    """Where all are null, they travel as null.

    Asks the statistics, and without them reads as far as the first that is not: that may take a
    page, and a page of pictures is large.
    """
    counts = _counts_of_bytes(parquet, column)
    if counts and None not in counts:
        return any(counts)
    return any(
        _is_bytes(cell)
        for batch in parquet.iter_batches(batch_size=_SAMPLED_ROWS, columns=[column])
        for row in batch.to_pylist()
        for cell in row.values()
    )


def _counts_of_bytes(parquet: pq.ParquetFile, column: str) -> list[int | None]:
    """How many values are no null, by row group and leaf that holds plain bytes; None: unknown."""
    metadata, schema = parquet.metadata, parquet.schema
    leaves = [
        leaf
        for leaf in range(metadata.num_columns)
        if f"{schema.column(leaf).path}.".startswith(f"{column}.")
        and schema.column(leaf).logical_type.type == "NONE"
        and schema.column(leaf).physical_type.endswith("BYTE_ARRAY")
    ]
    counts: list[int | None] = []
    for group in range(metadata.num_row_groups):
        for leaf in leaves:
            chunk = metadata.row_group(group).column(leaf)
            is_known = chunk.is_stats_set and chunk.statistics.has_null_count
            counts.append(chunk.num_values - chunk.statistics.null_count if is_known else None)
    return counts


def _is_bytes(value: Cell) -> bool:
    match value:
        case bytes():
            return True
        case list() | tuple():
            return any(map(_is_bytes, value))
        case dict():
            return any(map(_is_bytes, value.values()))
    return False
