"""Which rows are to be made of which traces, out of the decisions about a whole curation.

One who decides hands on the picks of an object as arrays; a worker makes of them a `Pick` a row,
which with its trace is all that making the row needs, and looks scores up for itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.select.columns import WHOLE, Flags, Floats, Ints, TraceColumns, read_columns
from pipeline.select.judge import read_column
from pipeline.select.selection import Curation
from pipeline.select.shard_candidates import TASK_OF_GROUP, TASK_OF_REVISION, task_name
from pipeline.store.layout import traces_object_key
from pipeline.store.objects import Store
from schemas.recipe_names import JUDGE
from schemas.recipes import Recipe

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
    reward_mean: float | None  # of the group
    reward_std: float | None  # with ddof 0
    num_rewards: int  # in the group that are not null
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


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectPicks:
    """The rows to be made of one object, in the order of their traces. Arrays [picks]; pickled."""

    position: Ints  # int64: of the trace in the object, ascending
    event: npt.NDArray[np.int16]
    task: npt.NDArray[np.int16]  # see `task_name`
    is_validation: Flags
    category: npt.NDArray[np.int32]  # index into `categories`
    score: Floats  # what traces are ranked by; NaN: nothing
    worse_object: npt.NDArray[np.int32]  # index into `worse_objects`; -1: not paired with a trace
    worse_position: Ints
    worse_score: Floats
    group_size: npt.NDArray[np.int32]
    advantage: npt.NDArray[np.float32]  # NaN: none
    reward_mean: Floats
    reward_std: Floats
    num_rewards: npt.NDArray[np.int32]
    categories: tuple[str, ...]
    worse_objects: tuple[str, ...]  # names

    def __len__(self) -> int:
        return len(self.position)

    def part(self, start: int, stop: int) -> "ObjectPicks":
        """Those from one index to another."""
        return replace(
            self,
            position=self.position[start:stop],
            event=self.event[start:stop],
            task=self.task[start:stop],
            is_validation=self.is_validation[start:stop],
            category=self.category[start:stop],
            score=self.score[start:stop],
            worse_object=self.worse_object[start:stop],
            worse_position=self.worse_position[start:stop],
            worse_score=self.worse_score[start:stop],
            group_size=self.group_size[start:stop],
            advantage=self.advantage[start:stop],
            reward_mean=self.reward_mean[start:stop],
            reward_std=self.reward_std[start:stop],
            num_rewards=self.num_rewards[start:stop],
        )


def picks_of(curation: Curation, object_index: int) -> ObjectPicks:
    """The rows to be made of one object. Of a pair of traces the better one names the other."""
    candidates = curation.candidates
    first, stop = candidates.first_row[object_index : object_index + 2].tolist()
    is_picked = candidates.is_kept[first:stop]
    partners = candidates.partner[candidates.trace[first:stop]]
    is_pair = (candidates.task[first:stop] == TASK_OF_GROUP) & (partners >= 0)
    if curation.recipe.pairs is not None:
        is_picked &= is_pair | (candidates.task[first:stop] == TASK_OF_REVISION)
    rows = first + np.flatnonzero(is_picked)
    first_trace = int(candidates.first_trace[object_index])
    position = curation.shards[object_index].position[candidates.trace[rows] - first_trace]
    order = np.argsort(position, kind="stable")
    rows, position, worse = rows[order], position[order], np.where(is_pair, partners, -1)
    worse = worse[rows - first]
    traces = candidates.trace[rows]
    categories, category = np.unique(candidates.category[traces], return_inverse=True)
    worse_object, worse_position, names = _places_of(curation, worse)
    return ObjectPicks(
        position=position,
        event=candidates.event[rows],
        task=candidates.task[rows],
        is_validation=curation.is_validation[traces],
        category=category.astype(np.int32),
        score=candidates.rank[traces],
        worse_object=worse_object,
        worse_position=worse_position,
        worse_score=np.where(worse >= 0, candidates.rank[worse], np.nan),
        group_size=candidates.group_size[traces],
        advantage=candidates.advantage[traces],
        reward_mean=candidates.reward_mean[traces],
        reward_std=candidates.reward_std[traces],
        num_rewards=candidates.num_rewards[traces],
        categories=tuple(candidates.categories[index] for index in categories.tolist()),
        worse_objects=names,
    )


def _places_of(
    curation: Curation, traces: Ints
) -> tuple[npt.NDArray[np.int32], Ints, tuple[str, ...]]:
    """Where traces [n] stand: the index of the object among the names that are returned, and the
    position; both -1 where the trace is -1. Names are of objects of one run: pairs are of one run.
    """
    first_traces = curation.candidates.first_trace
    of_trace = np.searchsorted(first_traces, traces, side="right") - 1
    positions, indices = np.full(len(traces), -1), np.full(len(traces), -1, np.int32)
    objects = np.unique(of_trace[traces >= 0]).tolist()
    for index, object_index in enumerate(objects):
        own = np.flatnonzero((of_trace == object_index) & (traces >= 0))
        indices[own] = index
        local = traces[own] - first_traces[object_index]
        positions[own] = curation.shards[object_index].position[local]
    return indices, positions, tuple(curation.objects[index][1] for index in objects)


def expanded(picks: ObjectPicks, store: Store, name: str, recipe: Recipe) -> dict[int, list[Pick]]:
    """The picks of the object of this name, by the positions of their traces. Runs in a worker,
    which reads of the scores those that rows of pairs and groups tell.
    """
    pairs, groups = (
        list(_pairs(picks, store, name, recipe)),
        list(_groups(picks, store, name, recipe)),
    )
    by_position: dict[int, list[Pick]] = {}
    for index, position in enumerate(picks.position.tolist()):
        pick = Pick(
            event=int(picks.event[index]),
            task=task_name(int(picks.task[index])),
            split=SPLITS[int(picks.is_validation[index])],
            category=picks.categories[picks.category[index]],
            score=_known(picks.score[index]),
            pair=pairs[index] if pairs else None,
            group=groups[index] if groups else None,
        )
        by_position.setdefault(position, []).append(pick)
    return by_position


class _ObjectScores:
    """The scores of one trace object, by columns such as `toy.value`."""

    def __init__(self, store: Store, name: str, recipe: Recipe) -> None:
        self._store, self._name, self._recipe = store, name, recipe
        self.columns: TraceColumns = read_columns(
            store, traces_object_key(name), looks_for_broken=False
        )

    def traces_at(self, positions: Ints) -> Ints:
        """The indices among the object's ok traces of those at these positions."""
        return np.searchsorted(self.columns.position, positions)

    def at(self, column: str, traces: Ints, events: Ints) -> list[float | None]:
        """The scores of events of the object's ok traces; None: not scored."""
        scores = read_column(self._store, self._name, column, self._recipe, self.columns)
        name = column.partition(".")[2]
        return [_known(value) for value in scores.at(name, traces, events)]


