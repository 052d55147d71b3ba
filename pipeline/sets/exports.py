"""Sets in the forms that trainers read.

An export says which canonical rows it takes, what one of them becomes, and under which columns.
Each names the reader that it is for and the version whose source it was written after; what a test
loads with the reader itself is said so. Drawings are tokens, which none of these readers learns
from: they have no place here, but for the segments of groups.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeGuard, TypeVar

import pyarrow as pa

from schemas.errors import InputError
from schemas.recipes import SetKind
from schemas.rows import (
    GroupRow,
    ImageCell,
    LineageRow,
    Message,
    PreferenceRow,
    PreferenceSide,
    TextRow,
    TrainingRow,
)
from schemas.tables import IMAGE, with_features
from schemas.training import MESSAGE

ExportCell: TypeAlias = (
    str
    | int
    | float
    | bytes
    | Sequence[int]
    | Sequence[float]
    | Sequence[Message]
    | Sequence[ImageCell]
    | Mapping[str, str]
    | None
)
ExportRow: TypeAlias = dict[str, ExportCell]
"""A row as a trainer reads it, by the names of its columns."""

RowT = TypeVar("RowT", TextRow, PreferenceRow, GroupRow)

_MESSAGES, _IMAGES = pa.list_(MESSAGE), pa.list_(IMAGE)
_STRING, _IDS = pa.string(), pa.list_(pa.int32())


@dataclass(frozen=True, kw_only=True, slots=True)
class Export(Generic[RowT]):
    """A form of a set. `columns` are the reader's, in order, with their types."""

    takes: Callable[[TrainingRow], TypeGuard[RowT]]
    rows_of: Callable[[RowT], Sequence[ExportRow]]  # one of ours as theirs
    columns: Mapping[str, pa.DataType]
    container: Literal["parquet", "tar"] = "parquet"

    @property
    def schema(self) -> pa.Schema:
        return with_features([pa.field(name, kind) for name, kind in self.columns.items()])

    def table(self, rows: Iterable[TrainingRow]) -> pa.Table:
        """The reader's rows of those that this form takes, in order."""
        export_rows = [
            export_row for row in rows if self.takes(row) for export_row in self.rows_of(row)
        ]
        return pa.Table.from_pylist(export_rows, schema=self.schema)


def _is_text(row: TrainingRow) -> TypeGuard[TextRow]:
    return "messages" in row


def _is_group(row: TrainingRow) -> TypeGuard[GroupRow]:
    return "segments" in row


def _is_pair(row: TrainingRow) -> TypeGuard[PreferenceRow]:
    return "chosen" in row


def _is_pair_of_thoughts(row: TrainingRow) -> TypeGuard[PreferenceRow]:
    """A pair that a trainer of text can tell apart."""
    return _is_pair(row) and row["chosen"]["thoughts"] != row["rejected"]["thoughts"]


def _conversation(row: TextRow) -> list[ExportRow]:
    return [{"messages": row["messages"], "images": row["images"]}]


def _tagged_conversation(row: TextRow) -> list[ExportRow]:
    return [{"messages": _tagged(row), "images": row["images"]}]


def _tagged(row: TextRow) -> list[Message]:
    """The messages, with a tag in the first question for each picture, as many loaders want."""
    tags = "<image>" * len(row["images"])
    messages = [message.copy() for message in row["messages"]]
    first = next(message for message in messages if message["role"] == "user")
    first["content"] = f"{tags}{first['content']}"
    return messages


def _verl_prompt(row: TextRow) -> list[ExportRow]:
    return [
        {
            "data_source": f"coppice/{row['task']}",
            "prompt": _tagged(row)[:-1],
            "images": row["images"],
            "ability": row["task"].partition("_")[0],
            "reward_model": {"style": "rule", "ground_truth": row["messages"][-1]["content"]},
            "extra_info": {"index": row["id"], "note": _note(row)},
        }
    ]


def _tar_sample(row: TextRow) -> list[ExportRow]:
    """What `part_files.TarStream` writes: a JSON file, and a file a picture."""
    note = json.dumps({"messages": row["messages"], **_lineage(row)}, sort_keys=True)
    return [{"__key__": row["id"], "json": note, "webp": row["images"]}]


def _nemo_parts(row: TextRow) -> list[ExportRow]:
    """One part after the other, from position 0 on; what is of the whole stands at -1."""
    *asked, answer = row["messages"]
    question = "\n\n".join(message["content"] for message in asked)
    parts: list[tuple[str, str, str | None, bytes | None]] = [
        ("metadata", "application/json", None, None),
        *(("image", "image/webp", None, image["bytes"]) for image in row["images"]),
        ("text", "text/plain", question, None),
        ("text", "text/plain", answer["content"], None),
    ]
    return [
        {
            "sample_id": row["id"],
            "position": position,
            "modality": modality,
            "content_type": content_type,
            "text_content": text,
            "binary_content": body,
            "source_ref": _note(row),
            "materialize_error": None,
        }
        for position, (modality, content_type, text, body) in enumerate(parts, start=-1)
    ]


def _verl_segments(row: GroupRow) -> list[ExportRow]:
    """What is to be learned of a rollout, each in a context of its own, since every one of them
    begins anew. Of a drawing the response is codes, and so is its canvas, in `extra_fields`.
    """
    return [
        {
            "uid": row["group_id"],
            "prompt_ids": segment["prefix_ids"],
            "response_ids": segment["tokens"],
            "response_mask": [1] * len(segment["tokens"] or ()),
            "response_logprobs": segment["logp_sample"],
            "reward_score": row["reward"],
            "num_turns": 1,
            "extra_fields": json.dumps(
                {
                    **_lineage(row),
                    "role": segment["role"],
                    "region": segment["region"],
                    "revision": segment["revision"],
                    "event": segment["event"],
                    "modality": segment["modality"],
                    "is_kept": segment["is_kept"],
                    "canvas": segment["canvas"],
                    "logp_cond": segment["logp_cond"],
                },
                sort_keys=True,
            ),
        }
        for segment in row["segments"]
        if segment["is_policy"]
    ]


