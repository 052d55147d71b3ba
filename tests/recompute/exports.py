"""Exports hold what the rows of a set hold: the same words, tokens and pictures, row by row in
order, whatever a trainer calls them.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from tests.recompute.reading import Row

Picture: TypeAlias = tuple[tuple[int, ...], bytes]
"""Shape and pixels: a picture may be written in another form."""

OF_TEXT = ("trl", "trl-messages", "llama-factory", "ms-swift", "verl", "webdataset", "nemo-curator")
OF_GROUPS = ("verl-grpo",)


@dataclass
class Content:
    """All that an exported sample holds."""

    words: list[str] = field(default_factory=list)
    tokens: list[list[int]] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)

    def add(self, value: Any) -> None:
        """Take in a cell, whatever is in it."""
        if isinstance(value, str):
            self.words.append(value)
        elif isinstance(value, bytes):
            pixels = np.asarray(Image.open(io.BytesIO(value)).convert("RGB"))
            self.pictures.append((pixels.shape, pixels.tobytes()))
        elif isinstance(value, dict):
            for cell in value.values():
                self.add(cell)
        elif isinstance(value, list) and value and isinstance(value[0], int):
            self.tokens.append(value)
        elif isinstance(value, list):
            for cell in value:
                self.add(cell)


def wrong_exports(
    made: Path, manifest: Row, rows: dict[str, list[Row]], exports: Sequence[str]
) -> Iterator[str]:
    """What of these exports does not follow from the rows of the set, a line each; of those that
    are known here. The rows are in order within their streams.
    """
    for name in sorted({*OF_TEXT, *OF_GROUPS}.intersection(exports)):
        for split in ("train", "validation"):
            wanted = list(_wanted(name, split, rows))
            if (
                name == "webdataset"
            ):  # samples with pictures have tars of their own, which are first
                wanted.sort(key=lambda sample: not sample.pictures)
            folder = f"exports/{name}/{split}/"
            streams = [of for key, of in sorted(manifest["files"].items()) if folder in key]
            files = [made / file for stream in streams for file in stream["files"]]
            contents = [content for file in files for content in _contents(file)]
            if len(contents) != len(wanted):
                yield f"{name} {split}: {len(contents)} samples, and {len(wanted)} follow"
                continue
            for content, expected in zip(contents, wanted, strict=True):
                yield from _lacks(f"{name} {split}", content, expected)


def _contents(file: Path) -> Iterator[Content]:
    """What each sample of a file holds; in some forms a sample has several rows or members."""
    cells: list[tuple[str, Any]]
    if file.suffix == ".tar":
        cells = list(_members(file))
    else:
        table = pq.read_table(file).to_pylist()
        cells = [(row.get("sample_id") or str(index), row) for index, row in enumerate(table)]
    for _, of_sample in groupby(cells, key=lambda cell: cell[0]):
        content = Content()
        for _, cell in of_sample:
            content.add(cell)
        yield content


def _members(file: Path) -> Iterator[tuple[str, Any]]:
    with tarfile.open(file) as tar:
        for member in tar:
            opened = tar.extractfile(member)
            assert opened is not None
            body = opened.read()
            is_note = member.name.endswith(".json")
            yield member.name.partition(".")[0], json.loads(body) if is_note else body


def _wanted(name: str, split: str, rows: dict[str, list[Row]]) -> Iterator[Content]:
    """What is to be in the samples of an export, at least."""
    of_split = [row for key, of in rows.items() if key.endswith(f"/{split}") for row in of]
    for row in sorted(of_split, key=lambda row: row["order"]):
        if name in OF_TEXT and "answer" in row:
            wanted = Content(words=[row["answer"], row["prompt"]])
            wanted.add([image["bytes"] for image in row["images"]])
            yield wanted
        elif name in OF_GROUPS:
            policy = (segment for segment in row["segments"] if segment["is_policy"])
            for segment in policy:
                yield Content(tokens=[segment["tokens"], segment["prefix_ids"]])


def _lacks(of: str, content: Content, wanted: Content) -> Iterator[str]:
    """Of tokens the end may be what is wanted: a canvas may stand before them."""
    said = "\n".join(content.words)
    yield from (
        f"{of}: a sample lacks {words!r:.80}" for words in wanted.words if words not in said
    )
    for tokens in wanted.tokens:
        if not any(held[-len(tokens) :] == tokens for held in content.tokens):
            yield f"{of}: a sample lacks the tokens {tokens!r:.80}"
    if wanted.words and content.pictures != wanted.pictures:
        yield f"{of}: {len(content.pictures)} images, or others than the {len(wanted.pictures)}"
