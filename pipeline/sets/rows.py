"""From kept traces to canonical rows: made in a worker, one trace object at a time.

Only here are tokens and pictures read, and only those of traces that are kept.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.select.columns import WHOLE
from pipeline.sets.exports import EXPORTS
from pipeline.sets.exports.form import Source, TraceFacts
from pipeline.sets.facts import NO_GROUP, GroupRewards, Opening, facts_of, revision_of
from pipeline.sets.picks import GroupPick, PairPick, Pick, TracePosition
from pipeline.sets.questions import (
    canvas_in_sight,
    canvas_picture,
    drawings_of,
    images_at,
    messages_of,
)
from pipeline.sets.replay import requests_of
from pipeline.store.objects import Store
from pipeline.store.traces import open_parquet
from pipeline.twig.programs import Settings
from pipeline.twig.requests import Request, Text, Visual
from schemas.recipes import Groups, Recipe, SetKind
from schemas.rows import (
    DrawRow,
    EventRow,
    GroupRow,
    ImageCell,
    LineageRow,
    PreferenceRow,
    PreferenceSide,
    SegmentRow,
    TextRow,
    TraceRow,
    TrainingRow,
)
from schemas.trace import Role
from schemas.training import IGNORED

_ROWS_AT_ONCE = 16
_TRACE_COLUMNS = (
    *("trace_id", "run_id", "record_id", "rollout_index", "prompt", "model", "codes"),
    *("region_stops", "final_picture"),
)
_EVENT_COLUMNS = (
    *("index", "role", "region", "revision", "candidate", "backend", "text", "raw_text"),
    *("better_thought", "prefix_ids", "token_ids", "codes", "finish", "superseded_by", "picture"),
)
_LOGP_COLUMNS = ("logp_sample", "logp_cond")
EVERY_COLUMN = (
    *_TRACE_COLUMNS,
    *(f"events.list.element.{name}" for name in (*_EVENT_COLUMNS, *_LOGP_COLUMNS)),
    "images",
)
"""All columns that rows and exports are made from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectWork:
    """What a worker needs to make the rows of one trace object. May be pickled."""

    url: str  # of the run
    key: str  # of the object, below the run
    picks: Mapping[int, Sequence[Pick]]  # by positions of traces in the object
    settings: Settings
    recipe: Recipe
    recipe_digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class WorseSide:
    """The worse of two rollouts."""

    side: PreferenceSide
    images: list[ImageCell]
    opening: Opening


def make_rows(store: Store, work: ObjectWork) -> Iterator[tuple[Pick, Source]]:
    """The rows picked of one object, in the order of its traces, each with its pick."""
    picks = [pick for picks_of_trace in work.picks.values() for pick in picks_of_trace]
    columns = columns_for(work.recipe, picks)
    shows_traces = any(
        work.recipe.kind in EXPORTS[name].shows_traces for name in work.recipe.exports
    )
    worse_sides = _worse_sides(store, picks, columns)
    for position, trace_row in read_positions(store, work.key, sorted(work.picks), columns):
        requests = requests_of(trace_row, work.settings)
        for pick in work.picks[position]:
            worse = None
            if pick.pair is not None and pick.pair.worse_trace is not None:
                worse = worse_sides[pick.pair.worse_trace]
            row = _row(work, trace_row, requests, pick, worse)
            facts = _facts(work, trace_row, requests, pick, worse) if shows_traces else None
            yield pick, Source(row=row, facts=facts)


def _row(
    work: ObjectWork,
    trace_row: TraceRow,
    requests: Sequence[Request],
    pick: Pick,
    worse: WorseSide | None,
) -> TrainingRow:
    lineage = _lineage(trace_row, pick, work.recipe_digest)
    if pick.group is not None and work.recipe.groups is not None:
        return _group_row(lineage, trace_row, requests, pick.group, work.recipe.groups)
    if pick.pair is None:
        return _event_row(lineage, trace_row, requests[pick.event], pick.event)
    if worse is not None:
        return _pair_of_traces(lineage, trace_row, worse, pick.pair)
    return _pair_of_drawings(lineage, trace_row, requests, pick.event, pick.pair)


def _facts(
    work: ObjectWork,
    trace_row: TraceRow,
    requests: Sequence[Request],
    pick: Pick,
    worse: WorseSide | None,
) -> TraceFacts:
    rewards = NO_GROUP
    if (group := pick.group) is not None:
        rewards = GroupRewards(group.reward_mean, group.reward_std, group.num_rewards)
    return facts_of(
        trace_row,
        requests,
        work.settings,
        rejected=None if pick.pair is None or worse is not None else pick.event,
        worse=None if worse is None else worse.opening,
        rewards=rewards,
    )


