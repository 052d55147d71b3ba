"""`imagefolder`: pictures as PNG files beside JSON, for whoever encodes them on their own.

`metadata.jsonl` has every drawing, with the canvas after it and where its region lies; a folder of
it is what `datasets` calls an image folder. Of whole pictures the scripts of others find theirs:
ShareGPT-4o-Image (commit 19ac7d7) and align-anything (3f9decc) in `t2i.json`, mindone (0bfbd36) in
`t2i.csv`.
"""

from math import isqrt

import pyarrow as pa

from pipeline.sets.exports.form import (
    INT,
    NAMES,
    STRING,
    Export,
    Reason,
    Rows,
    Source,
    is_drawing,
    names_of,
    png_of,
)
from schemas.recipes import SetKind


def _pictures(source: Source) -> Rows:
    row = source.row
    if not is_drawing(row):
        return Reason.WORDS
    facts = source.trace
    if (canvas := facts.canvas_after(row["event"])) is None:
        return Reason.NO_PICTURE
    png = png_of(canvas["bytes"])
    start = sum(mask for mask in row["modality_mask"]) - _num_learned(row["labels"])
    stop = start + _num_learned(row["labels"])
    num_tokens = facts.region_stops[-1]
    grid, size = isqrt(num_tokens), _height(png)
    file_name = f"images/{row['id']}.png"
    return [
        names_of(row)
        | {
            "file_name": file_name,
            "prompt": row["prompt"],
            "thoughts": row["text"],
            "region": sum(end <= start for end in facts.region_stops) + 1,
            "top": start // grid * size // grid,
            "bottom": -(-stop // grid) * size // grid,
            "is_whole": stop == num_tokens,
            "input_prompt": row["text"],
            "output_image": file_name,
            "png": png,
        }
    ]


def _num_learned(labels: list[int]) -> int:
    return sum(label >= 0 for label in labels)


def _height(png: bytes) -> int:
    """In pixels, as the header says."""
    return int.from_bytes(png[20:24], "big")


IMAGEFOLDER = Export(
    version=1,
    consumer="datasets 5.2.0",
    kinds=frozenset({SetKind.SFT}),
    rows_of=_pictures,
    columns={
        **NAMES,
        "file_name": STRING,  # below the folder of the metadata
        "prompt": STRING,
        "thoughts": STRING,  # the text that it was drawn from
        "region": INT,  # from 1
        "top": INT,  # of the region, in pixels
        "bottom": INT,
        "is_whole": pa.bool_(),  # nothing of the picture is left to be drawn
        "input_prompt": STRING,  # the same for scripts that call it otherwise
        "output_image": STRING,
        "png": pa.binary(),
    },
    container="folder",
    shows_traces=frozenset({SetKind.SFT}),
)
