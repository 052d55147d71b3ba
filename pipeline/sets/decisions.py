"""From decisions as arrays to what is written: the table of decisions, and what to make of whom."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.select.columns import WHOLE, read_columns, read_scores
from pipeline.select.selection import Curation
from pipeline.select.shard_candidates import GROUP, REVISION, task_name
from pipeline.sets.rows import Pick
from pipeline.store.layout import sidecar_key, traces_object_key
from pipeline.store.objects import Store
from schemas.scores import parse_scorer
from schemas.training import DECISIONS

DECISIONS_KEY = "decisions.parquet"
_SPLITS = ("train", "validation")


def picks_of(curation: Curation, place: int) -> dict[int, list[Pick]]:
    """The rows to be made of one object, by the positions of their traces in it."""
    found, recipe = curation.candidates, curation.recipe
    rows = _kept_rows(curation, place)
    if not len(rows):
        return {}
    traces = found.trace[rows]
    sides = _scores_beside(curation, place, rows)
    picks: dict[int, list[Pick]] = {}
    for index, (row, trace) in enumerate(zip(rows.tolist(), traces.tolist(), strict=True)):
        partner: tuple[str, int] | None = None
        margin: float | None = None
        beside: tuple[float | None, float | None] = (None, None)
        if recipe.pairs is not None and task_name(found.task[row]) == GROUP:
            other = int(found.partner[trace])
            if other < 0:
                continue  # the worse side of a pair: the better one names it
            partner = _place_of(curation, other)
            beside = (_known(found.rank[trace]), _known(found.rank[other]))
        elif recipe.pairs is not None:
            beside = sides[index]
        if beside[0] is not None and beside[1] is not None:
            margin = beside[0] - beside[1]
        pick = Pick(
            event=int(found.event[row]),
            task=task_name(int(found.task[row])),
            split=_SPLITS[int(curation.is_validation[trace])],
            category=found.categories[found.category[trace]],
            score=_known(found.rank[trace]),
            partner=partner,
            margin=margin,
            group_size=int(found.group_size[trace]),
            advantage=_known(found.advantage[trace]),
            rewards=sides[index] if recipe.groups is not None else (),
            sides=beside,
        )
        position = int(curation.shards[place].position[trace - found.first_trace[place]])
        picks.setdefault(position, []).append(pick)
    return picks


def write_decisions(curation: Curation, out: Store, scratch: Path) -> None:
    """Write what became of every row, one object after the other."""
    path = scratch / DECISIONS_KEY
    with pq.ParquetWriter(path, DECISIONS, compression="zstd") as writer:
        for place in range(len(curation.shards)):
            if (table := decisions_of(curation, place)).num_rows:
                writer.write_table(table)
    out.put(DECISIONS_KEY, path)
    path.unlink()


def decisions_of(curation: Curation, place: int) -> pa.Table:
    """The decisions about the rows of one object."""
    found, part = curation.candidates, curation.shards[place]
    run_id = curation.runs[curation.objects[place][0]].run_id
    rows = slice(found.first_row[place], found.first_row[place + 1])
    first = int(found.first_trace[place])
    traces, reason = found.trace[rows], found.reason[rows]
    names = pa.array(
        f"{run_id}-{record:016x}-{rollout}"
        for record, rollout in zip(part.record.tolist(), part.rollout.tolist(), strict=True)
    )
    tasks = np.unique(found.task[rows])
    values = found.value[rows]
    columns = {
        "run_id": pa.DictionaryArray.from_arrays(pa.array([0] * len(traces), pa.int32()), [run_id]),
        "trace_id": names.cast(pa.string()).take(pa.array(traces - first)),
        "event": pa.array(found.event[rows], mask=found.event[rows] == WHOLE),
        "task": pa.DictionaryArray.from_arrays(
            pa.array(np.searchsorted(tasks, found.task[rows]), pa.int32()),
            pa.array([task_name(task) for task in tasks.tolist()], pa.string()),
        ),
        "is_kept": pa.array(reason == 0),
        "reason": pa.DictionaryArray.from_arrays(
            pa.array(reason.astype(np.int32) - 1, mask=reason == 0), list(found.reasons[1:])
        ),
        "value": pa.array(values, mask=np.isnan(values)),
        "split": pa.DictionaryArray.from_arrays(
            pa.array(curation.is_validation[traces], pa.int32()), list(_SPLITS)
        ),
    }
    return pa.table(columns, schema=DECISIONS)


def leaks_of(curation: Curation) -> list[dict[str, str]]:
    """The prompts that were left out for being in an evaluation set, by their ids and levels."""
    found = curation.candidates
    hits: dict[str, str] = {}
    for level in curation.checked.criteria.evaluation.levels:
        is_hit = found.reason == found.reasons.index(f"leak_{level}")
        for record in np.unique(found.record[found.trace[is_hit]]).tolist():
            hits[f"{record:016x}"] = level
    return [{"record_id": record, "level": hits[record]} for record in sorted(hits)]


def _kept_rows(curation: Curation, place: int) -> Any:
    found = curation.candidates
    first, last = found.first_row[place], found.first_row[place + 1]
    return first + np.flatnonzero(found.is_kept[first:last])


def _scores_beside(curation: Curation, place: int, rows: Any) -> list[Any]:
    """What stands beside a row: the rewards of a trace, or the scores of a pair of drawings."""
    found, recipe = curation.candidates, curation.recipe
    if recipe.groups is None and recipe.pairs is None:
        return []
    run, name = curation.objects[place]
    store = curation.runs[run].store
    frame = read_columns(store, traces_object_key(name))
    columns = recipe.groups.rewards if recipe.groups is not None else (recipe.pairs.by,)  # type: ignore[union-attr]
    own = found.trace[rows] - int(found.first_trace[place])
    ids = {parse_scorer(scorer).name: parse_scorer(scorer) for scorer in recipe.scorers}

    def at(column: str, events: Any) -> list[float | None]:
        source, _, part = column.partition(".")
        scores = read_scores(store, sidecar_key(name, ids[source]), {part}, frame)
        return [_known(value) for value in scores.at(part, own, events)]

    if recipe.groups is not None:
        every = [at(column, np.full(len(rows), WHOLE)) for column in columns]
        return list(zip(*every, strict=True))
    events = found.event[rows].astype(np.int64)
    successor = {
        (row, index): after
        for row, index, after in zip(
            frame.events.trace.tolist(),
            frame.events.index.tolist(),
            frame.events.successor.tolist(),
            strict=True,
        )
    }
    is_drawing = [task_name(task) == REVISION for task in found.task[rows].tolist()]
    after = np.array(
        [
            successor[row, event] if drawn else WHOLE
            for row, event, drawn in zip(own.tolist(), events.tolist(), is_drawing, strict=True)
        ]
    )
    return list(zip(at(columns[0], after), at(columns[0], events), strict=True))


def _place_of(curation: Curation, trace: int) -> tuple[str, int]:
    """The object of a trace, and its position there. Pairs are of one run, so of one store."""
    found = curation.candidates
    place = int(np.searchsorted(found.first_trace, trace, side="right")) - 1
    position = curation.shards[place].position[trace - found.first_trace[place]]
    return traces_object_key(curation.objects[place][1]), int(position)


def _known(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
