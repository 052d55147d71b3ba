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
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.store import layout
from pipeline.store.objects import Entry, Store
from pipeline.store.traces import UNREADABLE
from schemas.errors import ObjectMissing, StoreError, StoreRefused
from schemas.runs import FOOTER_KEY, FooterLogOrigin, RunManifest
from schemas.tables import FOOTERS

MAX_SUPPLEMENTS = 2**20
"""Of a shard, that are counted: more than anyone will put."""

_MAX_BYTES = 2**30  # of a log: some forty million data objects
_ORDER = [("shard", "ascending"), ("supplement", "ascending")]
_OBJECT = ["shard", "supplement", "size_bytes", "etag"]
_NOTHING = FOOTERS.empty_table()

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class FooterLog:
    """All logs of a run as one: rows in order of shards and supplements, an object once."""

    rows: pa.Table  # of schema FOOTERS
    keys: tuple[str, ...]  # of the logs that it was read from

    def counts(self, objects: pa.Table) -> tuple[npt.NDArray[np.bool_], Ints, Ints]:
        """Which of these objects the log knows, and how many ok and dead rows those have.

        `objects`: the columns of an object, as `object_table` gives them. Three arrays of its
        length; of what is not known, the counts are 0.
        """
        if not len(self.rows) or not len(objects):
            counts = np.zeros((2, len(objects)), np.int64)
            return np.zeros(len(objects), np.bool_), counts[0], counts[1]
        known = _numbers(self.rows)
        wanted = _numbers(objects)
        rows = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        match = self.rows.take(pa.array(rows))
        is_known = known[rows] == wanted
        is_known &= ints(match, "size_bytes") == ints(objects, "size_bytes")
        same_etag = pc.equal(match.column("etag"), objects.column("etag"))
        is_known &= same_etag.to_numpy()
        is_known &= pc.not_equal(objects.column("etag"), "").to_numpy()  # a list without etags
        return (
            is_known,
            np.where(is_known, ints(match, "num_ok"), 0),
            np.where(is_known, ints(match, "num_dead"), 0),
        )


def object_table(entries: Sequence[tuple[int, int, Entry]]) -> pa.Table:
    """Listed data objects, each with its shard and supplement, as rows without counts."""
    return pa.table(
        {
            "shard": pa.array([shard for shard, _, _ in entries], pa.int64()),
            "supplement": pa.array([number for _, number, _ in entries], pa.int64()),
            "size_bytes": pa.array([entry.size_bytes for *_, entry in entries], pa.int64()),
            "etag": pa.array([entry.etag for *_, entry in entries], pa.string()),
        }
    )


def ordered(objects: pa.Table) -> pa.Table:
    """In order of shards and supplements, each once: of two that claim a name, any."""
    in_order = objects.combine_chunks().sort_by(_ORDER)
    numbers = _numbers(in_order)
    is_last = np.append(numbers[1:] != numbers[:-1], True) if len(numbers) else []
    return in_order.filter(pa.array(is_last, pa.bool_()))


def with_counts(objects: pa.Table, num_ok: Ints, num_dead: Ints) -> pa.Table:
    """Rows of a log: objects, and what is in them."""
    columns = [objects.column(name) for name in _OBJECT]
    counts = [pa.array(num_ok, pa.int64()), pa.array(num_dead, pa.int64())]
    return pa.Table.from_arrays([*columns, *counts], schema=FOOTERS)


def read_footer_log(store: Store, manifest: RunManifest) -> FooterLog:
    """What the logs of a run say; nothing, where there are none that can be used.

    Raises StoreUnavailable.
    """
    logs = dict(_read_logs(store, manifest))
    return FooterLog(rows=ordered(pa.concat_tables([_NOTHING, *logs.values()])), keys=tuple(logs))


def write_footer_log(store: Store, manifest: RunManifest, rows: pa.Table, read: FooterLog) -> None:
    """Put a log of these rows, and delete those that it was made of.

    A store that says no, or is away, is no matter: the log is only a help.
    """
    origin = FooterLogOrigin(run_id=manifest.run_id, fingerprint=manifest.fingerprint)
    metadata = {FOOTER_KEY: origin.model_dump_json().encode()}
    sink = pa.BufferOutputStream()
    pq.write_table(ordered(rows).replace_schema_metadata(metadata), sink, compression="zstd")
    body = sink.getvalue().to_pybytes()
    written = layout.footers_key(hashlib.sha256(body).hexdigest())
    with suppress(StoreError):
        store.put(written, body)
        for key in read.keys:
            if key != written:
                store.delete(key)


def useless_logs(store: Store, manifest: RunManifest) -> Iterator[Entry]:
    """Logs that nobody can use. Raises StoreUnavailable and StoreRefused."""
    for entry in store.list_folder(layout.FOOTERS):
        # A log is put whole, so one that cannot be read is not one that is still to come.
        if _try_read(store, manifest, entry) is None:
            yield entry


def _read_logs(store: Store, manifest: RunManifest) -> Iterator[tuple[str, pa.Table]]:
    with suppress(StoreRefused):  # of this folder alone, perhaps; else the traces will say it, too
        for entry in store.list_folder(layout.FOOTERS):
            table = _try_read(store, manifest, entry)
            if table is not None:
                yield entry.key, table


def _try_read(store: Store, manifest: RunManifest, entry: Entry) -> pa.Table | None:
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
        table = pq.ParquetFile(pa.BufferReader(body)).read(use_threads=False)
        origin = FooterLogOrigin.model_validate_json(table.schema.metadata[FOOTER_KEY])
        if not table.schema.equals(FOOTERS):
            return None
    except UNREADABLE:
        return None
    ours = FooterLogOrigin(run_id=manifest.run_id, fingerprint=manifest.fingerprint)
    return table.replace_schema_metadata(None) if origin == ours else None


def _numbers(table: pa.Table) -> Ints:
    """Shard and supplement of each row as one number, which sorts as they do."""
    return ints(table, "shard") * MAX_SUPPLEMENTS + ints(table, "supplement")


def ints(table: pa.Table, column: str) -> Ints:
    """A column of a table of data objects."""
    numbers: Ints = table.column(column).to_numpy()
    return numbers
