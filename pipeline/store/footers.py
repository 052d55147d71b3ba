"""The log of footers: what a start would otherwise read of every data object, in one object.

It saves reading, and decides nothing. Which objects there are, a list says, whenever it is asked; a
row of the log counts only for an object that is listed with the very size and etag that the row
was written for, so an object that was cut, replaced or damaged since is looked at again, and so is
every object that the log does not know. A log that is gone, damaged, of another run or of another
version is no log, and the next driver makes one anew.

Anyone may write one at any time. A log is called by a digest of its bytes and never changed; it
holds all that its writer knew, and the logs that it was made of are then deleted. Of two writers at
once neither hides what the other wrote: two logs stay, both are read, and the next one replaces
both. Whoever meets a log that is being deleted reads some footers more.
"""

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.store import layout
from pipeline.store.objects import Entry, Store, keys_in
from pipeline.store.traces import UNREADABLE
from schemas.errors import ObjectMissing, StoreError, StoreRefused
from schemas.runs import FOOTER_KEY, FooterLogOrigin, RunManifest
from schemas.tables import FOOTERS

MAX_SUPPLEMENTS = 2**20
"""Of a shard, that are counted: more than anyone will put."""

SHARD, SUPPLEMENT, SIZE_BYTES, ETAG, NUM_OK, NUM_DEAD = range(len(FOOTERS.names))
_OBJECT = [SHARD, SUPPLEMENT, SIZE_BYTES, ETAG]
_MAX_BYTES = 2**30  # of a log: some forty million data objects
_NO_ETAG = 0
_AT_ONCE = 2**14  # rows that are compared at a time: a start is to hold little more than them all

Rows = npt.NDArray[np.int64]
"""(num_objects, 6): a row for each data object, with the columns of `schemas.tables.FOOTERS`."""
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class FooterLog:
    """All logs of a run as one."""

    rows: Rows  # ordered, a name once
    keys: tuple[str, ...]  # of the logs that it was read from

    def fill_in(self, objects: Rows) -> Mask:
        """Write into rows of listed objects what the log knows. (num_objects,): which it knows."""
        is_known = np.zeros(len(objects), np.bool_)
        logged = _numbers(self.rows)
        for start in range(0, len(objects) if len(logged) else 0, _AT_ONCE):
            listed = objects[start : start + _AT_ONCE]
            positions = np.searchsorted(logged, _numbers(listed))
            rows = self.rows[np.minimum(positions, len(logged) - 1)]
            is_same: Mask = (rows[:, _OBJECT] == listed[:, _OBJECT]).all(axis=1)
            is_same &= listed[:, ETAG] != _NO_ETAG
            listed[is_same] = rows[is_same]
            is_known[start : start + _AT_ONCE] = is_same
        return is_known


def object_rows(entries: Iterable[tuple[int, int, Entry]]) -> Rows:
    """Rows of listed data objects, each with its shard and supplement, and with no counts yet."""
    numbers = array("q")  # grows in place: a list of rows would be several times as large
    for shard, supplement, entry in entries:
        etag = _etag_number(entry.etag)
        numbers.extend((shard, supplement, entry.size_bytes, etag, 0, 0))
    return np.frombuffer(numbers, np.int64).reshape(-1, len(FOOTERS.names))


def ordered(rows: Rows) -> Rows:
    """In order of shards and supplements, a name once: of two rows that claim one, any."""
    numbers = _numbers(rows)
    if (numbers[1:] > numbers[:-1]).all():
        return rows
    return rows[np.unique(numbers, return_index=True)[1]]


def read_footer_log(store: Store, manifest: RunManifest) -> FooterLog:
    """What the logs of a run say; nothing, where there are none that can be used.

    Raises StoreUnavailable.
    """
    logs = dict(_read_logs(store, manifest))
    rows = (
        next(iter(logs.values()))
        if len(logs) == 1
        else np.concatenate([object_rows([]), *logs.values()])
    )
    return FooterLog(rows=ordered(rows), keys=tuple(logs))


