"""From kept rows back to what a set holds: canonical rows, made in a worker, one object at a time.

Only here are tokens and pictures read, and only those of traces that are kept.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.select.shard_candidates import GROUP, REVISION
from pipeline.sets.replay import requests_of
from pipeline.store.objects import Store, open_object
from pipeline.twig.programs import Settings
from pipeline.twig.requests import Canvas, Text, Visual
from schemas.recipes import Recipe, SetKind
from schemas.trace import Role
from schemas.training import IGNORED

Row = dict[str, Any]
_ROWS_AT_ONCE = 32
_LOGPS = ("logp_sample", "logp_cond")
_TRACE_COLUMNS = (
    *("trace_id", "run_id", "record_id", "rollout_index", "prompt", "model", "codes"),
    "final_picture",
)
_EVENT_COLUMNS = (
    *("index", "role", "region", "revision", "candidate", "backend", "text", "raw_text"),
    *("prefix_ids", "token_ids", "codes", "finish", "superseded_by", "picture"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pick:
    """A row to be made of a trace."""

    event: int  # -1: of the whole trace
    task: str
    split: str
    category: str
    score: float | None  # what traces are ranked by
    partner: tuple[str, int] | None = None  # the worse trace of a pair: its object and position
    margin: float | None = None
    group_size: int = 1
    advantage: float | None = None
    rewards: tuple[float | None, ...] = ()
    sides: tuple[float | None, float | None] = (None, None)  # scores of chosen and rejected


@dataclass(frozen=True, kw_only=True, slots=True)
class Making:
    """What all rows of a set have in common."""

    recipe: Recipe
    digest: str  # of the recipe


def make_rows(
    store: Store, key: str, picks: Mapping[int, Sequence[Pick]], settings: Settings, making: Making
) -> Iterator[tuple[Pick, Row]]:
    """The rows picked of one object, by positions of traces in it, in their order."""
    columns = columns_for(making.recipe, [pick for some in picks.values() for pick in some])
    for position, trace in read_positions(store, key, sorted(picks), columns):
        requests = requests_of(trace, settings)
        for pick in picks[position]:
            common = _lineage(trace, pick, making)
            if pick.task == GROUP and making.recipe.kind == SetKind.GRPO:
                yield pick, common | _group_row(trace, requests, pick, making.recipe)
            elif pick.task == GROUP:
                assert pick.partner is not None
                ((_, other),) = read_positions(store, pick.partner[0], [pick.partner[1]], columns)
                yield pick, common | _pair_of_traces(trace, other, pick)
            elif pick.task == REVISION:
                yield pick, common | _pair_of_drawings(trace, requests, pick)
            elif isinstance(requests[pick.event], Visual):
                yield pick, common | _draw_row(trace, requests[pick.event], pick)
            else:
                yield pick, common | _text_row(trace, requests[pick.event], pick)


def columns_for(recipe: Recipe, picks: Sequence[Pick]) -> list[str]:
    """The columns that these rows are made from."""
    events = [*_EVENT_COLUMNS, *(_LOGPS if recipe.kind == SetKind.GRPO else ())]
    columns = [*_TRACE_COLUMNS, *(f"events.list.element.{name}" for name in events)]
    is_blind = all(pick.task.startswith(Role.DRAW) or pick.task == "think_1" for pick in picks)
    return columns if is_blind else [*columns, "images"]


def read_positions(
    store: Store, key: str, positions: Sequence[int], columns: Sequence[str]
) -> Iterator[tuple[int, Row]]:
    """The rows at these places of an object, a few at a time. Skips row groups without any."""
    wanted = np.array(positions, np.int64)
    with open_object(store, key) as file:
        parquet, first = pq.ParquetFile(file), 0
        for group in range(parquet.num_row_groups):
            last = first + parquet.metadata.row_group(group).num_rows
            inside, first_of_batch = wanted[(wanted >= first) & (wanted < last)], first
            first = last
            if not len(inside):
                continue
            for batch in parquet.iter_batches(
                _ROWS_AT_ONCE, row_groups=[group], columns=list(columns), use_threads=False
            ):
                here = inside[(inside >= first_of_batch)]
                here = here[here < first_of_batch + len(batch)]
                rows = batch.take(pa.array(here - first_of_batch)).to_pylist()
                yield from zip(here.tolist(), rows, strict=True)
                first_of_batch += len(batch)


def _lineage(trace: Row, pick: Pick, making: Making) -> Row:
    is_event = pick.event >= 0
    place = f"-{pick.event}" if is_event else ""
    return {
        "id": f"{trace['trace_id']}{place}",
        "task": pick.task,
        "run_id": trace["run_id"],
        "trace_id": trace["trace_id"],
        "event": pick.event if is_event else None,
        "record_id": trace["record_id"],
        "recipe": making.digest,
        "model": trace["model"],
        "backend": trace["events"][pick.event]["backend"] if is_event else None,
        "prompt": trace["prompt"],
        "category": pick.category or None,
        "score": pick.score,
    }


def _text_row(trace: Row, request: Any, pick: Pick) -> Row:
    """A question and its answer; the canvas in sight as a picture and as tokens."""
    assert isinstance(request, Text)
    event = trace["events"][pick.event]
    answer = event["text"] if event["role"] == Role.THINK else event["raw_text"].strip()
    asked = [{"role": one.role, "content": one.text} for one in request.messages if one.text]
    canvas = next((one.codes for one in request.pictures if isinstance(one, Canvas)), ())
    drawings = [one for one in trace["events"][: pick.event] if one["role"] == Role.DRAW]
    # The canvas in sight is always the one after the latest drawing.
    images = _images(trace, [drawings[-1]["picture"]]) if canvas else []
    prefix, answer_ids = event["prefix_ids"], event["token_ids"]
    return {
        "messages": [*asked, {"role": "assistant", "content": answer}],
        "images": images,
        "canvas": list(canvas),
        "input_ids": prefix + answer_ids,
        "labels": [IGNORED] * len(prefix) + answer_ids,
        "modality_mask": [0] * (len(prefix) + len(answer_ids)),
        "droppable_start": None,
        "droppable_stop": None,
    }


def _draw_row(trace: Row, request: Any, pick: Pick) -> Row:
    """The text, the regions above as context, and the region that is learned."""
    event = trace["events"][pick.event]
    prefix, context, codes = event["prefix_ids"], list(request.codes), event["codes"]
    return {
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


def _pair_of_drawings(trace: Row, requests: Sequence[Any], pick: Pick) -> Row:
    events = trace["events"]
    rejected = events[pick.event]
    chosen = events[rejected["superseded_by"]]
    better, worse = pick.sides
    return {
        "margin": pick.margin,
        "chosen": _side(trace, chosen, requests[chosen["index"]].codes, chosen["codes"], better),
        "rejected": _side(
            trace, rejected, requests[rejected["index"]].codes, rejected["codes"], worse
        ),
        "images": _images(trace, [chosen["picture"], rejected["picture"]]),
    }


def _pair_of_traces(best: Row, worst: Row, pick: Pick) -> Row:
    better, worse = pick.sides
    images = [_images(one, [one["final_picture"]]) for one in (best, worst)]
    return {
        "margin": pick.margin,
        "chosen": _side(best, _last_drawing(best), (), best["codes"], better, is_whole=True),
        "rejected": _side(worst, _last_drawing(worst), (), worst["codes"], worse, is_whole=True),
        "images": [image for some in images for image in some] if all(images) else [],
    }


def _side(
    trace: Row,
    drawing: Row,
    context: Sequence[int],
    codes: Sequence[int],
    score: float | None,
    *,
    is_whole: bool = False,
) -> Row:
    return {
        "trace_id": trace["trace_id"],
        "event": None if is_whole else drawing["index"],
        "thoughts": drawing["text"],
        "prefix_ids": drawing["prefix_ids"],
        "context": list(context),
        "codes": list(codes),
        "score": score,
    }


def _last_drawing(trace: Row) -> Row:
    drawings = [one for one in trace["events"] if one["role"] == Role.DRAW]
    last: Row = drawings[-1]
    return last


def _group_row(trace: Row, requests: Sequence[Any], pick: Pick, recipe: Recipe) -> Row:
    groups = recipe.groups
    assert groups is not None
    segments = []
    for event, request in zip(trace["events"], requests, strict=True):
        is_drawing = isinstance(request, Visual)
        canvas: Sequence[int] = ()
        if is_drawing:
            canvas = request.codes
        elif request.pictures:
            canvas = request.pictures[0].codes
        has_logp = event["logp_sample"] is not None
        segments.append(
            {
                **{name: event[name] for name in ("role", "region", "revision", "prefix_ids")},
                **{name: event[name] for name in _LOGPS},
                "event": event["index"],
                "modality": "image" if is_drawing else "text",
                "is_policy": has_logp and (is_drawing or not groups.picture_only),
                "is_kept": event["superseded_by"] is None,
                "canvas": list(canvas),
                "tokens": event["codes"] if is_drawing else event["token_ids"],
            }
        )
    return {
        "group_id": f"{trace['run_id']}-{trace['record_id']}",
        "group_size": pick.group_size,
        "rollout_index": trace["rollout_index"],
        "reward": pick.score,
        "advantage": pick.advantage,
        "reward_names": list(groups.rewards),
        "rewards": list(pick.rewards),
        "segments": segments,
        "codes": trace["codes"],
        "images": _images(trace, [trace["final_picture"]]),
    }


def _images(trace: Row, places: Sequence[int | None]) -> list[Row]:
    """The pictures at these places; none if any of them is not kept."""
    kept = [place for place in places if place is not None]
    return [trace["images"][place] for place in kept] if len(kept) == len(places) else []
