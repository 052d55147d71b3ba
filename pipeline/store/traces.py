"""Traces to and from Parquet: one file a shard, written row by row, closed with a footer.

The file is the data set's own format: any Parquet reader sees the rows, and Hugging Face `datasets`
sees the pictures. Pictures stand in their own top-level column and are referred to by index,
because `datasets` gives up compression for every column that has a picture anywhere inside.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.file_names import quoted
from pipeline.store import layout
from pipeline.store.objects import Store, open_object
from schemas.config import MethodConfig
from schemas.errors import DamagedObject, ObjectMissing
from schemas.rows import EventRow, StackRow, TraceRow
from schemas.runs import FOOTER_KEY, RUN_KEY, EndpointUsage, Key, RunEvidence, ShardFooter
from schemas.tables import TRACES
from schemas.trace import TRACE_VERSION, Event, Status, Trace

ROW_GROUP_BYTES = 64 * 2**20
"""A row group is closed at this size: the Hub's viewer and most readers load whole row groups, and
pyarrow cannot read back one with more than 2 GiB of pictures."""

UNREADABLE = (  # all that pyarrow, pydantic and json say to bytes that are not what they should be
    *(OSError, ValueError, KeyError, TypeError, NotImplementedError, MemoryError),
    pa.ArrowException,
)

_UNCOMPRESSED = "images.list.element.bytes"  # pictures are compressed already


OpenFile: TypeAlias = Callable[[Path], io.IOBase]
"""Makes the file that is written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardOrigin:
    """What all rows of one shard file share: where they come from."""

    run_id: str
    fingerprint: str
    method: MethodConfig
    shard: int
    attempt: int  # from 1, for people
    attempt_id: str
    worker: str
    stack: StackRow
    supplement: int = 0  # 0: a base
    rerun_id: str = ""
    evidence: RunEvidence | None = None  # None: the file says nothing of its run


class TraceWriter:
    """Writes one shard file. Rows leave memory as row groups fill; `close` adds the footer.

    The file at `path` is made anew and stays the caller's. Not thread-safe. A file that was not
    closed is no Parquet file, and no reader takes it for one. A disk that fails is an OSError.
    """

    def __init__(self, path: Path, origin: ShardOrigin, open_file: OpenFile | None = None) -> None:
        self._origin = origin
        self._rows: list[TraceRow] = []
        self._pending_bytes = 0
        self._digest = RowsDigest()
        self._num: Counter[str] = Counter()
        self._endpoints: dict[str, EndpointUsage] = {}
        self._file = open_file(path) if open_file else path.open("wb")
        self._parquet = pq.ParquetWriter(
            self._file,
            TRACES,
            compression=_compression(),
            use_dictionary=[leaf for leaf in _leaves() if leaf != _UNCOMPRESSED],
            write_page_index=True,
            write_page_checksum=True,
        )

    def add(self, trace: Trace) -> None:
        """Add one row. A key may be added once."""
        self.add_row(make_row(trace, self._origin))
        for event in trace.events:
            if event.usage is not None:
                so_far = self._endpoints.get(event.backend, EndpointUsage())
                self._endpoints[event.backend] = so_far + event.usage

    def add_row(self, row: TraceRow) -> None:
        """Add one row as it stands in a file. It is kept, and must not change, until `close`."""
        self._rows.append(row)
        self._digest.add(row)
        self._num[row["status"]] += 1
        self._pending_bytes += _size_bytes(row)
        if self._pending_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def close(self, coppice_version: str, *, in_vain: Iterable[Key] = ()) -> ShardFooter:
        """Write what is left and the footer, and return the footer. Call it once, and last.

        `in_vain`: of a supplement, the keys that were tried again and died again.
        """
        self._flush()
        footer = ShardFooter(
            run_id=self._origin.run_id,
            fingerprint=self._origin.fingerprint,
            shard=self._origin.shard,
            supplement=self._origin.supplement,
            rerun_id=self._origin.rerun_id,
            in_vain=tuple(in_vain),
            attempt=self._origin.attempt,
            attempt_id=self._origin.attempt_id,
            num_ok=self._num[Status.OK],
            num_dead=self._num[Status.DEAD],
            digest=self._digest.hexdigest(),
            coppice_version=coppice_version,
            endpoints=self._endpoints,
        )
        self._parquet.add_key_value_metadata({FOOTER_KEY: footer.model_dump_json().encode()})
        if evidence := self._origin.evidence:
            self._parquet.add_key_value_metadata({RUN_KEY: evidence.model_dump_json().encode()})
        self._parquet.close()
        self._file.close()
        return footer

    def _flush(self) -> None:
        if self._rows:
            self._parquet.write_table(pa.Table.from_pylist(self._rows, schema=TRACES))
        self._rows, self._pending_bytes = [], 0


