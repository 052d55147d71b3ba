"""The slim columns of one trace object as arrays: enough to decide by, without tokens or pictures.

Traces are counted among the ok ones of their object. Events are flat: all traces' events stand one
after the other, each beside the index of its trace.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.store.contents import rows_not_finite
from pipeline.store.objects import Store
from pipeline.store.traces import open_parquet
from schemas.errors import InputError
from schemas.trace import GIVEN, Role, Status

Ints = npt.NDArray[np.signedinteger]
"""Whole numbers: int64, or as narrow as the field that holds them says."""
Keys = npt.NDArray[np.uint64]
"""All 64 bits of a record id, a hash or a lot."""
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Words = npt.NDArray[np.object_]
"""A str each, or None."""

ROLES = (Role.THINK, Role.REFLECT, Role.DRAW, Role.SCHEDULE)
"""An event's role is an index into these."""
THINK, REFLECT, DRAW, _ = range(len(ROLES))

WHOLE = -1
"""The event of what is about a whole trace."""

MAX_EVENTS = 2**15
"""Of a trace: sidecars and decisions count events in 16 bits with a sign."""
MAX_REGIONS = 64
"""Of a schedule."""
_MAX_REVISIONS = 256  # of a region, far above what a config allows

_TRACE_COLUMNS = ("trace_id", "record_id", "rollout_index", "status", "prompt", "metadata")
_EVENT_COLUMNS = (
    *("index", "role", "region", "revision", "score", "verdict", "finish", "superseded_by"),
    "backend",
)


_NUMBERS = ("score", "logp_sample", "logp_cond", "duration_seconds")  # of an event
_ROWS_AT_ONCE = 256  # of numbers, which are only looked at


@dataclass(frozen=True, kw_only=True, slots=True)
class EventColumns:
    """The events of all traces of a `TraceColumns`, in order. Arrays [events]."""

    trace: Ints  # index of its trace in the columns
    index: Ints  # of the event in its trace
    role: Ints  # index into ROLES
    region: Ints
    revision: Ints
    score: Floats  # of a critique; NaN: none
    verdict: Words  # of a critique
    finish: Words
    is_given: Flags  # whether it is a thought that came with the prompt
    successor: Ints  # index, in the same trace, of the drawing that replaced this one; -1: none

    @property
    def is_replaced(self) -> Flags:
        """Whether it is a drawing that was drawn again."""
        return self.successor >= 0

    @property
    def region_keys(self) -> Ints:
        """[events] int64, equal for the events of one region of one trace."""
        return _paired_keys(self.trace, self.region, MAX_REGIONS, "regions of a trace")


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceColumns:
    """The ok traces of one object, in order. Arrays and lists [traces]."""

    position: Ints  # of the row in its object, dead rows counted too
    trace_ids: pa.Array  # of strings
    record: Keys  # the record id's 16 hex digits as a number
    rollout: Ints
    prompts: list[str]
    metadata: list[str]  # a JSON object each
    dead_record: Keys  # [dead]: of the dead rollouts of the object, which are left out above
    dead_rollout: Ints  # [dead]
    events: EventColumns
    # Traces with NaN or infinity in them, by their index, and the first such column.
    broken: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.position)

    @property
    def num_dead(self) -> int:
        return len(self.dead_record)

    def drawings(self) -> Ints:
        """For each event [events] the index in its trace of the drawing that it is about: its own;
        the one that a critique judged; the one that stands in the region of a thought. -1: none.
        """
        events = self.events
        is_drawing, regions = events.role == DRAW, events.region_keys
        is_standing = is_drawing & ~events.is_replaced
        exact = _paired_keys(regions, events.revision, _MAX_REVISIONS, "revisions of a region")
        judged = _looked_up(exact[is_drawing], events.index[is_drawing], exact)
        standing = _looked_up(regions[is_standing], events.index[is_standing], regions)
        others = np.where(events.role == REFLECT, judged, standing)
        return np.where(is_drawing, events.index, others)

    def successors(self) -> Ints:
        """[traces, events + 1]: by the index of an event, of a drawing the one that replaced it.
        -1: there is none; so it is in the last column, which is that of no event.
        """
        events = self.events
        successors = np.full((len(self), int(events.index.max(initial=0)) + 2), -1)
        successors[events.trace, events.index] = events.successor
        return successors

    def num_revisions(self) -> Ints:
        """For each event [events] how often its region was drawn again."""
        regions = self.events.region_keys
        replaced = regions[self.events.is_replaced]
        return np.bincount(replaced, minlength=len(self) * MAX_REGIONS)[regions]


