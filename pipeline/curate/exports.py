"""Sets in the forms that trainers read: tables of column names over canonical rows.

Each export names its columns and where in a row each comes from; what several trainers want in
another shape than the rows have stands once, in `_DERIVED`. Two writers do the rest.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from schemas.recipes import Kind
from schemas.tables import IMAGE, with_features
from schemas.training import MESSAGE

Row = Mapping[str, Any]

_MESSAGES, _IMAGES = pa.list_(MESSAGE), pa.list_(IMAGE)
_STRING, _IDS = pa.string(), pa.list_(pa.int32())


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """`columns`: the trainer's name, ours (or a derived one), and the type."""

    kind: str  # of the recipes whose rows it takes
    columns: tuple[tuple[str, str, pa.DataType], ...]
    container: Literal["parquet", "tar"] = "parquet"
    is_split: bool = False  # one of our rows becomes several: each value is a list of theirs

    @property
    def schema(self) -> pa.Schema:
        return with_features([pa.field(name, kind) for name, _, kind in self.columns])

    def table(self, rows: Sequence[Row]) -> pa.Table:
        """The trainer's rows."""
        made = []
        for row in rows:
            values = {name: self._value(row, source) for name, source, _ in self.columns}
            if self.is_split:
                rows_of_one = zip(*values.values(), strict=True)
                made += [dict(zip(values, one, strict=True)) for one in rows_of_one]
            else:
                made.append(values)
        return pa.Table.from_pylist(made, schema=self.schema)

    def _value(self, row: Row, source: str) -> Any:
        return _DERIVED[source](row) if source in _DERIVED else row[source]


def _tagged(row: Row) -> list[dict[str, str]]:
    """The messages, with a tag in the first question for each picture, as many loaders want."""
    tags = "<image>" * len(row["images"])
    messages = [dict(message) for message in row["messages"]]
    first = next(message for message in messages if message["role"] == "user")
    first["content"] = f"{tags}{first['content']}"
    return messages


def _parts(row: Row) -> list[tuple[str, Any]]:
    """A sample as NeMo Curator has it: one part after the other."""
    *asked, answer = row["messages"]
    question = "\n\n".join(message["content"] for message in asked)
    pictures = [("image", image) for image in row["images"]]
    return [("metadata", None), *pictures, ("text", question), ("text", answer["content"])]


def _part_column(name: str) -> Callable[[Row], list[Any]]:
    def column(row: Row) -> list[Any]:
        parts = _parts(row)
        types = {"metadata": "application/json", "text": "text/plain", "image": "image/webp"}
        return {
            "sample_id": [row["id"]] * len(parts),
            "position": [index - 1 for index in range(len(parts))],  # -1: of the whole sample
            "modality": [modality for modality, _ in parts],
            "content_type": [types[modality] for modality, _ in parts],
            "text_content": [value if modality == "text" else None for modality, value in parts],
            "binary_content": [
                value["bytes"] if modality == "image" else None for modality, value in parts
            ],
            "source_ref": [_note(row)] * len(parts),
            "materialize_error": [None] * len(parts),
        }[name]

    return column


def _note(row: Row) -> str:
    names = ("id", "task", "run_id", "trace_id", "event", "record_id", "recipe")
    return json.dumps({name: row[name] for name in names}, sort_keys=True)


def _segment_column(name: str) -> Callable[[Row], list[Any]]:
    """Of each segment that is to be learned: a context of its own, since every one of them begins
    anew. Of a drawing the response is codes, and so is its canvas, in `extra_fields`.
    """

    def value(row: Row, segment: Row) -> Any:
        told = ("role", "region", "revision", "event", "modality", "is_kept", "canvas", "logp_cond")
        return {
            "uid": row["group_id"],
            "prompt_ids": segment["prefix_ids"],
            "response_ids": segment["tokens"],
            "response_mask": [1] * len(segment["tokens"]),
            "response_logprobs": segment["logp_sample"],
            "reward_score": row["reward"],
            "num_turns": 1,
            "extra_fields": json.dumps(
                {name: segment[name] for name in told} | json.loads(_note(row)), sort_keys=True
            ),
        }[name]

    return lambda row: [value(row, one) for one in row["segments"] if one["is_policy"]]


