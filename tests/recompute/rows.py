"""Every row of a set, from the decisions that are kept: all columns but the wording of questions,
which follows from template packs and is not computed again here.
"""

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from tests.recompute.decisions import Decision, drawing_scores
from tests.recompute.reading import JUDGE, Row, category_of
from tests.recompute.rewards import compares

IGNORED = -100


def rows_of(decisions: Sequence[Decision], recipe: Row, digest: str) -> dict[str, list[Row]]:
    """The rows by their streams, such as `sft/draw_2/train`, in order. With `order`, which is that
    of all rows together, and `answer`, the last of the messages.
    """
    made: dict[str, list[Row]] = defaultdict(list)
    order: dict[tuple[str, str], int] = {}
    for row in decisions:
        order.setdefault((row.run.run_id, row.trace["trace_id"]), len(order))
    in_order = sorted(decisions, key=lambda row: order[row.run.run_id, row.trace["trace_id"]])
    for number, row in enumerate(in_order):
        if row.reason or (recipe["pairs"] and row.task == "group" and row.partner is None):
            continue  # of a pair of traces the better one stands for both
        folder = f"sft/{row.task}" if recipe["kind"] == "sft" else recipe["kind"]
        split = "validation" if row.is_validation else "train"
        kinds = {"sft": _event_row, "preference": _pair_row, "grpo": _group_row}
        columns = kinds[recipe["kind"]](row, recipe)
        made[f"{folder}/{split}"].append({"order": number, **_lineage(row, digest), **columns})
    return dict(made)


def _lineage(row: Decision, digest: str) -> Row:
    trace, event = row.trace, row.event
    return {
        "id": trace["trace_id"] if event is None else f"{trace['trace_id']}-{event}",
        "task": row.task,
        "run_id": row.run.run_id,
        "trace_id": trace["trace_id"],
        "event": event,
        "record_id": trace["record_id"],
        "recipe": digest,
        "model": trace["model"],
        "backend": None if event is None else row.of_event["backend"],
        "prompt": trace["prompt"],
        "category": category_of(trace) or None,
        "score": _narrow(row.rank),
    }


def _narrow(value: float | None) -> float | None:
    """As a column of 32 bits has it; None for NaN."""
    return None if value is None or math.isnan(value) else float(np.float32(value))


def _canvas(trace: Row, event: Row) -> list[int]:
    """The codes that stand before an event: of a drawing, of the regions above it."""
    codes: dict[int, list[int]] = {}
    for other in trace["events"][: event["index"]]:
        if other["role"] == "draw":
            codes[other["region"]] = other["codes"]
    if event["role"] == "draw":
        codes = {region: own for region, own in codes.items() if region < event["region"]}
    return [code for region in sorted(codes) for code in codes[region]]


def _pictures(trace: Row, indices: list[int | None]) -> list[Row]:
    known = [index for index in indices if index is not None]
    return [trace["images"][index] for index in known] if len(known) == len(indices) else []


def _event_row(row: Decision, recipe: Row) -> Row:
    event, trace = row.of_event, row.trace
    prefix, canvas = event["prefix_ids"], _canvas(trace, event)
    if event["role"] == "draw":
        sampling = row.run.manifest["config"]["method"]["sampling"]
        codes = event["codes"]
        return {
            "text": event["text"],
            "input_ids": prefix + canvas + codes,
            "labels": [IGNORED] * (len(prefix) + len(canvas)) + codes,
            "modality_mask": [0] * len(prefix) + [1] * (len(canvas) + len(codes)),
            "droppable_start": 1,
            "droppable_stop": max(1, len(prefix) - 1),
            "cfg_weight": _narrow(sampling["cfg_weight"]),
            "temperature": _narrow(sampling["image_temperature"]),
        }
    drawn = [e["picture"] for e in trace["events"][: event["index"]] if e["role"] == "draw"]
    answer = event["text"] if event["role"] == "think" else (event["raw_text"] or "").strip()
    return {
        "answer": answer,
        "images": _pictures(trace, drawn[-1:]) if canvas else [],
        "canvas": canvas,
        "input_ids": prefix + event["token_ids"],
        "labels": [IGNORED] * len(prefix) + event["token_ids"],
        "modality_mask": [0] * (len(prefix) + len(event["token_ids"])),
        "droppable_start": None,
        "droppable_stop": None,
    }


def _pair_row(row: Decision, recipe: Row) -> Row:
    trace, events = row.trace, row.trace["events"]
    if row.partner is not None:
        worse = row.partner.trace
        both = [_pictures(side, [side["final_picture"]]) for side in (trace, worse)]
        return {
            "margin": _narrow(row.rank - row.partner.rank),
            "chosen": _whole_side(trace, row.rank),
            "rejected": _whole_side(worse, row.partner.rank),
            "images": both[0] + both[1] if all(both) else [],
        }
    rejected = row.of_event
    chosen = events[rejected["superseded_by"]]
    before, after = drawing_scores(row, recipe["pairs"]["by"], rejected["index"])
    assert before is not None
    assert after is not None
    return {
        "margin": _narrow(after - before),
        "chosen": _drawing_side(trace, chosen, after),
        "rejected": _drawing_side(trace, rejected, before),
        "images": _pictures(trace, [chosen["picture"], rejected["picture"]]),
    }


def _drawing_side(trace: Row, event: Row, score: float) -> Row:
    return {
        "trace_id": trace["trace_id"],
        "event": event["index"],
        "thoughts": event["text"],
        "prefix_ids": event["prefix_ids"],
        "context": _canvas(trace, event),
        "codes": event["codes"],
        "score": _narrow(score),
    }


def _whole_side(trace: Row, score: float) -> Row:
    last = [event for event in trace["events"] if event["role"] == "draw"][-1]
    return {
        "trace_id": trace["trace_id"],
        "event": None,
        "thoughts": last["text"],
        "prefix_ids": last["prefix_ids"],
        "context": [],
        "codes": trace["codes"],
        "score": _narrow(score),
    }


def _group_row(row: Decision, recipe: Row) -> Row:
    trace, groups = row.trace, recipe["groups"]
    rewards = [row.run.score(name, trace["trace_id"], None) for name in groups["rewards"]]
    if groups["rewards"] == [JUDGE] and compares(recipe):
        rewards = [None if math.isnan(row.rank) else row.rank]  # how it fares among the others
    size, advantage = row.group
    return {
        "group_id": f"{row.run.run_id}-{trace['record_id']}",
        "group_size": size,
        "rollout_index": trace["rollout_index"],
        "reward": _narrow(row.rank),
        "advantage": _narrow(advantage),
        "reward_names": groups["rewards"],
        "rewards": [None if score is None else _narrow(float(score)) for score in rewards],
        "segments": [_segment(trace, event, groups["picture_only"]) for event in trace["events"]],
        "codes": trace["codes"],
        "images": _pictures(trace, [trace["final_picture"]]),
    }


def _segment(trace: Row, event: Row, picture_only: bool) -> Row:
    is_drawing = event["role"] == "draw"
    return {
        "event": event["index"],
        "role": event["role"],
        "region": event["region"],
        "revision": event["revision"],
        "modality": "image" if is_drawing else "text",
        "is_policy": event["logp_sample"] is not None and (is_drawing or not picture_only),
        "is_kept": event["superseded_by"] is None,
        "prefix_ids": event["prefix_ids"],
        "canvas": _canvas(trace, event),
        "tokens": event["codes"] if is_drawing else event["token_ids"],
        "logp_sample": event["logp_sample"],
        "logp_cond": event["logp_cond"],
    }