def prepare_to_write() -> None:
    """Load what the first file would load, in the midst of other work: pyarrow brings in pandas."""
    pa.Table.from_pylist([], schema=TRACES)


class RowsDigest:
    """A digest of keys, states and tokens, in whatever order the rows come."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []

    def add(self, row: TraceRow) -> None:
        """Count a row in. Takes its key, status, codes, and the tokens of its events: where they
        are of a foreign tokenizer, what was said.
        """
        tokens = [
            [
                event["raw_text"] if event["token_ids"] is None else event["token_ids"],
                event["codes"],
            ]
            for event in row["events"]
        ]
        key = [row["record_id"], row["rollout_index"], row["status"], row["codes"], tokens]
        self._lines.append(hashlib.sha256(json.dumps(key).encode()).digest())

    def hexdigest(self) -> str:
        """SHA-256 of the rows so far."""
        return hashlib.sha256(b"".join(sorted(self._lines))).hexdigest()


def read_footer(
    store: Store, shard: int, supplement: int = 0, *, size_bytes: int | None = None
) -> ShardFooter:
    """The footer of a committed shard or supplement, from the last bytes of its object.

    Of an object whose size a list told, in one call. Raises ObjectMissing, and DamagedObject for an
    object that is no shard file.
    """
    key = layout.traces_key(shard, supplement)
    try:
        with (
            reading_shard_file(store, shard, key),
            open_object(store, key, size_bytes=size_bytes) as file,
        ):
            metadata = pq.read_metadata(file).metadata or {}
            footer = ShardFooter.model_validate_json(metadata[FOOTER_KEY])
            if (footer.shard, footer.supplement) != (shard, supplement):
                raise ValueError(f"it is {layout.traces_key(footer.shard, footer.supplement)}")
            return footer
    except DamagedObject:
        if size_bytes is None:
            raise
        return read_footer(store, shard, supplement)  # the list may have been of an older object


def try_read_footer(store: Store, shard: int, supplement: int = 0) -> ShardFooter | None:
    """As `read_footer`; None if the shard or supplement is not committed."""
    try:
        return read_footer(store, shard, supplement)
    except ObjectMissing:
        return None


def read_rows(
    store: Store, shard: int, supplement: int = 0, *, columns: list[str] | None = None
) -> Iterator[TraceRow]:
    """The rows of one data object, read a few at a time; with `columns`, those keys alone.

    Raises ObjectMissing, and DamagedObject for an object that is no shard file.
    """
    key = layout.traces_key(shard, supplement)
    with open_parquet(store, key) as parquet:
        for batch in parquet.iter_batches(batch_size=16, columns=columns, use_threads=False):
            yield from batch.to_pylist()


@contextmanager
def open_parquet(store: Store, key: str) -> Iterator[pq.ParquetFile]:
    """A data object or a sidecar, for who reads some of it: checksums of pages are verified.

    Raises ObjectMissing, and DamagedObject for what cannot be read, then or in the context.
    """
    traces = layout.try_traces_of(key)
    shard = traces[0] if traces else None
    with reading_shard_file(store, shard, key), open_object(store, key) as file:
        yield pq.ParquetFile(file, page_checksum_verification=True)


@contextmanager
def reading_shard_file(store: Store, shard: int | None, key: str) -> Iterator[None]:
    """What is said to an object that cannot be read; a sidecar is of no shard. A store's own errors
    pass.
    """
    try:
        yield
    except UNREADABLE as error:
        url = quoted(store.url)
        way_back = (
            f"see what else is damaged: coppice verify {url} --deep; then move it aside: "
            f"coppice repair {url} --shards {shard}; and make it again: coppice run {url}"
            if shard is not None
            else f"move it away and score again; what else is damaged: coppice verify {url} --deep"
        )
        raise DamagedObject(
            f"{store.url}/{key} is no whole file of coppice ({type(error).__name__}: {error}); "
            f"{way_back}",
            reason="damaged_object",
        ) from error


def make_row(trace: Trace, origin: ShardOrigin) -> TraceRow:
    """A trace as a row of its file."""
    method, schedule = origin.method, trace.schedule
    return {
        "trace_version": TRACE_VERSION,
        "trace_id": f"{origin.run_id}-{trace.record_id}-{trace.rollout_index}",
        "run_id": origin.run_id,
        "fingerprint": origin.fingerprint,
        "record_id": trace.record_id,
        "rollout_index": trace.rollout_index,
        "status": trace.status.value,
        "prompt": trace.prompt,
        "metadata": json.dumps(trace.metadata, ensure_ascii=False),
        "program": method.program.value,
        "model": {"name": method.model.name, "digest": method.model.digest},
        "pack": {"name": method.pack.name, "digest": method.pack.digest},
        "run_seed": method.seed,
        "schedule_source": schedule.source if schedule else None,
        "region_stops": [region.stop for region in schedule.regions] if schedule else None,
        "events": [_event_row(event) for event in trace.events],
        "codes": list(trace.codes),
        "final_picture": trace.final_picture,
        "images": [{"bytes": image.data, "path": image.path} for image in trace.images],
        "dead_reason": trace.dead_reason,
        "dead_message": trace.dead_message,
        "attempts": trace.attempts,
        "attempt_id": origin.attempt_id,
        "worker": origin.worker,
        "stack": origin.stack,
        "started_at": datetime.fromtimestamp(trace.started_at, UTC),
        "duration_seconds": trace.duration_seconds,
    }


def _event_row(event: Event) -> EventRow:
    reflection = event.reflection
    return {
        "index": event.index,
        "role": event.role.value,
        "region": event.region,
        "revision": event.revision,
        "candidate": event.candidate,
        "backend": event.backend,
        "seed": event.seed,
        "text": event.text,
        "raw_text": event.raw_text,
        "score": reflection.score if reflection else None,
        "verdict": reflection.verdict.value if reflection else None,
        "better_thought": reflection.better_thought if reflection else None,
        "problem": reflection.problem if reflection else None,
        "prefix_ids": None if event.prefix_ids is None else list(event.prefix_ids),
        "token_ids": None if event.token_ids is None else list(event.token_ids),
        "codes": list(event.codes),
        "logp_sample": None if event.logp_sample is None else list(event.logp_sample),
        "logp_cond": None if event.logp_cond is None else list(event.logp_cond),
        "finish": event.finish.value if event.finish else None,
        "superseded_by": event.superseded_by,
        "picture": event.picture,
        "duration_seconds": event.duration_seconds,
    }


def _size_bytes(row: TraceRow) -> int:
    """About what a row takes of a row group: its pictures as they are, eight bytes a token."""
    pictures = sum(len(image["bytes"]) for image in row["images"])
    num_tokens = sum(
        len(event["prefix_ids"] or ()) + len(event["token_ids"] or ()) + len(event["codes"])
        for event in row["events"]
    )
    return pictures + 8 * num_tokens


def _leaves() -> list[str]:
    """The column paths of the file, as Parquet names them: `events.list.element.text`."""

    def below(name: str, kind: pa.DataType) -> Iterator[str]:
        if pa.types.is_list(kind):
            yield from below(f"{name}.list.element", kind.value_type)
        elif pa.types.is_struct(kind):
            for field in kind:
                yield from below(f"{name}.{field.name}", field.type)
        else:
            yield name

    return [leaf for field in TRACES for leaf in below(field.name, field.type)]


def _compression() -> dict[str, str]:
    return {leaf: "none" if leaf == _UNCOMPRESSED else "zstd" for leaf in _leaves()}
