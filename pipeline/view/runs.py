"""Runs and sets as they are looked at: their traces, found by what is known of them, read when
they are wanted.

Each key of a run is listed once: the row that brought it back, else that of the base.
"""

import hashlib
import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.store import layout
from pipeline.store.objects import Store
from pipeline.store.runs import RunSource, TraceObject, open_run
from pipeline.store.traces import open_parquet
from pipeline.view.facts import (
    SET_FIELDS,
    SLIM_COLUMNS,
    TRACE_FIELDS,
    EventScores,
    facts_of,
)
from pipeline.view.where import Facts, Kind, SortKey, Value, Where, in_order
from schemas.errors import DamagedObject, InputError, ObjectMissing
from schemas.rows import DecisionRow, TraceRow
from schemas.scores import KEY_COLUMNS, ScorerId, parse_scorer

_ROWS_AT_ONCE = 16  # with their pictures
_KINDS: Mapping[str, Kind] = {"float": "number", "uint64": "number", "string": "text"}
"""Of scorers' columns, by Arrow's names. Boxes are told of nowhere."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedTrace:
    """A trace, where its row is, and what is known of it."""

    source: TraceObject
    position: int  # of its row in the object
    facts: Facts


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorerColumns:
    """A scorer's sidecars, and the names that its columns go by here."""

    scorer: ScorerId
    names: Mapping[str, str]  # `toy.value` by `value`
    kinds: Mapping[str, Kind]  # by the name here


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewedRun:
    """A run, its scorers, and, if it is looked at for a set, what became of its rows."""

    source: RunSource
    scorers: tuple[ScorerColumns, ...]
    decisions: pa.Table | None = None  # of `schemas.training.DECISIONS`; None: there is no set
    damage: dict[int, str] | None = None  # of shards that are passed over, why; None: it is raised

    @cached_property
    def columns(self) -> Mapping[str, Kind]:
        """What each column holds that traces may be chosen by."""
        columns = {**TRACE_FIELDS, **(SET_FIELDS if self.decisions is not None else {})}
        for scorer in self.scorers:
            columns |= scorer.kinds
        return columns

    @property
    def store(self) -> Store:
        return self.source.store

    def list_traces(self, where: Where | None = None) -> Iterator[ListedTrace]:
        """The traces that are chosen, in the order of the plan. Of a set those that it decided on.

        Reads no tokens and no pictures, an object at a time.
        """
        for shard, objects in groupby(self.source.objects, key=lambda source: source.shard):
            with self._passing_over(shard):
                for listed in list(self._current(list(objects))):
                    if where is None or where.holds(listed.facts):
                        yield listed

    def read_rows(self, listed: Sequence[ListedTrace]) -> Iterator[tuple[ListedTrace, TraceRow]]:
        """The rows of these traces, a few at a time. Those that stand in one object one after the
        other, in the order of their positions, are read in one pass.
        """
        for source, of_object in groupby(listed, key=lambda trace: trace.source):
            run: list[ListedTrace] = []
            with self._passing_over(source.shard):
                for trace in of_object:
                    if run and trace.position <= run[-1].position:
                        yield from self._read_ascending(source, run)
                        run = []
                    run.append(trace)
                yield from self._read_ascending(source, run)

    def scores_at(self, source: TraceObject) -> Mapping[str, EventScores]:
        """What every scorer said of the traces of one object, by their ids."""
        scores: dict[str, dict[int | None, dict[str, Value]]] = {}
        for scorer in self.scorers:
            key = layout.sidecar_key(source.name, scorer.scorer)
            for trace_id, event, *cells in _sidecar_rows(self.store, key, tuple(scorer.names)):
                of_event = scores.setdefault(trace_id, {}).setdefault(event, {})
                of_event |= zip(scorer.names.values(), map(_finite, cells), strict=True)
        return scores

    def decisions_on(self, listed: Sequence[ListedTrace]) -> dict[str, list[DecisionRow]]:
        """What became of the rows of these traces, by their ids. Empty without a set."""
        return self._decisions_of([str(trace.facts["trace_id"]) for trace in listed])

    @contextmanager
    def _passing_over(self, shard: int) -> Iterator[None]:
        """What is done with a shard that cannot be read."""
        try:
            yield
        except DamagedObject as error:
            if self.damage is None:
                raise
            self.damage[shard] = str(error)

    def _current(self, objects: Sequence[TraceObject]) -> Iterator[ListedTrace]:
        """The traces of one shard; objects are its base and supplements, in order."""
        tables = [self._slim(source) for source in objects]
        brought_back = {
            (row["record_id"], row["rollout_index"])
            for source, rows in zip(objects, tables, strict=True)
            for row in rows
            if source.supplement
        }
        for source, rows in zip(objects, tables, strict=True):
            scores = self.scores_at(source)
            decisions = self._decisions_of([row["trace_id"] for row in rows])
            for position, row in enumerate(rows):
                trace_id, key = row["trace_id"], (row["record_id"], row["rollout_index"])
                if key in brought_back and not source.supplement:
                    continue
                if self.decisions is not None and trace_id not in decisions:
                    continue
                of_set = None if self.decisions is None else decisions[trace_id]
                facts = facts_of(row, scores.get(trace_id, {}), of_set)
                yield ListedTrace(source=source, position=position, facts=facts)

    def _slim(self, source: TraceObject) -> list[TraceRow]:
        with open_parquet(self.store, source.key) as parquet:
            table = parquet.read(columns=list(SLIM_COLUMNS), use_threads=False)
        rows: list[TraceRow] = table.to_pylist()
        return rows

    def _read_ascending(
        self, source: TraceObject, listed: Sequence[ListedTrace]
    ) -> Iterator[tuple[ListedTrace, TraceRow]]:
        """Rows of one object whose positions ascend; row groups without any are passed over."""
        wanted = {trace.position: trace for trace in listed}
        with open_parquet(self.store, source.key) as parquet:
            start = 0
            for group in range(parquet.num_row_groups):
                stop = start + parquet.metadata.row_group(group).num_rows
                if not any(start <= position < stop for position in wanted):
                    start = stop
                    continue
                for batch in parquet.iter_batches(
                    _ROWS_AT_ONCE, row_groups=[group], use_threads=False
                ):
                    offsets = [at for at in range(len(batch)) if start + at in wanted]
                    rows: list[TraceRow] = batch.take(pa.array(offsets, pa.int64())).to_pylist()
                    for at, row in zip(offsets, rows, strict=True):
                        yield wanted[start + at], row
                    start += len(batch)

    def _decisions_of(self, trace_ids: Sequence[str]) -> dict[str, list[DecisionRow]]:
        if self.decisions is None:
            return {}
        is_ours = pc.is_in(self.decisions["trace_id"], value_set=pa.array(trace_ids, pa.string()))
        of_traces: dict[str, list[DecisionRow]] = {}
        for decision in self.decisions.filter(is_ours).to_pylist():
            of_traces.setdefault(decision["trace_id"], []).append(decision)
        return of_traces