def _said(side: str) -> Callable[[Row], list[dict[str, str]]]:
    return lambda row: [{"role": "assistant", "content": row[side]["thoughts"]}]


_SEGMENT_TYPES = {
    "uid": _STRING,
    "prompt_ids": _IDS,
    "response_ids": _IDS,
    "response_mask": _IDS,
    "response_logprobs": pa.list_(pa.float32()),
    "reward_score": pa.float32(),
    "num_turns": pa.int32(),
    "extra_fields": _STRING,
}

_DERIVED: Mapping[str, Callable[[Row], Any]] = {
    "tagged": _tagged,
    "tagged_question": lambda row: _tagged(row)[:-1],
    "data_source": lambda row: f"coppice/{row['task']}",
    "ability": lambda row: row["task"].partition("_")[0],
    "reward_model": lambda row: {
        "style": "rule",
        "ground_truth": row["messages"][-1]["content"],
    },
    "extra_info": lambda row: {"index": row["id"], "note": _note(row)},
    "prompt_message": lambda row: [{"role": "user", "content": row["prompt"]}],
    "chosen_said": _said("chosen"),
    "rejected_said": _said("rejected"),
    "json": lambda row: json.dumps(
        {"messages": list(row["messages"]), **json.loads(_note(row))}, sort_keys=True
    ),
    **{
        f"part.{name}": _part_column(name)
        for name in (
            *("sample_id", "position", "modality", "content_type", "text_content"),
            *("binary_content", "source_ref", "materialize_error"),
        )
    },
    **{f"segment.{name}": _segment_column(name) for name in _SEGMENT_TYPES},
}

_CURATOR_TYPES = {"position": pa.int32(), "binary_content": pa.large_binary()}

EXPORTS: Mapping[str, Export] = {
    "trl": Export(
        kind=Kind.SFT, columns=(("messages", "messages", _MESSAGES), ("images", "images", _IMAGES))
    ),
    "llama-factory": Export(
        kind=Kind.SFT, columns=(("messages", "tagged", _MESSAGES), ("images", "images", _IMAGES))
    ),
    "ms-swift": Export(
        kind=Kind.SFT, columns=(("messages", "tagged", _MESSAGES), ("images", "images", _IMAGES))
    ),
    "verl": Export(
        kind=Kind.SFT,
        columns=(
            ("data_source", "data_source", _STRING),
            ("prompt", "tagged_question", _MESSAGES),
            ("images", "images", _IMAGES),
            ("ability", "ability", _STRING),
            (
                "reward_model",
                "reward_model",
                pa.struct([("style", _STRING), ("ground_truth", _STRING)]),
            ),
            ("extra_info", "extra_info", pa.struct([("index", _STRING), ("note", _STRING)])),
        ),
    ),
    "webdataset": Export(
        kind=Kind.SFT,
        container="tar",
        columns=(
            ("__key__", "id", _STRING),
            ("json", "json", _STRING),
            ("webp", "images", _IMAGES),
        ),
    ),
    "nemo-curator": Export(
        kind=Kind.SFT,
        is_split=True,
        columns=tuple(
            (name.partition(".")[2], name, _CURATOR_TYPES.get(name.partition(".")[2], _STRING))
            for name in _DERIVED
            if name.startswith("part.")
        ),
    ),
    "verl-grpo": Export(
        kind=Kind.GRPO,
        is_split=True,
        columns=tuple((name, f"segment.{name}", kind) for name, kind in _SEGMENT_TYPES.items()),
    ),
    "trl-dpo": Export(
        kind=Kind.PREFERENCE,
        columns=(
            ("prompt", "prompt_message", _MESSAGES),
            ("chosen", "chosen_said", _MESSAGES),
            ("rejected", "rejected_said", _MESSAGES),
        ),
    ),
}
"""By name. Text rows of SFT sets; of preferences the pairs whose thoughts differ; of groups what is
to be learned."""


def takes(export: Export, row: Row) -> bool:
    """Whether this form has a place for a row: drawings are tokens, which no trainer here reads."""
    if export.kind == Kind.PREFERENCE:
        return bool(row["chosen"]["thoughts"] != row["rejected"]["thoughts"])
    return export.kind == Kind.GRPO or "messages" in row