def write_footer_log(store: Store, manifest: RunManifest, rows: Rows, read: FooterLog) -> None:
    """Put a log of these rows, and delete those that it was made of.

    A store that says no, or is away, is no matter: the log is only a help.
    """
    origin = FooterLogOrigin(run_id=manifest.run_id, fingerprint=manifest.fingerprint)
    metadata = {FOOTER_KEY: origin.model_dump_json().encode()}
    sink = pa.BufferOutputStream()
    table = _as_table(rows).replace_schema_metadata(metadata)
    pq.write_table(table, sink, compression="zstd", row_group_size=_AT_ONCE)
    body = sink.getvalue().to_pybytes()
    written = layout.footers_key(hashlib.sha256(body).hexdigest())
    with suppress(StoreError):
        store.put(written, body)
        for key in read.keys:
            if key != written:
                store.delete(key)


def useless_logs(store: Store, manifest: RunManifest) -> Iterator[Entry]:
    """Logs that nobody can use. Raises StoreUnavailable and StoreRefused."""
    for entry in keys_in(store, layout.FOOTERS):
        # A log is put whole, so one that cannot be read is not one that is still to come.
        if _try_read(store, manifest, entry) is None:
            yield entry


def _read_logs(store: Store, manifest: RunManifest) -> Iterator[tuple[str, Rows]]:
    with suppress(StoreRefused):  # of this folder alone, perhaps; else the traces will say it, too
        for entry in keys_in(store, layout.FOOTERS):
            rows = _try_read(store, manifest, entry)
            if rows is not None:
                yield entry.key, rows


def _try_read(store: Store, manifest: RunManifest, entry: Entry) -> Rows | None:
    """The rows of a log; None for what is none of this run."""
    if entry.size_bytes > _MAX_BYTES:
        return None
    try:
        body = store.read(entry.key)
    except ObjectMissing:  # replaced by another one meanwhile
        return None
    if not layout.is_footers_key(entry.key, hashlib.sha256(body).hexdigest()):
        return None
    try:
        parquet = pq.ParquetFile(pa.BufferReader(body), page_checksum_verification=True)
        origin = FooterLogOrigin.model_validate_json(parquet.schema_arrow.metadata[FOOTER_KEY])
        ours = FooterLogOrigin(run_id=manifest.run_id, fingerprint=manifest.fingerprint)
        is_ours = origin == ours and parquet.schema_arrow.equals(FOOTERS)
        return _as_rows(parquet) if is_ours else None
    except UNREADABLE:
        return None


def _numbers(rows: Rows) -> Rows:
    """Shard and supplement of each row as one number, which sorts as they do."""
    numbers: Rows = rows[:, SHARD] * MAX_SUPPLEMENTS + rows[:, SUPPLEMENT]
    return numbers


def _etag_number(etag: str) -> int:
    """64 bits of a digest, which differ where etags differ."""
    if not etag:
        return _NO_ETAG
    digest = hashlib.blake2b(etag.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True) or 1


# To and from Arrow by their memory: its own conversions bring in pandas, 40 MB and half a second.


def _as_table(rows: Rows) -> pa.Table:
    columns = [pa.py_buffer(np.ascontiguousarray(column)) for column in rows.T]
    arrays = [pa.Array.from_buffers(pa.int64(), len(rows), [None, column]) for column in columns]
    return pa.Table.from_arrays(arrays, schema=FOOTERS)


def _as_rows(parquet: pq.ParquetFile) -> Rows:
    rows = np.zeros((parquet.metadata.num_rows, len(FOOTERS.names)), np.int64)
    start = 0
    for batch in parquet.iter_batches(batch_size=_AT_ONCE, use_threads=False):
        for number, column in enumerate(batch.columns):
            values = np.frombuffer(column.buffers()[1], np.int64)
            rows[start : start + len(batch), number] = values[column.offset :][: len(batch)]
        start += len(batch)
    return rows