def view_run(
    url: str, *, decisions: pa.Table | None = None, is_around_damage: bool = False
) -> ViewedRun:
    """The run at a URL, its objects and scorers as they are listed now; `is_around_damage`: without
    the shards that cannot be read, which its `damage` then tells of.

    Raises InputError for a run without traces; DamagedObject, also for a scorer whose sidecars can
    none of them be read.
    """
    damage: dict[int, str] | None = {} if is_around_damage else None
    source = open_run(url, damage=damage)
    scorers = _scorers_of(source.store)
    return ViewedRun(source=source, scorers=scorers, decisions=decisions, damage=damage)


def columns_of(runs: Sequence[ViewedRun]) -> dict[str, Kind]:
    """The columns that any of the runs has, in order."""
    columns: dict[str, Kind] = {}
    for run in runs:
        columns |= run.columns
    return columns


def choose(
    runs: Sequence[ViewedRun],
    *,
    where: Where | None = None,
    sort: Sequence[SortKey] = (),
    number: int | None = None,
) -> list[tuple[ViewedRun, ListedTrace]]:
    """The traces of runs that hold, in that order; with a number, so many of them by lot.

    A lot is of record and rollout, so that a larger sample holds the smaller one, and a sample of
    two runs both sides of a pair.
    """
    traces = ((run, trace) for run in runs for trace in run.list_traces(where))
    if number is None:
        chosen = list(traces)
    else:
        numbered = enumerate(traces)
        drawn = heapq.nsmallest(number, numbered, key=lambda pair: _lot(pair[1][1]))
        chosen = [trace for _, trace in sorted(drawn, key=lambda pair: pair[0])]
    return in_order(chosen, sort, lambda pair: pair[1].facts)


def _lot(trace: ListedTrace) -> bytes:
    key = f"{trace.facts['record_id']} {trace.facts['rollout_index']}"
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()


def _scorers_of(store: Store) -> tuple[ScorerColumns, ...]:
    """The scorers that have a sidecar. Two versions of one go by their names and versions."""
    scorers = []
    for folder in sorted(store.list_subfolders(layout.SCORES)):
        try:
            scorers.append(parse_scorer(layout.object_name(folder)))
        except InputError:  # somebody else's folder
            continue
    names = [scorer.name for scorer in scorers]
    return tuple(
        columns
        for scorer in scorers
        if (columns := _columns_of(store, scorer, names.count(scorer.name) == 1)) is not None
    )


def _columns_of(store: Store, scorer: ScorerId, is_alone: bool) -> ScorerColumns | None:
    """Those of its first sidecar that can be read; None: it has none yet."""
    schema = _first_schema(store, scorer)
    if schema is None:
        return None
    prefix = scorer.name if is_alone else str(scorer)
    kinds = {
        field.name: _KINDS[str(field.type)]
        for field in schema
        if field.name not in KEY_COLUMNS and str(field.type) in _KINDS
    }
    return ScorerColumns(
        scorer=scorer,
        names={name: f"{prefix}.{name}" for name in kinds},
        kinds={f"{prefix}.{name}": kind for name, kind in kinds.items()},
    )


def _first_schema(store: Store, scorer: ScorerId) -> pa.Schema | None:
    """Raises DamagedObject if a scorer has sidecars and none of them can be read."""
    damaged: DamagedObject | None = None
    for key in sorted(entry.key for entry in store.list_folder(layout.scores_folder(scorer))):
        try:
            with open_parquet(store, key) as parquet:
                return parquet.schema_arrow
        except DamagedObject as error:  # told of with its shard, if there are others
            damaged = damaged or error
    if damaged:
        raise damaged
    return None


def _sidecar_rows(store: Store, key: str, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Of each score its trace, its event, and these columns; none of an object not scored yet."""
    columns = ["trace_id", "event", *names]
    try:
        with open_parquet(store, key) as parquet:
            table = parquet.read(columns=columns, use_threads=False)
            cells = [table[name].to_pylist() for name in columns]
    except ObjectMissing:
        return
    yield from zip(*cells, strict=True)


def _finite(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value
