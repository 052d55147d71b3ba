"""`grpo`: finished rollouts, a row a segment, each with all that replay and a loss need.

No trainer's form, and every trainer's facts: what the segment saw (the canvas as a picture and as
codes), what it answered, both log-probabilities, how it was sampled, and its rollout's advantage.
"""

from collections.abc import Sequence

import pyarrow as pa

from pipeline.sets.exports.advantages import ADVANTAGES, advantage_of, token_weight
from pipeline.sets.exports.form import (
    FLOAT,
    IDS,
    IMAGES,
    INT,
    LOGPS,
    NAMES,
    STRING,
    Export,
    Reason,
    Rows,
    Source,
    TraceFacts,
    is_group,
    names_of,
    png_cells,
    policy_segments,
)
from schemas.recipes import SetKind
from schemas.rows import GroupRow, ImageCell, SegmentRow


def segment_name(row: GroupRow, segment: SegmentRow) -> str:
    """As rows of events are named."""
    return f"{row['trace_id']}-{segment['event']}"


def pictures_seen(facts: TraceFacts, row: GroupRow, segment: SegmentRow) -> list[ImageCell]:
    """The canvas that a segment of words looked at, which is the one after the latest drawing."""
    if segment["modality"] != "text" or not segment["canvas"]:
        return []
    drawings = [
        earlier["event"]
        for earlier in row["segments"]
        if earlier["modality"] == "image" and earlier["event"] < segment["event"]
    ]
    canvas = facts.canvas_after(max(drawings, default=None))
    return [] if canvas is None else [canvas]


def lacks_pictures(source: Source, row: GroupRow, segments: Sequence[SegmentRow]) -> bool:
    """Whether any of these segments looked at a canvas of which the run kept no picture."""
    return any(
        segment["modality"] == "text"
        and segment["canvas"]
        and not pictures_seen(source.trace, row, segment)
        for segment in segments
    )


def _segments(source: Source) -> Rows:
    row = source.row
    if not is_group(row):
        return Reason.WORDS
    if isinstance(segments := policy_segments(row), Reason):
        return segments
    facts, weight = source.trace, token_weight(segments)
    of_rollout = {
        "group_id": row["group_id"],
        "group_size": row["group_size"],
        "rollout_index": row["rollout_index"],
        "reward": row["reward"],
        "reward_mean": facts.reward_mean,
        "reward_std": facts.reward_std,
        **{
            f"advantage_{name}": advantage_of(name, source)
            for name in ADVANTAGES
            if name != "coppice"
        },
        "advantage": row["advantage"],
        "advantage_ddof": ADVANTAGES["coppice"].ddof,
        "advantage_eps": ADVANTAGES["coppice"].eps,
        "weight": weight,
    }
    return [
        names_of(row)
        | of_rollout
        | {
            "id": segment_name(row, segment),
            "event": segment["event"],
            "role": segment["role"],
            "region": segment["region"],
            "revision": segment["revision"],
            "modality": segment["modality"],
            "is_kept": segment["is_kept"],
            "prompt_ids": segment["prefix_ids"],
            "canvas": segment["canvas"],
            "images": png_cells(pictures_seen(facts, row, segment)),
            "tokens": segment["tokens"],
            "logp_sample": segment["logp_sample"],
            "logp_cond": segment["logp_cond"],
            "cfg_weight": facts.cfg_weight if segment["modality"] == "image" else None,
            "temperature": (
                facts.image_temperature
                if segment["modality"] == "image"
                else facts.text_temperature
            ),
        }
        for segment in segments
    ]


GRPO = Export(
    version=1,
    consumer="no trainer's own; read by datasets 5.2.0",
    kinds=frozenset({SetKind.GRPO}),
    rows_of=_segments,
    columns={
        **NAMES,
        "group_id": STRING,
        "group_size": INT,
        "rollout_index": INT,
        "reward": FLOAT,
        "reward_mean": FLOAT,
        "reward_std": FLOAT,
        "advantage": FLOAT,
        "advantage_ddof": INT,
        "advantage_eps": FLOAT,
        **{f"advantage_{name}": FLOAT for name in ADVANTAGES if name != "coppice"},
        "weight": FLOAT,
        "event": INT,
        "role": STRING,
        "region": INT,
        "revision": INT,
        "modality": STRING,
        "is_kept": pa.bool_(),
        "prompt_ids": IDS,
        "canvas": IDS,
        "images": IMAGES,
        "tokens": IDS,
        "logp_sample": LOGPS,
        "logp_cond": LOGPS,
        "cfg_weight": FLOAT,
        "temperature": FLOAT,
    },
    shows_traces=frozenset({SetKind.GRPO}),
)
