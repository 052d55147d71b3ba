"""`janus-dpo`: pairs of drawings, token for token, with the same text and canvas before both."""

from pipeline.sets.exports.form import (
    FLOAT,
    IDS,
    NAMES,
    STRING,
    Export,
    Reason,
    Rows,
    Source,
    is_pair,
    names_of,
)
from schemas.recipes import SetKind


def _preferred_drawing(source: Source) -> Rows:
    row, pair = source.row, source.trace.drawings
    if not is_pair(row) or pair is None or not pair.has_one_prompt:
        return Reason.OTHER_PROMPT
    if pair.chosen == pair.rejected:
        return Reason.SAME_ANSWER
    return [
        names_of(row)
        | {
            "prompt": row["prompt"],
            "prompt_ids": pair.prompt_ids,
            "canvas": pair.canvas,
            "chosen": pair.chosen,
            "rejected": pair.rejected,
            "margin": row["margin"],
            "cfg_weight": source.trace.cfg_weight,
            "temperature": source.trace.image_temperature,
        }
    ]


JANUS_DPO = Export(
    version=1,
    consumer="no trainer's own; read by datasets 5.2.0",
    kinds=frozenset({SetKind.PREFERENCE}),
    rows_of=_preferred_drawing,
    columns={
        **NAMES,
        "prompt": STRING,
        "prompt_ids": IDS,  # text before both
        "canvas": IDS,  # codes before both
        "chosen": IDS,  # codes
        "rejected": IDS,
        "margin": FLOAT,
        "cfg_weight": FLOAT,
        "temperature": FLOAT,
    },
    shows_traces=frozenset({SetKind.PREFERENCE}),
)
