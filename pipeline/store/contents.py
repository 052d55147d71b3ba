"""A data object read for checking: its footer, its keys, and rows that no worker would write.

Reads all that it can and judges single rows; what keys an object may hold is not known here.
"""

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.store.evidence.digests import fetched
from pipeline.store.evidence.footers import footer_problems
from pipeline.store.objects import Store, open_object
from pipeline.store.traces import UNREADABLE, RowsDigest
from schemas.geometry import Geometry
from schemas.rows import ScoreKeyRow, TraceRow
from schemas.runs import FOOTER_KEY, Key, ShardFooter
from schemas.scores import SCORES_KEY, ScoresFooter
from schemas.tables import TRACES
from schemas.trace import Status

_LIGHT = ["record_id", "rollout_index", "status", "dead_reason", "codes"]
_BATCH_ROWS = 16
_SCORES_AT_ONCE = 2**16


@dataclass(slots=True)
class Contents:
    """What a data object says."""

    footer: ShardFooter
    num_of: Counter[str] = field(default_factory=Counter)  # rows by status
    ok: set[Key] = field(default_factory=set)
    dead: set[Key] = field(default_factory=set)
    problems: dict[str, list[Key]] = field(default_factory=dict)  # what is wrong with which rows
    # The following are only filled in if all columns were read.
    digest: str | None = None  # of what the rows say
    object_digest: str | None = None  # of all bytes
    footer_problems: list[str] = field(default_factory=list)  # what the footer says that is not so

    @property
    def keys(self) -> set[Key]:
        return self.ok | self.dead


def read_contents(store: Store, key: str, geometry: Geometry, *, is_deep: bool = False) -> Contents:
    """Read an object, a few rows at a time, checksums of pages verified.

    Deep: all columns, every picture is decoded, and what the footer says is held against them.
    Raises ObjectMissing, and one of `UNREADABLE` for what is no whole shard file.
    """
    if not is_deep:
        with open_object(store, key) as file:
            return _read(pq.ParquetFile(file, page_checksum_verification=True), geometry)
    with fetched(store, key) as (body, object_digest):
        parquet = pq.ParquetFile(body, page_checksum_verification=True)
        contents = _read(parquet, geometry, is_deep=True)
        contents.object_digest = object_digest
        contents.footer_problems += footer_problems(body)
        if parquet.schema_arrow.metadata != TRACES.metadata:
            contents.footer_problems.append("another note for `datasets` about the columns")
        return contents


def _read(parquet: pq.ParquetFile, geometry: Geometry, *, is_deep: bool = False) -> Contents:
    footer = ShardFooter.model_validate_json((parquet.metadata.metadata or {})[FOOTER_KEY])
    if not parquet.schema_arrow.equals(TRACES):
        raise ValueError("its columns are not those of a trace file")
    contents, digest = Contents(footer), RowsDigest()
    for row, num_codes, broken in _rows(parquet, is_deep=is_deep):
        _add_row(contents, row, num_codes, geometry.num_tokens)
        if is_deep:
            digest.add(row)
            _add_pictures(contents, row, geometry.image_size)
        for column in broken:
            problem = f"a number that is not finite in {column}"
            contents.problems.setdefault(problem, []).append(_key_of(row))
    if is_deep:
        contents.digest = digest.hexdigest()
    return contents


