"""verl: conversations for its SFT trainer and prompts for its RL trainers; and finished rollouts,
a row a segment, named as its `AgentLoopOutput` names them.
"""

import json

import pyarrow as pa

from pipeline.sets.exports.advantages import advantage_of, token_weight
from pipeline.sets.exports.conversations import tagged, text_of
from pipeline.sets.exports.form import (
    FLOAT,
    IDS,
    IMAGES,
    INT,
    LOGPS,
    MESSAGES,
    NAMES,
    STRING,
    Export,
    ExportRow,
    Reason,
    Rows,
    Source,
    is_group,
    lineage_of,
    names_of,
    png_cells,
    policy_segments,
)
from pipeline.sets.exports.segments import lacks_pictures, pictures_seen, segment_name
from schemas.recipes import SetKind
from schemas.rows import GroupRow, SegmentRow

_CONSUMER = "verl 0.9.1"
_EXTRA = {
    **{"id": STRING, "task": STRING, "run_id": STRING, "trace_id": STRING, "record_id": STRING},
    **{"recipe": STRING, "role": STRING, "region": INT, "revision": INT, "event": INT},
    **{"modality": STRING, "is_kept": pa.bool_(), "num_canvas": INT, "weight": FLOAT},
}


def _conversation(source: Source) -> Rows:
    if isinstance(row := text_of(source), Reason):
        return row
    messages = tagged(row["messages"], row["images"])
    note = json.dumps(lineage_of(row), sort_keys=True)
    return [
        names_of(row)
        | {
            "messages": messages,
            "data_source": f"coppice/{row['task']}",
            "prompt": messages[:-1],
            "images": png_cells(row["images"]),
            "ability": row["task"].partition("_")[0],
            "reward_model": {"style": "rule", "ground_truth": row["messages"][-1]["content"]},
            "extra_info": {"index": row["id"], "note": note},
        }
    ]


def _segments(source: Source) -> Rows:
    """What is to be learned of a rollout, each in a context of its own, since every one of them
    begins anew. verl takes the statistics of a group over its sessions, and of a session the last
    output alone: with both named, a rollout that was revised counts once, as any other.
    """
    row = source.row
    if not is_group(row):
        return Reason.WORDS
    if isinstance(segments := policy_segments(row), Reason):
        return segments
    if lacks_pictures(source, row, segments):
        return Reason.NO_PICTURE
    weight = token_weight(segments)
    return [
        _segment_row(source, row, segment, index, weight) for index, segment in enumerate(segments)
    ]


def _segment_row(
    source: Source, row: GroupRow, segment: SegmentRow, index: int, weight: float
) -> ExportRow:
    """A drawing goes on from its canvas, which stands in the response and is not learned."""
    canvas, tokens = segment["canvas"], segment["tokens"] or []
    canvas = canvas if segment["modality"] == "image" else []
    return names_of(row) | {
        "id": segment_name(row, segment),
        "uid": row["group_id"].replace("_", "-"),  # verl joins names by low lines
        "session_id": row["rollout_index"],
        "index": index,
        "prompt_ids": segment["prefix_ids"],
        "response_ids": canvas + tokens,
        "response_mask": [0] * len(canvas) + [1] * len(tokens),
        "response_logprobs": [0.0] * len(canvas) + (segment["logp_sample"] or []),
        "reward_score": row["reward"],
        "advantage": advantage_of("verl", source),
        "num_turns": 2,
        "metrics": {"generate_sequences": 0.0},
        "extra_fields": {
            **{name: value for name, value in lineage_of(row).items() if name in _EXTRA},
            "role": segment["role"],
            "region": segment["region"],
            "revision": segment["revision"],
            "event": segment["event"],
            "modality": segment["modality"],
            "is_kept": segment["is_kept"],
            "num_canvas": len(canvas),
            "weight": weight,
        },
        "images": png_cells(pictures_seen(source.trace, row, segment)),
    }


VERL = Export(
    version=2,
    consumer=_CONSUMER,
    kinds=frozenset({SetKind.SFT}),
    rows_of=_conversation,
    columns={
        **NAMES,
        "messages": MESSAGES,
        "data_source": STRING,
        "prompt": MESSAGES,
        "images": IMAGES,
        "ability": STRING,
        "reward_model": pa.struct([("style", STRING), ("ground_truth", STRING)]),
        "extra_info": pa.struct([("index", STRING), ("note", STRING)]),
    },
)

# verl has no loader of finished rollouts and no image head: to be read by code of one's own.
VERL_GRPO = Export(
    version=2,
    consumer=_CONSUMER,
    kinds=frozenset({SetKind.GRPO}),
    rows_of=_segments,
    columns={
        **NAMES,
        "uid": STRING,
        "session_id": INT,
        "index": INT,
        "prompt_ids": IDS,
        "response_ids": IDS,
        "response_mask": IDS,
        "response_logprobs": LOGPS,
        "reward_score": FLOAT,
        "advantage": FLOAT,
        "num_turns": INT,
        "metrics": pa.struct([("generate_sequences", FLOAT)]),
        "extra_fields": pa.struct(list(_EXTRA.items())),
        "images": IMAGES,
    },
    shows_traces=frozenset({SetKind.GRPO}),
)
