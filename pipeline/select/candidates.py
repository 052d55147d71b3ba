"""The rows that could be made of one trace object, before anything is said against them."""

from dataclasses import dataclass

import numpy as np

from pipeline.select.columns import DRAW, REFLECT, THINK, WHOLE, Ints, TraceColumns
from pipeline.select.shard_candidates import (
    GROUP,
    REVISION,
    TASK_OF_GROUP,
    TASK_OF_REVISION,
    region_task,
    task_name,
)
from schemas.recipes import Recipe, SetKind


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateRows:
    """What each row would be made of. Arrays [rows] int64."""

    trace: Ints  # index into the `TraceColumns`
    event: Ints  # index in its trace; WHOLE: the row is of the whole trace
    event_row: Ints  # index into the `EventColumns`; 0 where the event is WHOLE
    drawing: Ints  # index in its trace of the drawing that the event is about; -1: none
    task: Ints  # see `task_name`

    def __len__(self) -> int:
        return len(self.trace)


def candidate_rows(columns: TraceColumns, recipe: Recipe) -> CandidateRows:
    """The rows of the recipe's kind and tasks."""
    if recipe.kind == SetKind.SFT:
        return _rows_of_events(columns, recipe)
    return _rows_of_traces(columns, recipe)


def _rows_of_events(columns: TraceColumns, recipe: Recipe) -> CandidateRows:
    """Thoughts, critiques, and the drawings that stand."""
    events = columns.events
    is_row = (events.role == THINK) | (events.role == REFLECT)
    is_row |= (events.role == DRAW) & ~events.is_replaced
    task = region_task(events.role, events.region)
    wanted = [number for number in np.unique(task) if recipe.wants(task_name(number))]
    event_row = np.flatnonzero(is_row & np.isin(task, wanted))
    return CandidateRows(
        trace=events.trace[event_row],
        event=events.index[event_row],
        event_row=event_row,
        drawing=columns.drawings()[event_row],
        task=task[event_row],
    )


def _rows_of_traces(columns: TraceColumns, recipe: Recipe) -> CandidateRows:
    """Whole traces, for groups and for the best and worst of a prompt; then for pairs of drawings
    those that were replaced.
    """
    sources = (GROUP,) if recipe.pairs is None else recipe.pairs.sources
    events = columns.events
    whole = np.arange(len(columns) if GROUP in sources else 0)
    replaced = np.flatnonzero(events.is_replaced) if REVISION in sources else whole[:0]
    return CandidateRows(
        trace=np.concatenate([whole, events.trace[replaced]]),
        event=np.concatenate([np.full(len(whole), WHOLE), events.index[replaced]]),
        event_row=np.concatenate([np.zeros(len(whole), np.int64), replaced]),
        drawing=np.concatenate([np.full(len(whole), -1), events.index[replaced]]),
        task=np.repeat([TASK_OF_GROUP, TASK_OF_REVISION], [len(whole), len(replaced)]),
    )
