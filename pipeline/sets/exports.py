"""Sets in the forms that trainers read: tables of column names over canonical rows.

Each export names its columns and where in a row each comes from; what several trainers want in
another shape than the rows have stands once, in `_DERIVED`. Two writers do the rest.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from schemas.errors import InputError
from schemas.recipes import SetKind
from schemas.tables import IMAGE, with_features
from schemas.training import MESSAGE

Row = Mapping[str, Any]

_MESSAGES, _IMAGES = pa.list_(MESSAGE), pa.list_(IMAGE)
_STRING, _IDS = pa.string(), pa.list_(pa.int32())


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """`columns`: the trainer's name, ours (or a derived one), and the type."""

    kind: SetKind  # of the recipes whose rows it takes
    columns: tuple[tuple[str, str, pa.DataType], ...]
    container: Literal["parquet", "tar"] = "parquet"
    split: Callable[[Row], Sequence[Row]] = lambda row: [row]  # one of ours into theirs

    @property
    def schema(self) -> pa.Schema:
        return with_features([pa.field(name, kind) for name, _, kind in self.columns])

    def table(self, rows: Sequence[Row]) -> pa.Table:
        """The trainer's rows."""
        made = [
            {name: self._value(one, source) for name, source, _ in self.columns}
            for row in rows
            for one in self.split(row)
        ]
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


def _parts(row: Row) -> list[Row]:
    """A sample as NeMo Curator has it: one part after the other, and what is of the whole first."""
    *asked, answer = row["messages"]
    question = "\n\n".join(message["content"] for message in asked)
    pictures = [("image", "image/webp", None, image["bytes"]) for image in row["images"]]
    parts = [
        ("metadata", "application/json", None, None),
        *pictures,
        ("text", "text/plain", question, None),
        ("text", "text/plain", answer["content"], None),
    ]
    note = _note(row)
    return [
        {
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


def _note(row: Row) -> str:
    names = ("id", "task", "run_id", "trace_id", "event", "record_id", "recipe")
    return json.dumps({name: row[name] for name in names}, sort_keys=True)


def _segments(row: Row) -> list[Row]:
    """What is to be learned of a rollout, each in a context of its own, since every one of them
    begins anew. Of a drawing the response is codes, and so is its canvas, in `extra_fields`.
    """
    told = ("role", "region", "revision", "event", "modality", "is_kept", "canvas", "logp_cond")
    note = json.loads(_note(row))
    return [
        {
            "uid": row["group_id"],
            "prompt_ids": one["prefix_ids"],
            "response_ids": one["tokens"],
            "response_mask": [1] * len(one["tokens"]),
            "response_logprobs": one["logp_sample"],
            "reward_score": row["reward"],
            "num_turns": 1,
            "extra_fields": json.dumps(note | {name: one[name] for name in told}, sort_keys=True),
        }
        for one in row["segments"]
        if one["is_policy"]
    ]


def _said(side: str) -> Callable[[Row], list[dict[str, str]]]:
    return lambda row: [{"role": "assistant", "content": row[side]["thoughts"]}]


_PART_TYPES = {
    "sample_id": _STRING,
    "position": pa.int32(),
    "modality": _STRING,
    "content_type": _STRING,
    "text_content": _STRING,
    "binary_content": pa.large_binary(),
    "source_ref": _STRING,
    "materialize_error": _STRING,
}
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
}

EXPORTS: Mapping[str, Export] = {
    "trl": Export(
        kind=SetKind.SFT,
        columns=(("messages", "messages", _MESSAGES), ("images", "images", _IMAGES)),
    ),
    "llama-factory": Export(
        kind=SetKind.SFT, columns=(("messages", "tagged", _MESSAGES), ("images", "images", _IMAGES))
    ),
    "ms-swift": Export(
        kind=SetKind.SFT, columns=(("messages", "tagged", _MESSAGES), ("images", "images", _IMAGES))
    ),
    "verl": Export(
        kind=SetKind.SFT,
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
        kind=SetKind.SFT,
        container="tar",
        columns=(
            ("__key__", "id", _STRING),
            ("json", "json", _STRING),
            ("webp", "images", _IMAGES),
        ),
    ),
    "nemo-curator": Export(
        kind=SetKind.SFT,
        split=_parts,
        columns=tuple((name, name, kind) for name, kind in _PART_TYPES.items()),
    ),
    "verl-grpo": Export(
        kind=SetKind.GRPO,
        split=_segments,
        columns=tuple((name, name, kind) for name, kind in _SEGMENT_TYPES.items()),
    ),
    "trl-dpo": Export(
        kind=SetKind.PREFERENCE,
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
    if export.kind == SetKind.PREFERENCE:
        return bool(row["chosen"]["thoughts"] != row["rejected"]["thoughts"])
    return export.kind == SetKind.GRPO or "messages" in row


def check_exports(names: Sequence[str]) -> None:
    """Raises InputError for a name that is none of `EXPORTS`."""
    if unknown := [name for name in names if name not in EXPORTS]:
        raise InputError(f"there is no export {unknown[0]!r}; known: {', '.join(EXPORTS)}")