def _worse_sides(
    store: Store, picks: Sequence[Pick], columns: Sequence[str]
) -> dict[TracePosition, WorseSide]:
    """The worse sides of pairs of traces. Each object is opened once."""
    wanted: dict[str, dict[int, PairPick]] = {}
    for pick in picks:
        if pick.pair is not None and (worse := pick.pair.worse_trace) is not None:
            wanted.setdefault(worse.key, {})[worse.position] = pick.pair
    return {
        TracePosition(key=key, position=position): WorseSide(
            side=_picture_side(trace_row, pairs[position].rejected_score),
            images=images_at(trace_row, [trace_row["final_picture"]]),
            opening=Opening.of(trace_row),
        )
        for key, pairs in wanted.items()
        for position, trace_row in read_positions(store, key, sorted(pairs), columns)
    }


def columns_for(recipe: Recipe, picks: Sequence[Pick]) -> list[str]:
    """The columns of trace files that these rows are made from."""
    events = [*_EVENT_COLUMNS, *(_LOGP_COLUMNS if recipe.kind == SetKind.GRPO else ())]
    columns = [*_TRACE_COLUMNS, *(f"events.list.element.{name}" for name in events)]
    is_blind = all(pick.task.startswith(Role.DRAW) or pick.task == "think_1" for pick in picks)
    shows_canvases = any(recipe.kind in EXPORTS[name].shows_traces for name in recipe.exports)
    return [*columns, "images"] if shows_canvases or not is_blind else columns


def read_positions(
    store: Store, key: str, positions: Sequence[int], columns: Sequence[str]
) -> Iterator[tuple[int, TraceRow]]:
    """The rows at these ascending positions of an object, with these columns alone, a few at a
    time. Row groups without any are skipped.
    """
    wanted = np.array(positions, np.int64)
    with open_parquet(store, key) as parquet:
        group_start = 0
        for group in range(parquet.num_row_groups):
            batch_start = group_start
            group_start += parquet.metadata.row_group(group).num_rows  # of the next one
            if not ((wanted >= batch_start) & (wanted < group_start)).any():
                continue
            for batch in parquet.iter_batches(
                _ROWS_AT_ONCE, row_groups=[group], columns=list(columns), use_threads=False
            ):
                batch_stop = batch_start + len(batch)
                in_batch = wanted[(wanted >= batch_start) & (wanted < batch_stop)]
                taken = batch.take(pa.array(in_batch - batch_start))
                trace_rows: list[TraceRow] = taken.to_pylist()
                yield from zip(in_batch.tolist(), trace_rows, strict=True)
                batch_start = batch_stop


def _lineage(trace_row: TraceRow, pick: Pick, recipe_digest: str) -> LineageRow:
    event = None if pick.event == WHOLE else pick.event
    return {
        "id": trace_row["trace_id"] if event is None else f"{trace_row['trace_id']}-{event}",
        "task": pick.task,
        "run_id": trace_row["run_id"],
        "trace_id": trace_row["trace_id"],
        "event": event,
        "record_id": trace_row["record_id"],
        "recipe": recipe_digest,
        "model": trace_row["model"],
        "backend": None if event is None else trace_row["events"][event]["backend"],
        "prompt": trace_row["prompt"],
        "category": pick.category or None,
        "score": pick.score,
    }


def _event_row(
    lineage: LineageRow, trace_row: TraceRow, request: Request, index: int
) -> TextRow | DrawRow:
    """The row of one event: its question, its answer, and where the loss falls."""
    if isinstance(request, Visual):
        return _draw_row(lineage, request, trace_row["events"][index])
    assert isinstance(request, Text)
    return _text_row(lineage, trace_row, request, trace_row["events"][index])


def _text_row(lineage: LineageRow, trace_row: TraceRow, request: Text, event: EventRow) -> TextRow:
    """A question and its answer; the canvas in sight as a picture and as tokens."""
    is_thought = event["role"] == Role.THINK
    answer = event["text"] if is_thought else (event["raw_text"] or "").strip()
    messages = messages_of(request, event["backend"])
    canvas = canvas_in_sight(request)
    prefix, answer_ids = event["prefix_ids"], event["token_ids"]
    is_foreign = prefix is None or answer_ids is None  # an endpoint's: words, and no ids of ours
    prefix, answer_ids = prefix or [], answer_ids or []
    return {
        **lineage,
        "messages": [*messages, {"role": "assistant", "content": answer}],
        "images": canvas_picture(trace_row, event) if canvas else [],
        "canvas": list(canvas),
        "input_ids": None if is_foreign else prefix + answer_ids,
        "labels": None if is_foreign else [IGNORED] * len(prefix) + answer_ids,
        "modality_mask": None if is_foreign else [0] * (len(prefix) + len(answer_ids)),
        "droppable_start": None,
        "droppable_stop": None,
    }


