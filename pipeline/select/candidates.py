"""The rows that could be made of one trace object, and what of each can be said without the others.

Runs in a worker: what it returns is a few numbers a row. What depends on other traces, such as
duplicates, the best of a prompt and mixes, is decided in `pipeline.select.decide`.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.select.columns import (
    DRAW,
    REFLECT,
    THINK,
    WHOLE,
    Flags,
    Floats,
    Frame,
    Ints,
    Scores,
    Words,
    read_frame,
)
from pipeline.select.shard_candidates import (
    BROKEN,
    GROUP,
    REVISION,
    TASK_OF_GROUP,
    TASK_OF_REVISION,
    Job,
    Keys,
    Part,
    aggregated,
    region_task,
    task_name,
)
from pipeline.store.layout import sidecar_key, traces_object_key
from pipeline.store.open import open_store
from schemas.recipes import Filter, SetKind, covers
from schemas.specs import PromptOrigin
from schemas.trace import Finish, Verdict


def make_part(job: Job, url: str, name: str) -> Part:
    """Read one trace object and its sidecars, slimly, and judge each row by itself."""
    store = open_store(url)
    frame = read_frame(store, traces_object_key(name))
    scores = {
        scorer.name: Scores(store, sidecar_key(name, scorer), set(columns), frame)
        for scorer, columns in job.columns.items()
    }
    return _Judge(job, frame, scores).part(name)


@dataclass(slots=True)
class _Rows:
    """Candidates: the trace and event of each, its place among all events, and its drawing."""

    trace: Ints
    event: Ints
    flat: Ints
    drawing: Ints
    task: Ints
    reason: Ints
    value: Floats


class _Judge:
    """Judges the rows of one frame by what stands in it and in its sidecars."""

    def __init__(self, job: Job, frame: Frame, scores: Mapping[str, Scores]) -> None:
        self._job, self._frame, self._scores = job, frame, scores
        self._recipe, self._reasons = job.recipe, job.reasons
        self._num_revisions = frame.num_revisions()
        self._metadata = [json.loads(text) for text in frame.metadata]
        self._categories = [self._category(metadata) for metadata in self._metadata]

    def part(self, name: str) -> Part:
        """All that is known of the rows by themselves of the frame that the object of this name
        holds.
        """
        frame, rows = self._frame, self._candidates()
        self._judge(rows)
        names = sorted(set(self._categories))
        places = {name: place for place, name in enumerate(names)}
        hashes, has_hash = self._hashes()
        return Part(
            position=frame.position,
            record=frame.record,
            rollout=frame.rollout,
            category=np.array([places[name] for name in self._categories], np.int64),
            categories=names,
            origins=Counter(PromptOrigin.of(metadata) for metadata in self._metadata),
            rank=self._rank(),
            hash=hashes,
            has_hash=has_hash,
            num_dead=frame.num_dead,
            broken=[
                f"{traces_object_key(name)}: trace {frame.trace_ids[trace]}, column {column}"
                for trace, column in frame.broken.items()
            ],
            trace=rows.trace.astype(np.int32),  # small, since millions of rows stay in memory
            event=rows.event.astype(np.int16),
            task=rows.task.astype(np.int16),
            reason=rows.reason.astype(np.int8),
            value=rows.value.astype(np.float32),
            order=self._order(rows),
            is_revise=self._asks_for_revision(rows),
        )

    def _asks_for_revision(self, rows: _Rows) -> Flags:
        asks = np.zeros(len(rows.trace), np.bool_)
        is_event = rows.event != WHOLE
        asks[is_event] = self._frame.events.verdict[rows.flat[is_event]] == Verdict.REVISE
        return asks

    def _candidates(self) -> _Rows:
        frame, events, recipe = self._frame, self._frame.events, self._recipe
        if recipe.kind == SetKind.SFT:
            is_row = (events.role == THINK) | (events.role == REFLECT)
            is_row |= (events.role == DRAW) & ~events.is_replaced
            task = region_task(events.role, events.region)
            wanted = [number for number in np.unique(task) if recipe.wants(task_name(number))]
            flat = np.flatnonzero(is_row & np.isin(task, wanted))
            return self._rows(events.row[flat], events.index[flat], flat, task[flat])
        whole = np.arange(len(frame))
        flat = np.zeros(0, np.int64)
        if recipe.pairs is not None and REVISION in recipe.pairs.sources:
            flat = np.flatnonzero(events.is_replaced)
        if recipe.pairs is not None and GROUP not in recipe.pairs.sources:
            whole = whole[:0]
        return self._rows(
            np.concatenate([whole, events.row[flat]]),
            np.concatenate([np.full(len(whole), WHOLE), events.index[flat]]),
            np.concatenate([np.zeros(len(whole), np.int64), flat]),
            np.repeat([TASK_OF_GROUP, TASK_OF_REVISION], [len(whole), len(flat)]),
        )

    def _rows(self, trace: Ints, event: Ints, flat: Ints, task: Ints) -> _Rows:
        drawings = self._frame.drawings()
        return _Rows(
            trace=trace,
            event=event,
            flat=flat,
            drawing=drawings[flat] if len(drawings) else flat,
            task=task,
            reason=np.zeros(len(trace), np.int64),
            value=np.full(len(trace), np.nan),
        )

    def _judge(self, rows: _Rows) -> None:
        """Give each row the first reason that there is to leave it out."""
        events = self._frame.events
        is_broken = np.zeros(len(self._frame), np.bool_)
        is_broken[list(self._frame.broken)] = True
        self._dropper(rows)(BROKEN, is_broken[rows.trace])
        if self._recipe.kind == SetKind.SFT:
            drop = self._dropper(rows)
            drop("unparseable", events.verdict[rows.flat] == Verdict.UNPARSEABLE)
            drop("truncated", events.finish[rows.flat] == Finish.LENGTH)
        drop = self._dropper(rows)
        leaks = np.array([self._job.evaluation.leak_of(text) for text in self._frame.prompts] or [])
        for level in self._job.evaluation.levels:
            drop(f"leak_{level}", (leaks == level)[rows.trace])
        for one in self._recipe.filters:
            is_bad, values = self._fails(one, rows)
            drop(one.label, is_bad, values)
        if self._recipe.agreement is not None:
            drop("disagrees", *self._disagrees(rows))
        if self._recipe.pairs is not None:
            drop("no_margin", *self._lacks_margin(rows))

    def _dropper(self, rows: _Rows) -> Callable[..., None]:
        def drop(reason: str, is_bad: Flags, values: Floats | None = None) -> None:
            is_new = is_bad & (rows.reason == 0)
            rows.reason[is_new] = self._reasons.index(reason)
            if values is not None:
                rows.value[is_new] = values[is_new]

        return drop

    def _fails(self, one: Filter, rows: _Rows) -> tuple[Flags, Floats | None]:
        values = self._values(one.column, one.of, rows)
        applies = np.ones(len(rows.trace), np.bool_)
        if one.tasks:
            numbers = [
                number
                for number in np.unique(rows.task)
                if any(covers(task, task_name(number)) for task in one.tasks)
            ]
            applies = np.isin(rows.task, numbers)
        numbers_seen: Floats | None = None
        if values.dtype == object:
            is_null = np.array([value is None for value in values], np.bool_)
            is_bad: Flags = ~is_null & (values != one.equals)
        else:
            numbers_seen = values.astype(np.float64)
            is_null = np.isnan(numbers_seen)
            least = -np.inf if one.min is None else one.min
            most = np.inf if one.max is None else one.max
            is_bad = (numbers_seen < least) | (numbers_seen > most)
        if one.null == "drop":
            is_bad = is_bad | is_null
        fails: Flags = applies & is_bad
        return fails, numbers_seen

    def _values(self, column: str, of: str, rows: _Rows) -> Floats | Words:
        """A column's value for each row."""
        source, _, name = column.partition(".")
        events = self._frame.events
        if source == "event":
            if name == "num_revisions":
                return self._num_revisions[rows.flat].astype(np.float64)
            found: Floats | Words = getattr(events, name)[rows.flat]
            return found if found.dtype == object else found.astype(np.float64)
        if source == "trace":
            return self._trace_values(name)[rows.trace]
        if of == "trace":
            return self._scores[source].at(name, rows.trace, np.full(len(rows.trace), WHOLE))
        at = rows.event if of == "event" else rows.drawing
        found_there = self._scores[source].at(name, rows.trace, at)
        return np.where(at == WHOLE, np.nan, found_there)  # no such drawing

    def _trace_values(self, name: str) -> Floats | Words:
        events, length = self._frame.events, len(self._frame)
        if name == "category":
            return np.array([text or None for text in self._categories] + [None], object)[:-1]
        if name == "rollout_index":
            return self._frame.rollout.astype(np.float64)
        is_counted = {
            "num_events": np.ones(len(events.row), np.bool_),
            "num_revisions": events.is_replaced,
            "num_unparseable": events.verdict == Verdict.UNPARSEABLE,
        }[name]
        return np.bincount(events.row[is_counted], minlength=length).astype(np.float64)

    def _disagrees(self, rows: _Rows) -> tuple[Flags, Floats]:
        """Critiques with which the outside score of the drawing that they judged does not agree."""
        agreement, events = self._recipe.agreement, self._frame.events
        assert agreement is not None
        is_critique = events.role[rows.flat] == REFLECT
        judged = self._values(agreement.by, "drawing", rows).astype(np.float64)
        is_revise = events.verdict[rows.flat] == Verdict.REVISE
        agrees = np.where(is_revise, judged <= agreement.revise_max, judged >= agreement.accept_min)
        if agreement.gain_min is not None:
            gain = self._gain(agreement.by, rows.trace, rows.drawing)
            agrees &= ~is_revise | (gain >= agreement.gain_min)
        disagrees: Flags = is_critique & ~agrees
        return disagrees, judged

    def _lacks_margin(self, rows: _Rows) -> tuple[Flags, Floats]:
        """Replaced drawings whose successor is not better by the margin asked for."""
        pairs = self._recipe.pairs
        assert pairs is not None
        gain = self._gain(pairs.by, rows.trace, rows.drawing)
        is_short = ~((gain >= pairs.min_margin) & (gain > 0))
        return (rows.task == TASK_OF_REVISION) & is_short, gain

    def _gain(self, column: str, traces: Ints, drawings: Ints) -> Floats:
        """How much more the drawing that replaced each of these scores; NaN: not known."""
        source, _, name = column.partition(".")
        events, scores = self._frame.events, self._scores[source]
        successor = np.full((len(self._frame), int(events.index.max(initial=0)) + 2), -1)
        successor[events.row, events.index] = events.successor
        after = successor[traces, drawings]
        gain = scores.at(name, traces, after) - scores.at(name, traces, drawings)
        return np.where(after >= 0, gain, np.nan)

    def _rank(self) -> Floats:
        """What traces are ranked by: one score, or the reward made of several."""
        recipe, length = self._recipe, len(self._frame)
        columns: tuple[str, ...] = ()
        if recipe.per_prompt is not None and recipe.per_prompt.by is not None:
            columns = (recipe.per_prompt.by,)
        elif recipe.pairs is not None:
            columns = (recipe.pairs.by,)
        elif recipe.groups is not None:
            columns = recipe.groups.rewards
        if not columns or not length:
            return np.full(length, np.nan)
        rewards = np.stack([self._of_traces(column) for column in columns])
        return aggregated(rewards, recipe.groups.aggregate if recipe.groups else "mean")

    def _of_traces(self, column: str) -> Floats:
        source, _, name = column.partition(".")
        length = len(self._frame)
        return self._scores[source].at(name, np.arange(length), np.full(length, WHOLE))

    def _hashes(self) -> tuple[Keys, Flags]:
        rule, length = self._recipe.per_prompt, len(self._frame)
        if rule is None or not rule.min_distance:
            return np.zeros(length, np.uint64), np.zeros(length, np.bool_)
        source, _, name = rule.hash.partition(".")
        return self._scores[source].hashes(name, length)

    def _order(self, rows: _Rows) -> Keys:
        """A number by lot for each row, from the recipe's seed and the row's name alone."""
        seed = f"{self._recipe.seed}|"
        names = [seed + name for name in self._frame.trace_ids.to_pylist()]
        lots = (
            hashlib.sha256(f"{names[trace]}|{event}|{task}".encode()).digest()[:8]
            for trace, event, task in zip(
                rows.trace.tolist(), rows.event.tolist(), rows.task.tolist(), strict=True
            )
        )
        return np.frombuffer(b"".join(lots), ">u8").astype(np.uint64)

    def _category(self, metadata: Mapping[str, object]) -> str:
        found = (metadata.get(name) for name in self._job.categories)
        return next((value for value in found if isinstance(value, str)), "")
