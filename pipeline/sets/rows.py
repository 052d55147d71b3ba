"""From kept traces to canonical rows: made in a worker, one trace object at a time.

Only here are tokens and pictures read, and only those of traces that are kept.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.select.columns import WHOLE
from pipeline.sets.picks import GroupPick, PairPick, Pick, TracePosition
from pipeline.sets.replay import requests_of
from pipeline.store.objects import Store
from pipeline.store.traces import open_parquet
from pipeline.twig.programs import Settings
from pipeline.twig.requests import Canvas, Codes, Request, Text, Visual
from schemas.recipes import Groups, Recipe, SetKind
from schemas.rows import (
    DrawRow,
    EventRow,
    GroupRow,
    ImageCell,
    LineageRow,
    Message,
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
    "final_picture",
)
_EVENT_COLUMNS = (
    *("index", "role", "region", "revision", "candidate", "backend", "text", "raw_text"),
    *("prefix_ids", "token_ids", "codes", "finish", "superseded_by", "picture"),
)
_LOGP_COLUMNS = ("logp_sample", "logp_cond")


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectWork:
    """What a worker needs to make the rows of one trace object. May be pickled."""

    url: str  # of the run
    key: str  # of the object, below the run
    picks: Mapping[int, Sequence[Pick]]  # by positions of traces in the object
    settings: Settings
    recipe: Recipe
    recipe_digest: str


def make_rows(store: Store, work: ObjectWork) -> Iterator[tuple[Pick, TrainingRow]]:
    """The rows picked of one object, in the order of its traces, each with its pick."""
    picks = [pick for picks_of_trace in work.picks.values() for pick in picks_of_trace]
    columns = columns_for(work.recipe, picks)
    worse_sides = _worse_sides(store, picks, columns)
    for position, trace_row in read_positions(store, work.key, sorted(work.picks), columns):
        requests = requests_of(trace_row, work.settings)
        for pick in work.picks[position]:
            lineage = _lineage(trace_row, pick, work.recipe_digest)
            if pick.group is not None and work.recipe.groups is not None:
                group_row = _group_row(lineage, trace_row, requests, pick.group, work.recipe.groups)
                yield pick, group_row
            elif pick.pair is not None and pick.pair.worse_trace is not None:
                worst = worse_sides[pick.pair.worse_trace]
                yield pick, _pair_of_traces(lineage, trace_row, worst, pick.pair)
            elif pick.pair is not None:
                rejected = trace_row["events"][pick.event]
                yield pick, _pair_of_drawings(lineage, trace_row, requests, rejected, pick.pair)
            else:
                yield pick, _event_row(lineage, trace_row, requests[pick.event], pick.event)


def _worse_sides(
    store: Store, picks: Sequence[Pick], columns: Sequence[str]
) -> dict[TracePosition, tuple[PreferenceSide, list[ImageCell]]]:
    """The worse sides of pairs of traces, with their pictures. Each object is opened once."""
    wanted: dict[str, dict[int, PairPick]] = {}
    for pick in picks:
        if pick.pair is not None and (worse := pick.pair.worse_trace) is not None:
            wanted.setdefault(worse.key, {})[worse.position] = pick.pair
    return {
        TracePosition(key=key, position=position): (
            _picture_side(trace_row, pairs[position].rejected_score),
            _images(trace_row, [trace_row["final_picture"]]),
        )
        for key, pairs in wanted.items()
        for position, trace_row in read_positions(store, key, sorted(pairs), columns)
    }


def columns_for(recipe: Recipe, picks: Sequence[Pick]) -> list[str]:
    """The columns of trace files that these rows are made from."""
    events = [*_EVENT_COLUMNS, *(_LOGP_COLUMNS if recipe.kind == SetKind.GRPO else ())]
    columns = [*_TRACE_COLUMNS, *(f"events.list.element.{name}" for name in events)]
    is_blind = all(pick.task.startswith(Role.DRAW) or pick.task == "think_1" for pick in picks)
    return columns if is_blind else [*columns, "images"]


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
    messages: list[Message] = [
        {"role": message.role, "content": message.text}
        for message in request.messages
        if message.text
    ]
    canvas = _canvas_in_sight(request)
    prefix, answer_ids = event["prefix_ids"], event["token_ids"]
    is_foreign = prefix is None or answer_ids is None  # an endpoint's: words, and no ids of ours
    prefix, answer_ids = prefix or [], answer_ids or []
    return {
        **lineage,
        "messages": [*messages, {"role": "assistant", "content": answer}],
        "images": _canvas_picture(trace_row, event) if canvas else [],
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
    rejected: EventRow,
    pair: PairPick,
) -> PreferenceRow:
    """A drawing that was replaced, and the one that replaced it."""
    assert rejected["superseded_by"] is not None
    chosen = trace_row["events"][rejected["superseded_by"]]
    return {
        **lineage,
        "margin": pair.margin,
        "chosen": _drawing_side(trace_row, requests, chosen, pair.chosen_score),
        "rejected": _drawing_side(trace_row, requests, rejected, pair.rejected_score),
        "images": _images(trace_row, [chosen["picture"], rejected["picture"]]),
    }


def _pair_of_traces(
    lineage: LineageRow,
    best: TraceRow,
    worst: tuple[PreferenceSide, list[ImageCell]],
    pair: PairPick,
) -> PreferenceRow:
    """The finished pictures of two rollouts of one prompt."""
    worse_side, worse_images = worst
    best_images = _images(best, [best["final_picture"]])
    return {
        **lineage,
        "margin": pair.margin,
        "chosen": _picture_side(best, pair.chosen_score),
        "rejected": worse_side,
        "images": best_images + worse_images if best_images and worse_images else [],
    }


def _drawing_side(
    trace_row: TraceRow, requests: Sequence[Request], drawing: EventRow, score: float | None
) -> PreferenceSide:
    return {
        "trace_id": trace_row["trace_id"],
        "event": drawing["index"],
        "thoughts": drawing["text"],
        "prefix_ids": _prefix_of(drawing),
        "context": list(_canvas_in_sight(requests[drawing["index"]])),
        "codes": drawing["codes"],
        "score": score,
    }


def _picture_side(trace_row: TraceRow, score: float | None) -> PreferenceSide:
    """The whole picture, after the text of its last drawing, which holds every thought."""
    last = _drawings(trace_row)[-1]
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
        "images": _images(trace_row, [trace_row["final_picture"]]),
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
        "canvas": list(_canvas_in_sight(request)),
        "tokens": event["codes"] if is_drawing else event["token_ids"],
        "logp_sample": event["logp_sample"],
        "logp_cond": event["logp_cond"],
    }


def _prefix_of(drawing: EventRow) -> list[int]:
    prefix_ids = drawing["prefix_ids"]
    assert prefix_ids is not None, "no endpoint draws"
    return prefix_ids


def _canvas_in_sight(request: Request) -> Codes:
    """The tokens that a drawing goes on from, or that a question shows; none: no canvas yet."""
    if isinstance(request, Visual):
        return request.codes
    pictures = request.pictures if isinstance(request, Text) else ()
    return next((picture.codes for picture in pictures if isinstance(picture, Canvas)), ())


def _canvas_picture(trace_row: TraceRow, event: EventRow) -> list[ImageCell]:
    """The canvas that an event looked at, which is always the one after the latest drawing."""
    before = [drawing for drawing in _drawings(trace_row) if drawing["index"] < event["index"]]
    return _images(trace_row, [before[-1]["picture"]])


def _drawings(trace_row: TraceRow) -> list[EventRow]:
    return [event for event in trace_row["events"] if event["role"] == Role.DRAW]


def _images(trace_row: TraceRow, indices: Sequence[int | None]) -> list[ImageCell]:
    """The pictures at these indices; none if any of them is not kept."""
    kept = [index for index in indices if index is not None]
    return [trace_row["images"][index] for index in kept] if len(kept) == len(indices) else []