def rows_not_finite(batch: pa.RecordBatch | pa.Table) -> dict[str, list[int]]:
    """Rows in which a number is NaN or infinite, ascending, by the column, as `events.logp_cond`.

    Looks at all columns that are there, however deep, and into no null.
    """
    broken: dict[str, set[int]] = {}
    start = 0
    for part in batch.to_batches() if isinstance(batch, pa.Table) else [batch]:
        for name, column in zip(part.schema.names, part.columns, strict=True):
            for leaf, values, rows in _floats_below(name, column, np.arange(len(part)) + start):
                is_broken = pc.fill_null(pc.invert(pc.is_finite(values)), False)
                if pc.any(is_broken).as_py():
                    mask = is_broken.to_numpy(zero_copy_only=False)
                    broken.setdefault(leaf, set()).update(rows[mask].tolist())
        start += len(part)
    return {name: sorted(rows) for name, rows in broken.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sidecar:
    """What is to be checked of a sidecar."""

    not_finite: dict[str, list[str]]  # what is NaN or infinite, as `TRACE event 3`, by column
    object_digest: str  # of all bytes
    footer_problems: list[str]


def read_sidecar(store: Store, key: str) -> Sidecar:
    """Read a sidecar of scores to its last page.

    Raises ObjectMissing, and one of `UNREADABLE` for what is no sidecar.
    """
    broken: dict[str, list[str]] = {}
    with fetched(store, key) as (body, object_digest):
        parquet = pq.ParquetFile(body, page_checksum_verification=True)
        ScoresFooter.model_validate_json((parquet.metadata.metadata or {})[SCORES_KEY])
        for batch in parquet.iter_batches(batch_size=_SCORES_AT_ONCE, use_threads=False):
            for column, rows in rows_not_finite(batch).items():
                keys: list[ScoreKeyRow] = batch.take(pa.array(rows)).to_pylist()
                broken.setdefault(column, []).extend(
                    key["trace_id"] + ("" if key["event"] is None else f" event {key['event']}")
                    for key in keys
                )
        return Sidecar(
            not_finite=broken,
            object_digest=object_digest,
            footer_problems=list(footer_problems(body)),
        )


def _floats_below(
    name: str, column: pa.Array, rows: npt.NDArray[np.int64]
) -> Iterator[tuple[str, pa.Array, npt.NDArray[np.int64]]]:
    """The floats in a column with their names and, for each value, the row that it is of."""
    kind = column.type
    if pa.types.is_floating(kind):
        yield name, column, rows
    elif pa.types.is_list(kind):
        parents = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
        yield from _floats_below(name, pc.list_flatten(column), rows[parents])
    elif pa.types.is_struct(kind):
        for field_type, child in zip(kind, column.flatten(), strict=True):
            yield from _floats_below(f"{name}.{field_type.name}", child, rows)


def _rows(parquet: pq.ParquetFile, *, is_deep: bool) -> Iterator[tuple[TraceRow, int, list[str]]]:
    """Rows, each with the number of its codes and the columns of numbers that are not finite.

    Of the columns, a few without codes unless deep.
    """
    columns = None if is_deep else _LIGHT
    for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=columns, use_threads=False):
        nums_codes: list[int] = pc.list_value_length(batch.column("codes")).to_pylist()
        rows: list[TraceRow] = (batch if is_deep else batch.drop_columns(["codes"])).to_pylist()
        broken = rows_not_finite(batch)
        columns_of = [[name for name in broken if row in broken[name]] for row in range(len(batch))]
        yield from zip(rows, nums_codes, columns_of, strict=True)


def _add_row(contents: Contents, row: TraceRow, num_codes: int, num_whole: int) -> None:
    """`num_whole`: how many codes a finished picture has."""
    key, status = _key_of(row), row["status"]
    problem = ""
    if key in contents.ok or key in contents.dead:
        problem = "a second row"
    elif status == Status.DEAD and not row["dead_reason"]:
        problem = "dead without a reason"
    elif status == Status.OK and num_codes != num_whole:
        problem = f"ok without the {num_whole} codes of a picture"
    elif status not in tuple(Status):
        problem = "neither ok nor dead"
    if problem:
        contents.problems.setdefault(problem, []).append(key)
    contents.num_of[status] += 1
    (contents.ok if status == Status.OK else contents.dead).add(key)


def _add_pictures(contents: Contents, row: TraceRow, image_size: int) -> None:
    for image in row["images"]:
        if problem := _picture_problem(image["bytes"], image_size):
            contents.problems.setdefault(problem, []).append(_key_of(row))


def _key_of(row: TraceRow) -> Key:
    return row["record_id"], row["rollout_index"]


def _picture_problem(data: bytes, image_size: int) -> str:
    """Why these bytes are no picture of the run; empty if they are."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.size != (image_size, image_size):
                return f"a picture that is not {image_size} pixels wide and high"
            picture.load()
    except (*UNREADABLE, SyntaxError, Image.DecompressionBombError):  # all that Pillow says to it
        return "a picture that cannot be decoded"
    return ""
