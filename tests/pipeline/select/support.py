"""Columns, sidecars and candidates made by hand: what a worker reads, and what it hands on."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.prompts.leaks import EvaluationSet
from pipeline.select.columns import (
    ROLES,
    WHOLE,
    EventColumns,
    SidecarColumns,
    TraceColumns,
    event_keys,
)
from pipeline.select.decide import Candidates, gather
from pipeline.select.judging import judge
from pipeline.select.recipes import read_recipe
from pipeline.select.shard_candidates import (
    TASK_OF_GROUP,
    Criteria,
    ShardCandidates,
    ShardRows,
    ShardTraces,
    reasons_of,
)
from schemas.recipes import Recipe
from schemas.trace import GIVEN


def recipe_of(text: str) -> Recipe:
    return read_recipe(f'name = "by hand"\n{text}', origin="a test")


# Columns


def event(role: str, region: int = 0, revision: int = 0, **more: Any) -> dict[str, Any]:
    blank = {"score": np.nan, "verdict": None, "finish": None, "successor": -1}
    return {"role": role, "region": region, "revision": revision} | blank | more


def columns_of(
    *traces: Sequence[dict[str, Any]],
    records: Sequence[int] | None = None,
    prompts: Sequence[str] | None = None,
    metadata: Sequence[str] | None = None,
) -> TraceColumns:
    """The columns of traces, each given by its events."""
    rows = [
        (trace, index, of) for trace, all_of in enumerate(traces) for index, of in enumerate(all_of)
    ]
    names = [role.value for role in ROLES]
    events = EventColumns(
        trace=np.array([trace for trace, _, _ in rows], np.int64),
        index=np.array([index for _, index, _ in rows], np.int64),
        role=np.array([names.index(of["role"]) for _, _, of in rows], np.int64),
        region=np.array([of["region"] for _, _, of in rows], np.int64),
        revision=np.array([of["revision"] for _, _, of in rows], np.int64),
        score=np.array([of["score"] for _, _, of in rows], np.float64),
        verdict=np.array([of["verdict"] for _, _, of in rows], np.object_),
        finish=np.array([of["finish"] for _, _, of in rows], np.object_),
        is_given=np.array([of.get("backend") == GIVEN for _, _, of in rows], np.bool_),
        successor=np.array([of["successor"] for _, _, of in rows], np.int64),
    )
    num = len(traces)
    return TraceColumns(
        position=np.arange(num),
        trace_ids=pa.array([f"trace-{trace}" for trace in range(num)], pa.string()),
        record=np.array(range(num) if records is None else records, np.uint64),
        rollout=np.arange(num),
        prompts=[f"prompt {trace}" for trace in range(num)] if prompts is None else list(prompts),
        metadata=["{}"] * num if metadata is None else list(metadata),
        dead_record=np.zeros(0, np.uint64),
        dead_rollout=np.zeros(0, np.int64),
        events=events,
    )


def sidecar(scores: dict[tuple[int, int], float | None], name: str = "value") -> SidecarColumns:
    """Scores by trace and event, which may be WHOLE."""
    return SidecarColumns(
        keys=event_keys(
            np.array([trace for trace, _ in scores], np.int64),
            np.array([index for _, index in scores], np.int64),
        ),
        table=pa.table({name: pa.array(list(scores.values()), pa.float32())}),
    )


def judged(
    recipe: Recipe,
    columns: TraceColumns,
    scores: dict[str, SidecarColumns] | None = None,
    evaluation: EvaluationSet | None = None,
) -> dict[tuple[int, int], str]:
    """The first reason against each row, by trace and event; empty: none."""
    criteria = Criteria(recipe=recipe, evaluation=evaluation or EvaluationSet(), columns={})
    rows = judge(columns, scores or {}, criteria).rows
    keys = list(zip(rows.trace.tolist(), rows.event.tolist(), strict=True))
    assert len(set(keys)) == len(keys), "a row comes twice"
    reasons = [reasons_of(recipe)[reason] for reason in rows.reason.tolist()]
    return dict(zip(keys, reasons, strict=True))


# Candidates


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row of a trace made by hand."""

    task: int = TASK_OF_GROUP
    lot: int = 0
    event: int = WHOLE
    reason: int = 0
    is_revise: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """A trace made by hand. Its rows are told apart by their events."""

    record: int = 0
    rollout: int = 0
    run: int = 0
    rank: float = np.nan
    hash: int | None = None
    category: str = ""
    rows: tuple[Row, ...] = (Row(),)


def shard_of(rollouts: Sequence[Rollout]) -> ShardCandidates:
    """What a worker says of these traces of one object."""
    categories = sorted({rollout.category for rollout in rollouts})
    rows = [(trace, row) for trace, rollout in enumerate(rollouts) for row in rollout.rows]
    return ShardCandidates(
        traces=ShardTraces(
            position=np.arange(len(rollouts)),
            record=np.array([rollout.record for rollout in rollouts], np.uint64),
            prompt=np.array([rollout.record for rollout in rollouts], np.uint64),
            rollout=np.array([rollout.rollout for rollout in rollouts], np.int64),
            category=np.array(
                [categories.index(rollout.category) for rollout in rollouts], np.int64
            ),
            categories=categories,
            origins=Counter(),
            rank=np.array([rollout.rank for rollout in rollouts], np.float64),
            hash=np.array([rollout.hash or 0 for rollout in rollouts], np.uint64),
            has_hash=np.array([rollout.hash is not None for rollout in rollouts], np.bool_),
            opinions=np.zeros((0, len(rollouts))),
            dead_record=np.zeros(0, np.uint64),
            dead_rollout=np.zeros(0, np.int64),
        ),
        rows=ShardRows(
            trace=np.array([trace for trace, _ in rows], np.int32),
            event=np.array([row.event for _, row in rows], np.int16),
            task=np.array([row.task for _, row in rows], np.int16),
            reason=np.array([row.reason for _, row in rows], np.int16),
            value=np.full(len(rows), np.nan, np.float32),
            lot=np.array([row.lot for _, row in rows], np.uint64),
            is_revise=np.array([row.is_revise for _, row in rows], np.bool_),
        ),
    )


def gathered(rollouts: Sequence[Rollout], recipe: Recipe) -> Candidates:
    """All of them, in order, cut into objects where the run changes."""
    cuts = [
        index
        for index in range(len(rollouts))
        if index == 0 or rollouts[index].run != rollouts[index - 1].run
    ]
    objects = [rollouts[start:stop] for start, stop in zip(cuts, [*cuts[1:], None], strict=True)]
    runs = [of_object[0].run for of_object in objects]
    return gather([shard_of(of_object) for of_object in objects], runs, reasons_of(recipe))


def reasons_in(candidates: Candidates) -> list[str]:
    """Of each row; empty: kept."""
    return [candidates.reasons[reason] for reason in candidates.reason.tolist()]
