"""The rows of every Parquet file as they are read back: what `to_pylist` gives of each schema.

Field by field the tables of `schemas.tables`, `schemas.training` and `schemas.scores`, which a test
holds against them. A reader that asks for some columns has those alone. A trace that is about to be
written is a `schemas.trace.Trace`; these are what stands in files.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import TypeAlias, TypedDict


class BoxRow(TypedDict):
    """Something seen in a picture, see `schemas.scores.BOX`. Edges are in pixels."""

    label: str
    score: float | None
    x0: float
    y0: float
    x1: float
    y1: float


ScoreValue: TypeAlias = float | int | str | Sequence[BoxRow] | None
"""A cell of a scorer's own column; None: does not apply."""


class PlanTableRow(TypedDict):
    """A record of a plan's shard, see `schemas.tables.PLAN`."""

    record_id: str
    prompt: str
    metadata: str  # a JSON object
    rollout_start: int
    rollout_stop: int


class NamedDigest(TypedDict):
    """A model or a template pack."""

    name: str
    digest: str


class ImageCell(TypedDict):
    """An encoded picture, as Hugging Face `datasets` keeps one."""

    bytes: bytes
    path: str


class StackRow(TypedDict):
    """Versions and device that made a trace, see `schemas.tables.STACK`."""

    coppice: str
    python: str
    torch: str
    transformers: str
    device: str
    arithmetic: str


class EventRow(TypedDict):
    """One model call of a trace, see `schemas.tables.EVENT`."""

    index: int
    role: str
    region: int
    revision: int
    candidate: int
    backend: str
    seed: int | None  # None: greedy
    text: str
    raw_text: str | None  # None: a drawing
    score: float | None
    verdict: str | None
    better_thought: str | None
    problem: str | None
    prefix_ids: list[int] | None  # None: of a foreign tokenizer, as the following
    token_ids: list[int] | None
    codes: list[int]
    logp_sample: list[float] | None
    logp_cond: list[float] | None
    finish: str | None
    superseded_by: int | None
    picture: int | None  # index into the trace's images
    duration_seconds: float


class TraceRow(TypedDict):
    """A rollout, ok or dead, see `schemas.tables.TRACES`."""

    trace_version: int
    trace_id: str
    run_id: str
    fingerprint: str
    record_id: str
    rollout_index: int
    status: str
    prompt: str
    metadata: str  # a JSON object
    program: str
    model: NamedDigest
    pack: NamedDigest
    run_seed: int
    schedule_source: str | None
    region_stops: list[int] | None
    events: list[EventRow]
    codes: list[int]
    final_picture: int | None
    images: list[ImageCell]
    dead_reason: str | None
    dead_message: str | None
    attempts: int
    attempt_id: str
    worker: str
    stack: StackRow
    started_at: datetime
    duration_seconds: float


class ScoreKeyRow(TypedDict):
    """The key of a sidecar's row; the scorer's own columns stand beside it as `ScoreValue`."""

    trace_id: str
    event: int | None  # None: the whole trace
    tokens: str


class Message(TypedDict):
    """A turn of a conversation."""

    role: str
    content: str


class LineageRow(TypedDict):
    """Where a row of a set comes from. Every row of a set begins with these columns."""

    id: str
    task: str
    run_id: str
    trace_id: str
    event: int | None  # None: the whole trace
    record_id: str
    recipe: str
    model: NamedDigest
    backend: str | None  # None: several
    prompt: str
    category: str | None
    score: float | None


class TokensRow(LineageRow):
    """A row that is learned token by token. The three lists are equally long."""

    input_ids: list[int]
    labels: list[int]  # IGNORED where nothing is learned
    modality_mask: list[int]  # 1: a code of the picture, 0: text
    droppable_start: int | None
    droppable_stop: int | None


class TextRow(LineageRow):
    """A row of the tasks think and reflect, see `schemas.training.TEXT`.

    What an endpoint said has no tokens of the model's: the lists of them are None.
    """

    input_ids: list[int] | None
    labels: list[int] | None
    modality_mask: list[int] | None
    droppable_start: int | None
    droppable_stop: int | None
    messages: list[Message]  # the last one is the answer
    images: list[ImageCell]
    canvas: list[int]


class DrawRow(TokensRow):
    """A row of the tasks draw, see `schemas.training.DRAW`."""

    text: str
    cfg_weight: float
    temperature: float


class PreferenceSide(TypedDict):
    """One drawing of a pair."""

    trace_id: str
    event: int | None  # None: the whole picture
    thoughts: str
    prefix_ids: list[int]
    context: list[int]
    codes: list[int]
    score: float | None


class PreferenceRow(LineageRow):
    """A pair, see `schemas.training.PREFERENCE`."""

    margin: float | None
    chosen: PreferenceSide
    rejected: PreferenceSide
    images: list[ImageCell]


class SegmentRow(TypedDict):
    """One event of a rollout of a group."""

    event: int
    role: str
    region: int
    revision: int
    modality: str  # text or image
    is_policy: bool
    is_kept: bool
    prefix_ids: list[int] | None  # None: of a foreign tokenizer, as `tokens`
    canvas: list[int]
    tokens: list[int] | None
    logp_sample: list[float] | None
    logp_cond: list[float] | None


class GroupRow(LineageRow):
    """A rollout of a group, see `schemas.training.GROUP`."""

    group_id: str
    group_size: int
    rollout_index: int
    reward: float | None
    advantage: float | None
    reward_names: list[str]
    rewards: list[float | None]
    segments: list[SegmentRow]
    codes: list[int]
    images: list[ImageCell]


class DecisionRow(TypedDict):
    """What became of a row that could have been, see `schemas.training.DECISIONS`."""

    run_id: str
    trace_id: str
    event: int | None
    task: str
    is_kept: bool
    reason: str | None  # None: kept
    value: float | None
    split: str


TrainingRow: TypeAlias = TextRow | DrawRow | PreferenceRow | GroupRow
"""A canonical row of a set."""