@dataclass(frozen=True, kw_only=True, slots=True)
class SidecarColumns:
    """Columns of one sidecar, to be looked up by the traces and events of a `TraceColumns`."""

    keys: Ints  # [scores] int64: the `event_keys` of what was scored
    table: pa.Table  # [scores]: the scorer's own columns

    def at(self, column: str, traces: Ints, events: Ints) -> Floats:
        """The scores [n] of events [n], or of whole traces where the event is WHOLE. NaN: does not
        apply, or was not scored.
        """
        scores = np.append(_floats(self.table[column]), np.nan)  # the last is what row -1 has
        return scores[self._rows(traces, events)]

    def at_keys(self, column: str, keys: Ints) -> Floats:
        """The scores [n] of what has these `event_keys` [n]; NaN as in `at`."""
        scores = np.append(_floats(self.table[column]), np.nan)
        return scores[_looked_up(self.keys, np.arange(len(self.keys)), keys)]

    def hashes(self, column: str, num_traces: int) -> tuple[Keys, Flags]:
        """The hash of each trace [traces], 0 where there is none, and whether there is one."""
        cells = self.table[column]
        hashes = np.append(cells.fill_null(0).to_numpy(), np.uint64(0))
        has_hash = np.append(cells.is_valid().to_numpy(), False)
        rows = self._rows(np.arange(num_traces), np.full(num_traces, WHOLE))
        return hashes[rows].astype(np.uint64), has_hash[rows]

    def _rows(self, traces: Ints, events: Ints) -> Ints:
        """The row of the table that is about each event; -1: not scored."""
        return _looked_up(self.keys, np.arange(len(self.keys)), event_keys(traces, events))


def read_columns(store: Store, key: str, *, looks_for_broken: bool = True) -> TraceColumns:
    """Read the slim columns of one trace object. Looking for broken numbers reads many more."""
    columns = [*_TRACE_COLUMNS, *(f"events.list.element.{name}" for name in _EVENT_COLUMNS)]
    with open_parquet(store, key) as parquet:
        table = parquet.read(columns=columns, use_threads=False)
    is_ok = pc.equal(table["status"], Status.OK.value)
    dead = table.filter(pc.invert(is_ok)).select(["record_id", "rollout_index"])
    table, position = table.filter(is_ok), np.flatnonzero(is_ok.to_numpy())
    return TraceColumns(
        position=position,
        trace_ids=table["trace_id"].combine_chunks(),
        record=_records(table["record_id"]),
        rollout=_ints(table["rollout_index"], null=0),
        prompts=table["prompt"].to_pylist(),
        metadata=table["metadata"].to_pylist(),
        dead_record=_records(dead["record_id"]),
        dead_rollout=_ints(dead["rollout_index"], null=0),
        events=_read_events(table["events"]),
        broken=_broken_traces(store, key, position) if looks_for_broken else {},
    )


def read_scores(
    store: Store, key: str, names: Collection[str], columns: TraceColumns
) -> SidecarColumns:
    """Read these columns of the sidecar at a key, of the traces that the `columns` have.

    Raises InputError for a score that is NaN or infinite: null says "does not apply".
    """
    with open_parquet(store, key) as parquet:
        table = parquet.read(columns=["trace_id", "event", *sorted(names)], use_threads=False)
    for name, rows in rows_not_finite(table).items():
        trace_id, event = table["trace_id"][rows[0]], table["event"][rows[0]]
        raise InputError(
            f"{store.url}/{key} has {len(rows)} scores in column {name} that are not finite, the "
            f"first of trace {trace_id}, event {event}; move the file away, and score again with a "
            "scorer that gives numbers or None (coppice verify --deep names all)"
        )
    traces = pc.index_in(table["trace_id"], value_set=columns.trace_ids)
    table = table.filter(traces.is_valid())
    keys = event_keys(_ints(traces.drop_null(), null=0), _ints(table["event"], null=WHOLE))
    return SidecarColumns(keys=keys, table=table.select(sorted(names)))


