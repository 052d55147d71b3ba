"""A run on storage: its manifest, its plan, and the note that every shard file ends with."""

from dataclasses import dataclass
from enum import StrEnum

from pydantic import Field

from schemas.config import Frozen, RunConfig
from schemas.errors import FailureKind

RUN_FORMAT = 1
"""Raised when the layout of a run changes in a way that older code cannot read."""

FOOTER_KEY = b"coppice"
"""The Parquet key-value entry that holds a `ShardFooter` as JSON."""


class GeometryConfig(Frozen):
    """`schemas.geometry.Geometry`, as JSON."""

    image_size: int
    rows: int
    columns: int
    num_codes: int


class PlanPart(Frozen):
    """One part of a plan: a folder of shard files. Part 1 stands in run.json."""

    number: int = Field(ge=1)
    folder: str  # below the run
    first_shard: int = Field(ge=0)
    num_shards: int = Field(ge=0)
    num_records: int = Field(ge=0)
    num_rollouts: int = Field(ge=0)
    rollouts_per_record: int = Field(ge=1)
    rollouts_per_shard: int = Field(ge=1)
    num_duplicates: int = Field(ge=0)
    num_rejects: int = Field(ge=0)
    sources: tuple[str, ...]


class RunManifest(Frozen):
    """run.json. Written last and once: it commits the plan and freezes the config."""

    run_format: int = RUN_FORMAT
    run_id: str
    fingerprint: str
    config: RunConfig
    geometry: GeometryConfig
    plan: PlanPart
    created_at: str  # UTC, ISO 8601; for people
    coppice_version: str


class ShardFooter(Frozen):
    """Who wrote a shard file, and what is in it."""

    run_id: str
    fingerprint: str
    shard: int
    attempt_id: str  # tells one's own earlier, unanswered put from another's
    attempt: int
    num_ok: int
    num_dead: int
    digest: str  # of keys, states and tokens, in any order
    coppice_version: str

    @property
    def num_rows(self) -> int:
        return self.num_ok + self.num_dead


class FailedAttempt(Frozen):
    """How an attempt at a shard ended that did not commit it."""

    shard: int
    attempt_id: str
    attempt: int
    kind: str
    reason: str
    message: str
    worker: str
    ended_at: str  # UTC, ISO 8601


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """A shard to be grown, and which attempt at it this is."""

    shard: int
    attempt: int  # from 1, for people
    attempt_id: str  # unique


class ShardEnd(StrEnum):
    """How an attempt at a shard ended."""

    COMMITTED = "committed"
    ALREADY = "already"  # another attempt had committed it; this one's work, if any, is dropped
    FAILED = "failed"


class ShardReport(Frozen):
    """What an attempt at a shard came to, as its worker tells the driver."""

    shard: int
    attempt_id: str
    end: ShardEnd
    num_ok: int = 0
    num_dead: int = 0
    num_bytes: int = 0
    kind: FailureKind | None = None  # of a failure
    reason: str = ""
    message: str = ""
    duration_seconds: float = 0.0
