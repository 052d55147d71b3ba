"""NeMo Curator: interleaved rows, a row for each picture and text of a sample."""

import json

import pyarrow as pa

from pipeline.sets.exports.conversations import text_of
from pipeline.sets.exports.form import (
    NAMES,
    STRING,
    Export,
    Reason,
    Rows,
    Source,
    lineage_of,
    names_of,
    png_of,
)
from schemas.recipes import SetKind


def _parts(source: Source) -> Rows:
    """One part after the other, from position 0 on; what is of the whole stands at -1."""
    if isinstance(row := text_of(source), Reason):
        return row
    *asked, answer = row["messages"]
    question = "\n\n".join(message["content"] for message in asked)
    parts: list[tuple[str, str, str | None, bytes | None]] = [
        ("metadata", "application/json", None, None),
        *(("image", "image/png", None, png_of(image["bytes"])) for image in row["images"]),
        ("text", "text/plain", question, None),
        ("text", "text/plain", answer["content"], None),
    ]
    note = json.dumps(lineage_of(row), sort_keys=True)
    return [
        names_of(row)
        | {
            "sample_id": row["id"],
            "position": position,
            "modality": modality,
            "content_type": content_type,
            "text_content": text,
            "binary_content": body,
            "source_ref": note,
            "materialize_error": None,
        }
        for position, (modality, content_type, text, body) in enumerate(parts, start=-1)
    ]


NEMO_CURATOR = Export(
    version=2,
    consumer="NeMo Curator 1.4.0",
    kinds=frozenset({SetKind.SFT}),
    rows_of=_parts,
    columns={
        **NAMES,
        "sample_id": STRING,
        "position": pa.int32(),
        "modality": STRING,
        "content_type": STRING,
        "text_content": STRING,
        "binary_content": pa.large_binary(),
        "source_ref": STRING,
        "materialize_error": STRING,
    },
)
