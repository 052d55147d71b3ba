"""UniRL: drawings as a JSONL manifest that its `SupervisedDataSource` reads, token for token.

`examples/unirl_janus.py` makes its tracks of the metadata: the canvas stands before the region and
is not learned. A batch of UniRL's has one weight of guidance, so each weight has a folder of its
own; its SFT loss knows no temperature but 1.
"""

import pyarrow as pa

from pipeline.sets.exports.advantages import ADVANTAGES, advantage_of, token_weight
from pipeline.sets.exports.form import (
    FLOAT,
    IDS,
    INT,
    LOGPS,
    NAMES,
    STRING,
    Export,
    ExportCell,
    ExportRow,
    Reason,
    Rows,
    Source,
    is_drawing,
    is_group,
    names_of,
    policy_segments,
)
from pipeline.sets.exports.segments import segment_name
from schemas.recipes import SetKind
from schemas.training import IGNORED

_METADATA: dict[str, pa.DataType] = {
    **NAMES,
    "text": STRING,  # that it was drawn from
    "prompt_ids": IDS,
    "tokens": IDS,  # the canvas, then the region
    "loss_mask": IDS,  # 0 on the canvas
    "log_probs": LOGPS,  # as it was sampled, 0 on the canvas; null in sets for SFT
    "cfg_weight": FLOAT,
    "temperature": FLOAT,
    "advantage": FLOAT,
    "advantage_ddof": INT,
    "advantage_eps": FLOAT,
    "weight": FLOAT,
    "reward": FLOAT,
    "group_id": STRING,
    "rollout_index": INT,
    "event": INT,
}


def _samples(source: Source) -> Rows:
    row = source.row
    if is_group(row):
        return _policy_drawings(source)
    if not is_drawing(row):
        return Reason.WORDS
    if row["temperature"] != 1.0:
        return Reason.TEMPERATURE
    num_text = row["modality_mask"].index(1)
    labels = row["labels"][num_text:]
    return [
        _sample(
            row["id"],
            row["prompt"],
            {
                **names_of(row),
                "text": row["text"],
                "prompt_ids": row["input_ids"][:num_text],
                "tokens": row["input_ids"][num_text:],
                "loss_mask": [int(label != IGNORED) for label in labels],
                "cfg_weight": row["cfg_weight"],
                "temperature": row["temperature"],
                "event": row["event"],
            },
        )
    ]


def _policy_drawings(source: Source) -> Rows:
    row, facts = source.row, source.facts
    assert is_group(row)
    if facts is None:
        return Reason.NOT_SAMPLED
    if isinstance(segments := policy_segments(row), Reason):
        return segments
    drawings = [segment for segment in segments if segment["modality"] == "image"]
    form, weight = ADVANTAGES["unirl"], token_weight(drawings)
    return [
        _sample(
            name := segment_name(row, segment),
            row["prompt"],
            {
                **names_of(row),
                "id": name,
                "prompt_ids": segment["prefix_ids"],
                "tokens": segment["canvas"] + (segment["tokens"] or []),
                "loss_mask": [0] * len(segment["canvas"]) + [1] * len(segment["tokens"] or ()),
                "log_probs": [0.0] * len(segment["canvas"]) + (segment["logp_sample"] or []),
                "cfg_weight": facts.cfg_weight,
                "temperature": facts.image_temperature,
                "advantage": advantage_of("unirl", source),
                "advantage_ddof": form.ddof,
                "advantage_eps": form.eps,
                "weight": weight,
                "reward": row["reward"],
                "group_id": row["group_id"],
                "rollout_index": row["rollout_index"],
                "event": segment["event"],
            },
        )
        for segment in drawings
    ]


def _sample(name: str, prompt: str, metadata: dict[str, ExportCell]) -> ExportRow:
    return {
        "sample_id": name,
        "prompt": prompt,
        "metadata": metadata,
        "cfg_weight": metadata["cfg_weight"],
    }


def _by_guidance(row: ExportRow) -> str:
    weight = row["cfg_weight"]
    assert isinstance(weight, float)
    return f"cfg-{weight:g}"


UNIRL = Export(
    version=1,
    consumer="UniRL 0.2.0",
    kinds=frozenset({SetKind.SFT, SetKind.GRPO}),
    rows_of=_samples,
    columns={
        "sample_id": STRING,
        "prompt": STRING,
        "metadata": pa.struct(list(_METADATA.items())),
    },
    container="jsonl",
    folder_of=_by_guidance,
    shows_traces=frozenset({SetKind.GRPO}),
)
