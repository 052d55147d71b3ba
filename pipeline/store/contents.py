"""A data object read for checking: its footer, its keys, and rows that no worker would write.

Reads all that it can and judges single rows; what keys an object may hold is not known here.
"""

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.store.objects import Store, open_object
from pipeline.store.traces import RowsDigest
from schemas.geometry import Geometry
from schemas.rows import TraceRow
from schemas.runs import FOOTER_KEY, Key, ShardFooter
from schemas.tables import TRACES
from schemas.trace import Status

UNREADABLE = (  # all that pyarrow, pydantic and json say to bytes that are not what they should be
    *(OSError, ValueError, KeyError, TypeError, NotImplementedError, MemoryError),
    pa.ArrowException,
)
_LIGHT = ["record_id", "rollout_index", "status", "dead_reason", "codes"]
_BATCH_ROWS = 16


@dataclass(slots=True)
class Contents:
    """What a data object says."""

    footer: ShardFooter
    num_of: Counter[str] = field(default_factory=Counter)  # rows by status
    ok: set[Key] = field(default_factory=set)
    dead: set[Key] = field(default_factory=set)
    problems: dict[str, list[Key]] = field(default_factory=dict)  # what is wrong with which rows
    digest: str | None = None  # of what the rows say; None unless all columns were read

    @property
    def keys(self) -> set[Key]:
        return self.ok | self.dead


def read_contents(store: Store, key: str, geometry: Geometry, *, is_deep: bool = False) -> Contents:
    """Read an object, a few rows at a time, checksums of pages verified.

    Deep: all columns, and every picture is decoded. Raises ObjectMissing, and one of `UNREADABLE`
    for what is no whole shard file.
    """
    with open_object(store, key) as file:
        parquet = pq.ParquetFile(file, page_checksum_verification=True)
        footer = ShardFooter.model_validate_json((parquet.metadata.metadata or {})[FOOTER_KEY])
        if not parquet.schema_arrow.equals(TRACES):
            raise ValueError("its columns are not those of a trace file")
        contents, digest = Contents(footer), RowsDigest()
        for row, num_codes in _rows(parquet, is_deep=is_deep):
            _add_row(contents, row, num_codes, geometry.num_tokens)
            if is_deep:
                digest.add(row)
                _add_pictures(contents, row, geometry.image_size)
    if is_deep:
        contents.digest = digest.hexdigest()
    return contents


def _rows(parquet: pq.ParquetFile, *, is_deep: bool) -> Iterator[tuple[TraceRow, int]]:
    """Rows, each with the number of its codes; of the columns, a few without codes unless deep."""
    columns = None if is_deep else _LIGHT
    for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=columns, use_threads=False):
        nums_codes: list[int] = pc.list_value_length(batch.column("codes")).to_pylist()
        rows: list[TraceRow] = (batch if is_deep else batch.drop_columns(["codes"])).to_pylist()
        yield from zip(rows, nums_codes, strict=True)


def _add_row(contents: Contents, row: TraceRow, num_codes: int, num_whole: int) -> None:
    """`num_whole`: how many codes a finished picture has."""
    key, status = (row["record_id"], row["rollout_index"]), row["status"]
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
    key = (row["record_id"], row["rollout_index"])
    for image in row["images"]:
        if problem := _picture_problem(image["bytes"], image_size):
            contents.problems.setdefault(problem, []).append(key)


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