def _thoughts_preferred(row: PreferenceRow) -> list[ExportRow]:
    def answer(side: PreferenceSide) -> list[Message]:
        return [{"role": "assistant", "content": side["thoughts"]}]

    prompt: list[Message] = [{"role": "user", "content": row["prompt"]}]
    return [
        {"prompt": prompt, "chosen": answer(row["chosen"]), "rejected": answer(row["rejected"])}
    ]


def _note(row: LineageRow) -> str:
    return json.dumps(_lineage(row), sort_keys=True)


def _lineage(row: LineageRow) -> dict[str, str | int | None]:
    """Where a row comes from, for readers that keep what they do not know."""
    return {
        "id": row["id"],
        "task": row["task"],
        "run_id": row["run_id"],
        "trace_id": row["trace_id"],
        "event": row["event"],
        "record_id": row["record_id"],
        "recipe": row["recipe"],
    }


EXPORTS: Mapping[str, Export[TextRow] | Export[PreferenceRow] | Export[GroupRow]] = {
    # TRL 1.16.0: `SFTTrainer` on messages with pictures. A test reads the rows with its
    # `data_utils.prepare_multimodal_messages`.
    "trl": Export(
        takes=_is_text,
        rows_of=_conversation,
        columns={"messages": _MESSAGES, "images": _IMAGES},
    ),
    # LLaMA-Factory 0.9.5: its `sharegpt` form, described by a `dataset_info.json` beside the files;
    # pictures may be `{bytes, path}`.
    "llama-factory": Export(
        takes=_is_text,
        rows_of=_tagged_conversation,
        columns={"messages": _MESSAGES, "images": _IMAGES},
    ),
    # ms-swift 4.6.0: `messages` and `images` as `{bytes, path}`.
    "ms-swift": Export(
        takes=_is_text,
        rows_of=_tagged_conversation,
        columns={"messages": _MESSAGES, "images": _IMAGES},
    ),
    # verl 0.9.1: prompts of its RL trainers. Its SFT trainer reads `messages` instead.
    "verl": Export(
        takes=_is_text,
        rows_of=_verl_prompt,
        columns={
            "data_source": _STRING,
            "prompt": _MESSAGES,
            "images": _IMAGES,
            "ability": _STRING,
            "reward_model": pa.struct([("style", _STRING), ("ground_truth", _STRING)]),
            "extra_info": pa.struct([("index", _STRING), ("note", _STRING)]),
        },
    ),
    # WebDataset 1.0.2, which a test reads the files with.
    "webdataset": Export(
        takes=_is_text,
        rows_of=_tar_sample,
        columns={"__key__": _STRING, "json": _STRING, "webp": _IMAGES},
        container="tar",
    ),
    # NeMo Curator at commit 1e2e427 (2026-08): its interleaved rows, one a part.
    "nemo-curator": Export(
        takes=_is_text,
        rows_of=_nemo_parts,
        columns={
            "sample_id": _STRING,
            "position": pa.int32(),
            "modality": _STRING,
            "content_type": _STRING,
            "text_content": _STRING,
            "binary_content": pa.large_binary(),
            "source_ref": _STRING,
            "materialize_error": _STRING,
        },
    ),
    # verl 0.9.1: named after the fields of its `AgentLoopOutput`. To be read by code of one's own:
    # verl has no loader of finished rollouts and no Janus.
    "verl-grpo": Export(
        takes=_is_group,
        rows_of=_verl_segments,
        columns={
            "uid": _STRING,
            "prompt_ids": _IDS,
            "response_ids": _IDS,
            "response_mask": _IDS,
            "response_logprobs": pa.list_(pa.float32()),
            "reward_score": pa.float32(),
            "num_turns": pa.int32(),
            "extra_fields": _STRING,
        },
    ),
    # TRL 1.16.0: `DPOTrainer`, prompt and answers as conversations. A test asks its
    # `data_utils.is_conversational`.
    "trl-dpo": Export(
        takes=_is_pair_of_thoughts,
        rows_of=_thoughts_preferred,
        columns={"prompt": _MESSAGES, "chosen": _MESSAGES, "rejected": _MESSAGES},
    ),
}
"""By name. An export that takes none of a set's rows writes no file."""

KIND_OF_ROWS: Mapping[Callable[[TrainingRow], bool], SetKind] = {
    _is_text: SetKind.SFT,
    _is_group: SetKind.GRPO,
    _is_pair_of_thoughts: SetKind.PREFERENCE,
}
"""Which sets have the rows that an export takes."""


def check_exports(names: Sequence[str], kind: SetKind) -> None:
    """Raises InputError for a name that is none of `EXPORTS`, and for an export of other sets."""
    if unknown := [name for name in names if name not in EXPORTS]:
        raise InputError(f"there is no export {unknown[0]!r}; known: {', '.join(EXPORTS)}")
    kinds = {name: KIND_OF_ROWS[export.takes] for name, export in EXPORTS.items()}
    if misplaced := [name for name in names if kinds[name] != kind]:
        raise InputError(
            f"the export {misplaced[0]} takes rows of {kinds[misplaced[0]]} sets, and this recipe "
            f"makes a {kind} set; for those there are: "
            f"{', '.join(name for name in EXPORTS if kinds[name] == kind)}"
        )
