"""The slim columns of one trace object as arrays: enough to decide by, without tokens or pictures.

Everything about events is flat: one place an event, with the row of its trace beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.store.contents import rows_not_finite
from pipeline.store.objects import Store, open_object
from schemas.errors import InputError
from schemas.trace import Role, Status

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Words = npt.NDArray[np.object_]

ROLES = (Role.THINK, Role.REFLECT, Role.DRAW, Role.SCHEDULE)
"""An event's role is its place here."""
THINK, REFLECT, DRAW, _ = range(len(ROLES))

WHOLE = -1
"""The event of what is about a whole trace."""

_TRACE_COLUMNS = ("trace_id", "record_id", "rollout_index", "status", "prompt", "metadata")
_EVENT_COLUMNS = ("index", "role", "region", "revision", "score", "verdict", "finish")
_NUMBERS = ("score", "logp_sample", "logp_cond", "duration_seconds")  # of an event
_ROWS_AT_ONCE = 256  # of numbers, which are only looked at
_MAX_EVENTS = 2**15
_MAX_REGIONS, _MAX_REVISIONS = 64, 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Events:
    """The events of all traces of a frame, in order."""

    row: Ints  # of its trace, in the frame
    index: Ints
    role: Ints
    region: Ints
    revision: Ints
    score: Floats  # NaN: none
    verdict: Words
    finish: Words
    is_replaced: Flags
    successor: Ints  # the drawing that replaced this one, or -1

    @property
    def place(self) -> Ints:
        """Which region of which trace."""
        return self.row * _MAX_REGIONS + self.region


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """The ok traces of one object."""

    position: Ints  # of the row in its object
    trace_ids: pa.Array
    record: npt.NDArray[np.uint64]  # the record id's 16 hex digits as a number
    rollout: Ints
    prompts: list[str]
    metadata: list[str]  # JSON
    num_dead: int
    broken: Mapping[int, str]  # traces with NaN or infinity in them, and the first such column
    events: Events

    def __len__(self) -> int:
        return len(self.position)

    def drawings(self) -> Ints:
        """For each event the index of the drawing that it is about, or -1: its own; the one that a
        critique judged; the one that stands in the region of a thought.
        """
        events = self.events
        is_drawing, is_kept = events.role == DRAW, (events.role == DRAW) & ~events.is_replaced
        exact = events.place * _MAX_REVISIONS + events.revision
        judged = _looked_up(exact[is_drawing], events.index[is_drawing], exact)
        standing = _looked_up(events.place[is_kept], events.index[is_kept], events.place)
        found = np.where(events.role == REFLECT, judged, standing)
        return np.where(is_drawing, events.index, found)

    def num_revisions(self) -> Ints:
        """For each event how often its region was drawn again."""
        replaced = self.events.place[self.events.is_replaced]
        counts = np.bincount(replaced, minlength=len(self) * _MAX_REGIONS)
        return counts[self.events.place]


class Scores:
    """The columns of one sidecar, to be looked up by the rows and events of a frame."""

    def __init__(self, store: Store, key: str, columns: set[str], frame: Frame) -> None:
        """Raises InputError for a score that is NaN or infinite: null says "does not apply"."""
        with open_object(store, key) as file:
            table = pq.ParquetFile(file).read(
                columns=["trace_id", "event", *sorted(columns)], use_threads=False
            )
        for column, rows in rows_not_finite(table).items():
            trace_id, event = table["trace_id"][rows[0]], table["event"][rows[0]]
            raise InputError(
                f"{store.url}/{key} has {len(rows)} scores in column {column} that are not finite, "
                f"the first of trace {trace_id}, event {event}; move the file away, and score "
                "again with a scorer that gives numbers or None (coppice verify --deep names all)"
            )
        row = pc.index_in(table["trace_id"], value_set=frame.trace_ids).combine_chunks()
        table = table.filter(row.is_valid())
        row = row.drop_null().to_numpy(zero_copy_only=False).astype(np.int64)
        event = _ints(table["event"], WHOLE)
        keys = key_of(row, event)
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        self._table = table.select(sorted(columns)).take(pa.array(order))

    def at(self, column: str, rows: Ints, events: Ints) -> Floats:
        """The scores of these; NaN where there is none."""
        place, is_there = self._places(rows, events)
        if not len(self._keys):
            return np.full(len(rows), np.nan)
        return np.where(is_there, _floats(self._table[column])[place], np.nan)

    def hashes(self, column: str, num_rows: int) -> tuple[npt.NDArray[np.uint64], Flags]:
        """The hash of each trace, and whether it has one."""
        rows = np.arange(num_rows)
        place, is_there = self._places(rows, np.full(num_rows, WHOLE))
        if not len(self._keys):
            return np.zeros(num_rows, np.uint64), np.zeros(num_rows, np.bool_)
        values = self._table[column]
        is_there &= values.is_valid().to_numpy()[place]
        return values.fill_null(0).to_numpy()[place].astype(np.uint64), is_there

    def _places(self, rows: Ints, events: Ints) -> tuple[Ints, Flags]:
        wanted = key_of(rows, events)
        place = np.searchsorted(self._keys, wanted).clip(max=max(len(self._keys) - 1, 0))
        return place, (self._keys[place] == wanted) if len(self._keys) else wanted < 0


