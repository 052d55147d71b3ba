"""VeOmni's SeedOmni V2 (branch `omniv2`, commit 5ff919a): conversations whose pictures it encodes.

A picture of a human is looked at, one of the model is learned, all of it: so drawings are learned
as whole pictures alone. `source_name` picks the preprocessor that reads the row. VeOmni pins
datasets 2.21, which reads the columns only without notes for later versions in the file.
"""

import pyarrow as pa

from pipeline.sets.exports.conversations import without_tags
from pipeline.sets.exports.form import (
    NAMES,
    STRING,
    Export,
    Reason,
    Rows,
    Source,
    is_drawing,
    is_text,
    names_of,
    png_of,
)
from schemas.recipes import SetKind
from schemas.rows import DrawRow, TextRow

_LOOKS = "sharegpt4v_sft"  # a picture of the human, then text
_DRAWS = "seed_edit_p23_multi_turn"  # text of the human, then a picture of the model
_SPEAKERS = {"user": "human", "assistant": "gpt"}


def _conversations(source: Source) -> Rows:
    row = source.row
    if is_text(row):
        return _words(row)
    if is_drawing(row):
        return _drawing(row, source)
    return Reason.OTHER_PROMPT


def _words(row: TextRow) -> Rows:
    """The system text is left to VeOmni, whose template adds Janus's to every human's picture."""
    turns = [
        {"from": _SPEAKERS[message["role"]], "value": without_tags(message["content"])}
        for message in row["messages"]
        if message["role"] in _SPEAKERS
    ]
    turns[0]["value"] = "<image>" * len(row["images"]) + turns[0]["value"]
    return [
        names_of(row)
        | {
            "source_name": _LOOKS,
            "conversations": turns,
            "images": [png_of(image["bytes"]) for image in row["images"]],
        }
    ]


def _drawing(row: DrawRow, source: Source) -> Rows:
    facts = source.trace
    if sum(row["modality_mask"]) != facts.region_stops[-1]:
        return Reason.NOT_WHOLE
    if (canvas := facts.canvas_after(row["event"])) is None:
        return Reason.NO_PICTURE
    return [
        names_of(row)
        | {
            "source_name": _DRAWS,
            "conversations": [
                {"from": "human", "value": without_tags(row["text"])},
                {"from": "gpt", "value": "<image>"},
            ],
            "images": [png_of(canvas["bytes"])],
        }
    ]


VEOMNI = Export(
    version=1,
    consumer="VeOmni omniv2 5ff919a by its schema; datasets 2.21.0",
    kinds=frozenset({SetKind.SFT}),
    rows_of=_conversations,
    columns={
        **NAMES,
        "source_name": STRING,
        "conversations": pa.list_(pa.struct([("from", STRING), ("value", STRING)])),
        "images": pa.list_(pa.binary()),
    },
    shows_traces=frozenset({SetKind.SFT}),
    has_features=False,
)
