"""Whole conversations with an `<image>` tag for each picture: LLaMA-Factory and ms-swift.

Both learn the assistant's turns alone, by default.
"""

import re
from collections.abc import Sequence

from pipeline.sets.exports.conversations import tagged, text_of
from pipeline.sets.exports.form import (
    IMAGES,
    MESSAGES,
    NAMES,
    Export,
    Reason,
    Rows,
    Source,
    names_of,
    png_cells,
)
from schemas.json_values import JsonObject
from schemas.recipes import SetKind


def _tagged_conversation(source: Source) -> Rows:
    if isinstance(row := text_of(source), Reason):
        return row
    messages = tagged(row["messages"], row["images"])
    return [names_of(row) | {"messages": messages, "images": png_cells(row["images"])}]


def dataset_info(name: str, splits: Sequence[str]) -> JsonObject:
    """LLaMA-Factory's `dataset_info.json`: how it reads the files of each split.

    The names of its sets are given on one line, with commas between them, so ours has none.
    """
    plain = "_".join(re.findall(r"[\w.-]+", name, re.ASCII)) or "coppice"
    return {
        f"{plain}_{split}": {
            "file_name": split,  # a folder
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "images": "images"},
            "tags": {
                "role_tag": "role",
                "content_tag": "content",
                "user_tag": "user",
                "assistant_tag": "assistant",
                "system_tag": "system",
            },
        }
        for split in splits
    }


LLAMA_FACTORY = Export(
    version=2,
    consumer="LLaMA-Factory 0.9.5",
    kinds=frozenset({SetKind.SFT}),
    rows_of=_tagged_conversation,
    columns={**NAMES, "messages": MESSAGES, "images": IMAGES},
)

MS_SWIFT = Export(
    version=2,
    consumer="ms-swift 4.6.0",
    kinds=frozenset({SetKind.SFT}),
    rows_of=_tagged_conversation,
    columns={**NAMES, "messages": MESSAGES, "images": IMAGES},
)