def read_frame(store: Store, key: str) -> Frame:
    """Read the slim columns of one trace object."""
    columns = [*_TRACE_COLUMNS, *(f"events.list.element.{name}" for name in _EVENT_COLUMNS)]
    with open_object(store, key) as file:
        table = pq.ParquetFile(file).read(
            columns=[*columns, "events.list.element.superseded_by"], use_threads=False
        )
    is_ok = pc.equal(table["status"], Status.OK.value)
    table = table.filter(is_ok)
    record_ids = table["record_id"].to_pylist()
    return Frame(
        position=np.flatnonzero(is_ok.to_numpy()),
        trace_ids=table["trace_id"].combine_chunks(),
        record=np.array([int(record, 16) for record in record_ids], np.uint64),
        rollout=_ints(table["rollout_index"], 0),
        prompts=table["prompt"].to_pylist(),
        metadata=table["metadata"].to_pylist(),
        num_dead=len(is_ok) - table.num_rows,
        broken=_broken(store, key, np.flatnonzero(is_ok.to_numpy())),
        events=_events(table["events"]),
    )


def _broken(store: Store, key: str, position: Ints) -> dict[int, str]:
    """Of the ok traces at these positions of an object those with numbers that are none.

    The log-probabilities are many numbers, so they are read a few rows at a time.
    """
    wanted = ["duration_seconds", *(f"events.list.element.{name}" for name in _NUMBERS)]
    columns: dict[int, str] = {}
    with open_object(store, key) as file:
        start = 0
        for batch in pq.ParquetFile(file).iter_batches(
            _ROWS_AT_ONCE, columns=wanted, use_threads=False
        ):
            for column, rows in rows_not_finite(batch).items():
                for row in rows:
                    columns.setdefault(start + row, column)
            start += len(batch)
    of_ok = enumerate(position.tolist())
    return {trace: columns[row] for trace, row in of_ok if row in columns}


def key_of(rows: Ints, events: Ints) -> Ints:
    """One number for a row and an event of it."""
    return rows * (_MAX_EVENTS + 1) + events + 1


def _events(column: pa.ChunkedArray) -> Events:
    lists = column.combine_chunks()
    flat = pc.list_flatten(lists)
    roles = {role.value: place for place, role in enumerate(ROLES)}
    names = flat.field("role").to_pylist()
    successor = _ints(flat.field("superseded_by"), -1)
    return Events(
        row=pc.list_parent_indices(lists).to_numpy(zero_copy_only=False).astype(np.int64),
        index=_ints(flat.field("index"), -1),
        role=np.array([roles[name] for name in names], np.int64),
        region=_ints(flat.field("region"), 0),
        revision=_ints(flat.field("revision"), 0),
        score=_floats(flat.field("score")),
        verdict=_words(flat.field("verdict")),
        finish=_words(flat.field("finish")),
        is_replaced=successor >= 0,
        successor=successor,
    )


def _looked_up(keys: Ints, values: Ints, wanted: Ints) -> Ints:
    """For each wanted key its value, or -1."""
    if not len(keys):
        return np.full(len(wanted), -1)
    order = np.argsort(keys, kind="stable")
    place = np.searchsorted(keys[order], wanted).clip(max=len(keys) - 1)
    return np.where(keys[order][place] == wanted, values[order][place], -1)


def _ints(column: Any, null: int) -> Ints:
    return _plain(pc.fill_null(column, null)).astype(np.int64)


def _floats(column: Any) -> Floats:
    return _plain(column).astype(np.float64)  # nulls are NaN


def _words(column: pa.Array) -> Words:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=object)


def _plain(column: Any) -> npt.NDArray[Any]:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(whole.to_numpy(zero_copy_only=False))