def _pairs(picks: ObjectPicks, store: Store, name: str, recipe: Recipe) -> Iterator[PairPick]:
    """The pair of each pick; none at all for recipes of another kind."""
    if recipe.pairs is None or not len(picks):
        return
    rejected = picks.event.astype(np.int64)
    chosen_scores = [_known(value) for value in picks.score]
    rejected_scores = [_known(value) for value in picks.worse_score]
    is_revision = picks.task == TASK_OF_REVISION
    if is_revision.any():
        scores = _ObjectScores(store, name, recipe)
        own, traces = np.flatnonzero(is_revision), scores.traces_at(picks.position[is_revision])
        chosen = scores.columns.successors()[traces, rejected[own]]
        for column, events in ((chosen_scores, chosen), (rejected_scores, rejected[own])):
            values = scores.at(recipe.pairs.by, traces, events)
            for index, value in zip(own.tolist(), values, strict=True):
                column[index] = value
    for index, (better, worse) in enumerate(zip(chosen_scores, rejected_scores, strict=True)):
        worse_trace: TracePosition | None = None
        if picks.worse_object[index] >= 0:
            key = traces_object_key(picks.worse_objects[picks.worse_object[index]])
            worse_trace = TracePosition(key=key, position=int(picks.worse_position[index]))
        yield PairPick(chosen_score=better, rejected_score=worse, worse_trace=worse_trace)


def _groups(picks: ObjectPicks, store: Store, name: str, recipe: Recipe) -> Iterator[GroupPick]:
    """What each pick's rollout is in its group; none at all for recipes of another kind."""
    if recipe.groups is None or not len(picks):
        return
    is_compared = recipe.groups.rewards == (f"{JUDGE}.value",) and recipe.compares_rollouts
    scores = _ObjectScores(store, name, recipe)
    traces, whole = scores.traces_at(picks.position), np.full(len(picks), WHOLE)
    columns = (
        [list(map(_known, picks.score))]  # what the judges say of it is how it fares among others
        if is_compared
        else [scores.at(column, traces, whole) for column in recipe.groups.rewards]
    )
    for index, rewards in enumerate(zip(*columns, strict=True)):
        yield GroupPick(
            size=int(picks.group_size[index]),
            advantage=_known(picks.advantage[index]),
            reward_mean=_known(picks.reward_mean[index]),
            reward_std=_known(picks.reward_std[index]),
            num_rewards=int(picks.num_rewards[index]),
            rewards=rewards,
        )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