def _draw_row(lineage: LineageRow, request: Visual, event: EventRow) -> DrawRow:
    """The text, the regions above as context, and the region that is learned."""
    prefix, context, codes = _prefix_of(event), list(request.codes), event["codes"]
    return {
        **lineage,
        "text": event["text"],
        "input_ids": prefix + context + codes,
        "labels": [IGNORED] * (len(prefix) + len(context)) + codes,
        "modality_mask": [0] * len(prefix) + [1] * (len(context) + len(codes)),
        # All but the first and the last token of the text: begin of sentence, begin of image.
        "droppable_start": 1,
        "droppable_stop": max(1, len(prefix) - 1),
        "cfg_weight": request.cfg_weight,
        "temperature": request.temperature,
    }


def _pair_of_drawings(
    lineage: LineageRow,
    trace_row: TraceRow,
    requests: Sequence[Request],
    event: int,
    pair: PairPick,
) -> PreferenceRow:
    """A drawing that was replaced, and the one that replaced it."""
    rejected, chosen = revision_of(trace_row, event)
    return {
        **lineage,
        "margin": pair.margin,
        "chosen": _drawing_side(trace_row, requests, chosen, pair.chosen_score),
        "rejected": _drawing_side(trace_row, requests, rejected, pair.rejected_score),
        "images": images_at(trace_row, [chosen["picture"], rejected["picture"]]),
    }


def _pair_of_traces(
    lineage: LineageRow,
    best: TraceRow,
    worse: WorseSide,
    pair: PairPick,
) -> PreferenceRow:
    """The finished pictures of two rollouts of one prompt."""
    best_images = images_at(best, [best["final_picture"]])
    return {
        **lineage,
        "margin": pair.margin,
        "chosen": _picture_side(best, pair.chosen_score),
        "rejected": worse.side,
        "images": best_images + worse.images if best_images and worse.images else [],
    }


def _drawing_side(
    trace_row: TraceRow, requests: Sequence[Request], drawing: EventRow, score: float | None
) -> PreferenceSide:
    return {
        "trace_id": trace_row["trace_id"],
        "event": drawing["index"],
        "thoughts": drawing["text"],
        "prefix_ids": _prefix_of(drawing),
        "context": list(canvas_in_sight(requests[drawing["index"]])),
        "codes": drawing["codes"],
        "score": score,
    }


def _picture_side(trace_row: TraceRow, score: float | None) -> PreferenceSide:
    """The whole picture, after the text of its last drawing, which holds every thought."""
    last = drawings_of(trace_row)[-1]
    return {
        "trace_id": trace_row["trace_id"],
        "event": None,
        "thoughts": last["text"],
        "prefix_ids": _prefix_of(last),
        "context": [],
        "codes": trace_row["codes"],
        "score": score,
    }


def _group_row(
    lineage: LineageRow,
    trace_row: TraceRow,
    requests: Sequence[Request],
    group: GroupPick,
    groups: Groups,
) -> GroupRow:
    """A whole rollout, event by event, with what it earned."""
    return {
        **lineage,
        "group_id": f"{trace_row['run_id']}-{trace_row['record_id']}",
        "group_size": group.size,
        "rollout_index": trace_row["rollout_index"],
        "reward": lineage["score"],
        "advantage": group.advantage,
        "reward_names": list(groups.rewards),
        "rewards": list(group.rewards),
        "segments": [
            _segment(event, request, picture_only=groups.picture_only)
            for event, request in zip(trace_row["events"], requests, strict=True)
        ],
        "codes": trace_row["codes"],
        "images": images_at(trace_row, [trace_row["final_picture"]]),
    }


def _segment(event: EventRow, request: Request, *, picture_only: bool) -> SegmentRow:
    """An event as a step of the policy, or as context of later ones."""
    is_drawing = isinstance(request, Visual)
    was_sampled = event["logp_sample"] is not None
    return {
        "event": event["index"],
        "role": event["role"],
        "region": event["region"],
        "revision": event["revision"],
        "modality": "image" if is_drawing else "text",
        "is_policy": was_sampled and (is_drawing or not picture_only),
        "is_kept": event["superseded_by"] is None,
        "prefix_ids": event["prefix_ids"],
        "canvas": list(canvas_in_sight(request)),
        "tokens": event["codes"] if is_drawing else event["token_ids"],
        "logp_sample": event["logp_sample"],
        "logp_cond": event["logp_cond"],
    }


def _prefix_of(drawing: EventRow) -> list[int]:
    prefix_ids = drawing["prefix_ids"]
    assert prefix_ids is not None, "no endpoint draws"
    return prefix_ids