def _broken_traces(store: Store, key: str, position: Ints) -> dict[int, str]:
    """Of the ok traces at these positions of an object those with numbers that are none.

    The log-probabilities are many numbers, so they are read a few rows at a time.
    """
    wanted = ["duration_seconds", *(f"events.list.element.{name}" for name in _NUMBERS)]
    columns: dict[int, str] = {}
    with open_parquet(store, key) as parquet:
        start = 0
        for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=wanted, use_threads=False):
            for column, rows in rows_not_finite(batch).items():
                for row in rows:
                    columns.setdefault(start + row, column)
            start += len(batch)
    of_ok = enumerate(position.tolist())
    return {trace: columns[row] for trace, row in of_ok if row in columns}


def event_keys(traces: Ints, events: Ints) -> Ints:
    """One number [n] int64 for each trace [n] and event of it [n], which may be WHOLE.

    Raises InputError for an event that is not below MAX_EVENTS: its number would be another's.
    """
    return _paired_keys(traces, events.astype(np.int64) + 1, MAX_EVENTS + 1, "events of a trace")


def _paired_keys(outer: Ints, inner: Ints, num_inner: int, noun: str) -> Ints:
    """One number int64 for each pair. Raises InputError for an inner one that is out of bounds."""
    if len(inner) and not 0 <= inner.min() <= inner.max() < num_inner:
        raise InputError(
            f"found {noun} numbered {inner.min()} to {inner.max()}, expected 0 to {num_inner - 1}; "
            "leave that run out, since this version of coppice cannot curate it"
        )
    return outer.astype(np.int64) * num_inner + inner


def _read_events(column: pa.ChunkedArray) -> EventColumns:
    lists = column.combine_chunks()
    flat = pc.list_flatten(lists)
    role_indices = {role.value: index for index, role in enumerate(ROLES)}
    roles = flat.field("role").to_pylist()
    return EventColumns(
        trace=_ints(pc.list_parent_indices(lists), null=0),
        index=_ints(flat.field("index"), null=-1),
        role=np.array([role_indices[role] for role in roles], np.int64),
        region=_ints(flat.field("region"), null=0),
        revision=_ints(flat.field("revision"), null=0),
        score=_floats(flat.field("score")),
        verdict=_words(flat.field("verdict")),
        finish=_words(flat.field("finish")),
        is_given=_words(flat.field("backend")) == GIVEN,
        successor=_ints(flat.field("superseded_by"), null=-1),
    )


def _looked_up(keys: Ints, values: Ints, wanted: Ints) -> Ints:
    """For each wanted key its value, the first of several; -1: there is none."""
    if not len(keys):
        return np.full(len(wanted), -1)
    order = np.argsort(keys, kind="stable")
    nearest = order[np.searchsorted(keys[order], wanted).clip(max=len(keys) - 1)]
    return np.where(keys[nearest] == wanted, values[nearest], -1)


def _records(column: pa.ChunkedArray) -> Keys:
    return np.array([int(record, 16) for record in column.to_pylist()], np.uint64)


def _ints(column: pa.Array | pa.ChunkedArray, *, null: int) -> Ints:
    return _in_one_piece(pc.fill_null(column, null)).astype(np.int64)


def _floats(column: pa.Array | pa.ChunkedArray) -> Floats:
    return _in_one_piece(column).astype(np.float64)  # nulls are NaN


def _words(column: pa.Array | pa.ChunkedArray) -> Words:
    return _in_one_piece(column).astype(np.object_)  # nulls are None


def _in_one_piece(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.generic]:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(whole.to_numpy(zero_copy_only=False))
