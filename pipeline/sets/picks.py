"""Which rows are to be made of which traces, out of the decisions about a whole curation.

A pick is all that making a row needs to know beside its trace, so that a worker needs no arrays.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.select.columns import WHOLE, Ints, read_columns
from pipeline.select.judge import read_column
from pipeline.select.selection import Curation
from pipeline.select.shard_candidates import TASK_OF_REVISION, task_name
from pipeline.store.layout import traces_object_key

SPLITS = ("train", "validation")


@dataclass(frozen=True, kw_only=True, slots=True)
class TracePosition:
    """Where a trace stands: the key of its object, and its row there."""

    key: str
    position: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PairPick:
    """The better and the worse side of a pair. None: not scored."""

    chosen_score: float | None
    rejected_score: float | None
    worse_trace: TracePosition | None  # None: both are drawings of the pick's own trace

    @property
    def margin(self) -> float | None:
        if self.chosen_score is None or self.rejected_score is None:
            return None
        return self.chosen_score - self.rejected_score


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupPick:
    """The place of a rollout in its group."""

    size: int
    advantage: float | None
    rewards: tuple[float | None, ...]  # as the recipe names them; None: does not apply


@dataclass(frozen=True, kw_only=True, slots=True)
class Pick:
    """A row to be made of a trace."""

    event: int  # WHOLE: of the whole trace
    task: str
    split: str
    category: str  # empty: unknown
    score: float | None  # what traces are ranked by
    pair: PairPick | None = None  # of preferences
    group: GroupPick | None = None  # of groups


def picks_of(curation: Curation, object_index: int) -> dict[int, list[Pick]]:
    """The rows to be made of one object, by the positions of their traces in it."""
    candidates, recipe = curation.candidates, curation.recipe
    rows = _kept_rows(curation, object_index)
    positions = curation.shards[object_index].position[_traces_of(curation, object_index, rows)]
    pairs = dict(_pairs_of(curation, object_index, rows))
    groups = dict(_groups_of(curation, object_index, rows))
    picks: dict[int, list[Pick]] = {}
    for row, position in zip(rows.tolist(), positions.tolist(), strict=True):
        if recipe.pairs is not None and row not in pairs:
            continue  # the worse side of a pair: the better one names it
        trace = int(candidates.trace[row])
        pick = Pick(
            event=int(candidates.event[row]),
            task=task_name(int(candidates.task[row])),
            split=SPLITS[int(curation.is_validation[trace])],
            category=candidates.categories[candidates.category[trace]],
            score=_known(candidates.rank[trace]),
            pair=pairs.get(row),
            group=groups.get(row),
        )
        picks.setdefault(position, []).append(pick)
    return picks


class _ObjectScores:
    """The scores of one trace object, by columns such as `toy.value`."""

    def __init__(self, curation: Curation, object_index: int) -> None:
        run, self._name = curation.objects[object_index]
        self._store = curation.runs[run].store
        self._recipe = curation.recipe
        self.columns = read_columns(self._store, traces_object_key(self._name))

    def at(self, column: str, traces: Ints, events: Ints) -> list[float | None]:
        """The scores of events of the object's ok traces; None: not scored."""
        scores = read_column(self._store, self._name, column, self._recipe, self.columns)
        name = column.partition(".")[2]
        return [_known(value) for value in scores.at(name, traces, events)]


def _pairs_of(curation: Curation, object_index: int, rows: Ints) -> Iterator[tuple[int, PairPick]]:
    """The pair that a row names; rows of recipes of another kind name none."""
    pairs = curation.recipe.pairs
    if pairs is None:
        return
    is_revision = curation.candidates.task[rows] == TASK_OF_REVISION
    yield from _pairs_of_traces(curation, rows[~is_revision])
    if is_revision.any():
        yield from _pairs_of_drawings(curation, object_index, rows[is_revision], pairs.by)


def _pairs_of_traces(curation: Curation, rows: Ints) -> Iterator[tuple[int, PairPick]]:
    """The best trace of a prompt with the worst one."""
    candidates = curation.candidates
    for row in rows.tolist():
        best = int(candidates.trace[row])
        worst = int(candidates.partner[best])
        if worst >= 0:
            pair = PairPick(
                chosen_score=_known(candidates.rank[best]),
                rejected_score=_known(candidates.rank[worst]),
                worse_trace=_position_of(curation, worst),
            )
            yield row, pair


def _pairs_of_drawings(
    curation: Curation, object_index: int, rows: Ints, by: str
) -> Iterator[tuple[int, PairPick]]:
    """A drawing that was replaced with the one that replaced it, scored by a column."""
    scores = _ObjectScores(curation, object_index)
    events = scores.columns.events
    successors = {
        (trace, event): successor
        for trace, event, successor in zip(
            events.trace.tolist(), events.index.tolist(), events.successor.tolist(), strict=True
        )
    }
    traces = _traces_of(curation, object_index, rows)
    rejected = curation.candidates.event[rows].astype(np.int64)
    chosen = np.array(
        [successors[event] for event in zip(traces.tolist(), rejected.tolist(), strict=True)]
    )
    chosen_scores = scores.at(by, traces, chosen)
    rejected_scores = scores.at(by, traces, rejected)
    for row, better, worse in zip(rows.tolist(), chosen_scores, rejected_scores, strict=True):
        yield row, PairPick(chosen_score=better, rejected_score=worse, worse_trace=None)


def _groups_of(
    curation: Curation, object_index: int, rows: Ints
) -> Iterator[tuple[int, GroupPick]]:
    """What a row's rollout is in its group; rows of recipes of another kind are in none."""
    candidates, groups = curation.candidates, curation.recipe.groups
    if groups is None or not len(rows):
        return
    scores = _ObjectScores(curation, object_index)
    traces, whole = _traces_of(curation, object_index, rows), np.full(len(rows), WHOLE)
    columns = [scores.at(column, traces, whole) for column in groups.rewards]
    for row, rewards in zip(rows.tolist(), zip(*columns, strict=True), strict=True):
        trace = candidates.trace[row]
        group = GroupPick(
            size=int(candidates.group_size[trace]),
            advantage=_known(candidates.advantage[trace]),
            rewards=rewards,
        )
        yield row, group


def _kept_rows(curation: Curation, object_index: int) -> Ints:
    """The rows of one object that stay, as indices into all candidates."""
    candidates = curation.candidates
    first, stop = candidates.first_row[object_index : object_index + 2].tolist()
    rows: Ints = first + np.flatnonzero(candidates.is_kept[first:stop])
    return rows


def _traces_of(curation: Curation, object_index: int, rows: Ints) -> Ints:
    """The trace of each row, counted among the ok ones of its object."""
    traces: Ints = curation.candidates.trace[rows] - int(
        curation.candidates.first_trace[object_index]
    )
    return traces


def _position_of(curation: Curation, trace: int) -> TracePosition:
    """Where a trace stands. The object's key is below its run: pairs are of one run."""
    first_traces = curation.candidates.first_trace
    object_index = int(np.searchsorted(first_traces, trace, side="right")) - 1
    position = curation.shards[object_index].position[trace - first_traces[object_index]]
    return TracePosition(
        key=traces_object_key(curation.objects[object_index][1]), position=int(position)
    )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
