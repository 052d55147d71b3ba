"""What an export is: a trainer, the rows that it takes, and what they become for it.

A row of the right kind that a trainer could not learn from is left out with a `Reason`, and every
reason is counted where the set tells of itself. All pictures of exports are PNG: whoever decodes
one with `datasets` and writes it again gets the same pixels, which of WebP, lossless as ours are,
would come back with loss.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Literal, TypeAlias, TypeGuard

import pyarrow as pa

from pipeline.pictures import decode_picture, encode_png
from schemas.recipes import SetKind
from schemas.rows import (
    DrawRow,
    GroupRow,
    ImageCell,
    LineageRow,
    Message,
    PreferenceRow,
    SegmentRow,
    TextRow,
    TrainingRow,
)
from schemas.tables import IMAGE, with_features
from schemas.training import MESSAGE

ExportCell: TypeAlias = (
    str
    | int
    | float
    | bool
    | bytes
    | Sequence[int]
    | Sequence[float]
    | Sequence[bytes]
    | Sequence[Message]
    | Sequence[ImageCell]
    | Sequence[Mapping[str, str]]
    | Mapping[str, "ExportCell"]
    | None
)
ExportRow: TypeAlias = dict[str, ExportCell]
"""A row as a trainer reads it, by the names of its columns."""

STRING, FLOAT, INT = pa.string(), pa.float32(), pa.int32()
IDS, LOGPS = pa.list_(INT), pa.list_(FLOAT)
MESSAGES, IMAGES = pa.list_(MESSAGE), pa.list_(IMAGE)
NAMES: Mapping[str, pa.DataType] = {"id": STRING, "task": STRING}
"""The columns by which a row of any export is found in its set."""


class Reason(StrEnum):
    """Why a row of the right kind is not in an export."""

    DRAWING = "drawing"  # codes, and the trainer learns words
    WORDS = "words"  # and the trainer learns drawings
    NO_TOKEN_IDS = "no_token_ids"  # answered by a model that does not tell them
    NOT_SAMPLED = "not_sampled"  # nothing of it is of the policy: greedy, or given
    NO_PICTURE = "no_picture"  # the run did not keep it
    NO_REWARD = "no_reward"
    NOT_WHOLE = "not_whole"  # a picture that lacks regions, and the trainer learns whole ones
    OTHER_PROMPT = "other_prompt"  # the sides of the pair answer different prompts
    SAME_ANSWER = "same_answer"  # the sides of the pair differ elsewhere
    TEMPERATURE = "temperature"  # sampled at one that the trainer cannot be told


@dataclass(frozen=True, kw_only=True, slots=True)
class ThoughtPair:
    """A thought that was preferred to another one, and the question that both answer."""

    question: list[Message]
    images: list[ImageCell]  # the canvas in sight
    has_one_prompt: bool  # token for token
    chosen: str
    rejected: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawingPair:
    """Codes that were preferred to others of the same region, and what each was drawn after."""

    has_one_prompt: bool  # equal text, and equal codes above
    prompt_ids: list[int]
    canvas: list[int]
    chosen: list[int]
    rejected: list[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceFacts:
    """What the trace of a row says beyond it, for exports that show it."""

    canvases: Mapping[int, ImageCell]  # after each drawing, by its event; those that were kept
    region_stops: Sequence[int]  # token index after each region
    cfg_weight: float
    image_temperature: float
    text_temperature: float
    reward_mean: float | None = None  # of the group
    reward_std: float | None = None  # with ddof 0
    num_rewards: int = 0  # in the group that are not null
    thoughts: ThoughtPair | None = None
    drawings: DrawingPair | None = None

    def canvas_after(self, event: int | None) -> ImageCell | None:
        """The picture after a drawing. None if it was not kept."""
        return None if event is None else self.canvases.get(event)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A row to be exported."""

    row: TrainingRow
    facts: TraceFacts | None = None  # None: its run is not at hand

    @property
    def trace(self) -> TraceFacts:
        """The facts. Only for exports that say that they show them."""
        assert self.facts is not None
        return self.facts


Rows: TypeAlias = Sequence[ExportRow] | Reason
"""What a row becomes, or why it becomes nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """Some rows of an export, by sub-folder, and how many others were left out for what."""

    tables: Mapping[str, pa.Table]
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """A form of a set. `columns` are the reader's, in order, with their types."""

    version: int  # raised when anything that it writes changes
    consumer: str  # and the version of it that the export is tested with
    kinds: frozenset[SetKind]  # whose rows it takes
    rows_of: Callable[[Source], Rows]  # one of ours as theirs
    columns: Mapping[str, pa.DataType]
    container: Literal["parquet", "jsonl", "tar", "folder"] = "parquet"
    folder_of: Callable[[ExportRow], str] = lambda row: ""  # rows that the reader wants apart
    shows_traces: frozenset[SetKind] = frozenset()  # of which it shows more than their rows say
    has_features: bool = True  # tells `datasets` which columns are pictures

    @property
    def schema(self) -> pa.Schema:
        fields = [pa.field(name, kind) for name, kind in self.columns.items()]
        return with_features(fields) if self.has_features else pa.schema(fields)

    def of(self, sources: Iterable[Source]) -> Exported:
        """The reader's rows, in order."""
        rows: dict[str, list[ExportRow]] = defaultdict(list)
        left_out: Counter[str] = Counter()
        for source in sources:
            made_rows = self.rows_of(source)
            if isinstance(made_rows, Reason):
                left_out[made_rows.value] += 1
            else:
                for row in made_rows:
                    rows[self.folder_of(row)].append(row)
        schema = self.schema
        tables = {
            folder: pa.Table.from_pylist(of_folder, schema=schema)
            for folder, of_folder in rows.items()
        }
        return Exported(tables=tables, left_out=left_out)


def is_text(row: TrainingRow) -> TypeGuard[TextRow]:
    return "messages" in row


def is_drawing(row: TrainingRow) -> TypeGuard[DrawRow]:
    return "cfg_weight" in row


def is_group(row: TrainingRow) -> TypeGuard[GroupRow]:
    return "segments" in row


def is_pair(row: TrainingRow) -> TypeGuard[PreferenceRow]:
    return "chosen" in row


def policy_segments(row: GroupRow) -> Sequence[SegmentRow] | Reason:
    """What is to be learned of a rollout, token by token. Everything of the policy, or nothing: a
    rollout that lacks a part would be learned for what that part did.
    """
    segments = [segment for segment in row["segments"] if segment["is_policy"]]
    if row["reward"] is None or row["advantage"] is None:
        return Reason.NO_REWARD
    if not segments:
        return Reason.NOT_SAMPLED
    if not all(segment["tokens"] and segment["prefix_ids"] for segment in segments):
        return Reason.NO_TOKEN_IDS
    return segments


def names_of(row: LineageRow) -> ExportRow:
    """The cells of `NAMES`."""
    return {"id": row["id"], "task": row["task"]}


def lineage_of(row: LineageRow) -> dict[str, str | int | None]:
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


def png_cells(images: Iterable[ImageCell]) -> list[ImageCell]:
    """The same pictures as PNG."""
    return [
        {"bytes": png_of(image["bytes"]), "path": f"{image['path'].rpartition('.')[0]}.png"}
        for image in images
    ]


@lru_cache(maxsize=32)  # all exports of a row, and all segments of a rollout, share its pictures
def png_of(data: bytes) -> bytes:
    """An encoded picture as PNG, pixel for pixel."""
    return encode_png(decode_picture(data))
