"""A run: what stands on storage, and what driver and workers tell each other."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias, TypeVar

from pydantic import Field

from schemas.config import Frozen, RunConfig
from schemas.errors import FailureKind
from schemas.geometry import Geometry

RUN_FORMAT = 2
"""Raised when the layout of a run changes in a way that older code cannot read."""

FOOTER_KEY = b"coppice"
"""The Parquet key-value entry that holds a `ShardFooter` as JSON; of a plan file, a `PlanNote`."""

RUN_KEY = b"coppice_run"
"""The Parquet key-value entry of a data object that holds a `RunEvidence` as JSON. Apart from its
footer, which older code reads and takes nothing new in."""

PLAN_DIGEST_CHARS = 16
"""Of a plan file's digest: 64 bits, in hexadecimal."""


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
    # Of each shard's plan file, one after the other, in one string: a list of a million would be
    # several times as large. Empty in run format 1.
    digests: str = Field(default="", exclude_if=lambda digests: not digests)

    def digest_of(self, shard: int) -> str:
        """Of the plan file of one of its shards; empty if it was never noted."""
        start = (shard - self.first_shard) * PLAN_DIGEST_CHARS
        return self.digests[start : start + PLAN_DIGEST_CHARS]

    @property
    def stop_shard(self) -> int:
        """The first shard after this part."""
        return self.first_shard + self.num_shards


class RunManifest(Frozen):
    """run.json. Written last and once: it commits the plan and freezes the config."""

    run_format: int = RUN_FORMAT
    run_id: str
    fingerprint: str
    config: RunConfig
    geometry: Geometry
    plan: PlanPart  # its first part
    created_at: str  # UTC, ISO 8601; for people
    coppice_version: str
    # Each stands in an object of its own, plan/0002.json and so on.
    extensions: tuple[PlanPart, ...] = Field(default=(), exclude=True)

    @property
    def parts(self) -> tuple[PlanPart, ...]:
        """All parts of the plan, in the order of their shards."""
        return self.plan, *self.extensions

    @property
    def num_shards(self) -> int:
        return self.parts[-1].stop_shard

    @property
    def num_rollouts(self) -> int:
        return sum(part.num_rollouts for part in self.parts)

    def part_of(self, shard: int) -> PlanPart:
        """The part that planned a shard."""
        return next(part for part in self.parts if shard < part.stop_shard)

    def num_rollouts_of(self, shard: int) -> int:
        """How many rollouts a shard has: all alike, but the last one of a part."""
        part = self.part_of(shard)
        before = (shard - part.first_shard) * part.rollouts_per_shard
        return min(part.rollouts_per_shard, part.num_rollouts - before)


class PlanNote(Frozen):
    """What a plan file says of itself."""

    folder: str  # of its part, which is named by a digest of all that the part says
    shard: int
    digest: str  # of its rows, in any order


class Extension(Frozen):
    """plan/0002.json and so on: commits one more part of a plan."""

    run_id: str
    part: PlanPart


class RunEvidence(Frozen):
    """What a data object says of its run, so that a lost run.json can be had back. Plans are
    without the digests of their files, which these say of themselves.
    """

    manifest: RunManifest
    part: PlanPart  # that planned the shard

    @classmethod
    def of(cls, manifest: RunManifest, shard: int) -> "RunEvidence":
        """What the data objects of a shard are to say."""
        without = {"digests": ""}
        plan = manifest.plan.model_copy(update=without)
        part = manifest.part_of(shard).model_copy(update=without)
        return cls(manifest=manifest.model_copy(update={"plan": plan}), part=part)


Key = tuple[str, int]
"""A rollout: its record's id and its index."""


class EndpointUsage(Frozen):
    """What answers of an endpoint took. Usages of other answers can be added."""

    num_calls: int = 0  # answered
    num_retries: int = 0  # tries before the one that was answered
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0  # from when it was asked, tries and pauses included, summed

    def __add__(self, other: "EndpointUsage") -> "EndpointUsage":
        return EndpointUsage(
            num_calls=self.num_calls + other.num_calls,
            num_retries=self.num_retries + other.num_retries,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            seconds=self.seconds + other.seconds,
        )


class ShardFooter(Frozen):
    """Who wrote a shard file, and what is in it."""

    run_id: str
    fingerprint: str
    shard: int
    supplement: int = Field(default=0, ge=0)  # 0: the base, which holds every key of the shard
    rerun_id: str = ""  # of a supplement: the rerun that brought its rows back
    in_vain: tuple[Key, ...] = ()  # of a supplement: keys that were tried again and died again
    attempt_id: str  # tells one's own earlier, unanswered put from another's
    attempt: int
    num_ok: int
    num_dead: int
    digest: str  # of keys, states and tokens, in any order
    coppice_version: str
    # By endpoint, of the answers that stand in this object.
    endpoints: dict[str, EndpointUsage] = Field(default_factory=dict, exclude_if=operator.not_)

    @property
    def num_rows(self) -> int:
        return self.num_ok + self.num_dead


class FooterLogOrigin(Frozen):
    """Whose footers a log of footers holds. One of another format is no log."""

    run_id: str
    fingerprint: str
    log_format: int = 1


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
class Attempt:
    """One try at a shard by one worker.

    `crashed` names rollouts by their positions, from 0: in the shard, or in a rerun among its keys.
    """

    shard: int
    number: int  # from 1, for people
    attempt_id: str  # unique
    crashed: Mapping[int, str] = field(default_factory=dict)  # given up on, and what they did

    @property
    def is_alone(self) -> bool:
        """Whether the actor is to have no other shard meanwhile: this one failed before."""
        return self.number > 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Grow:
    """Make a shard: grow all its rollouts, and commit its base."""

    attempt: Attempt
    num_ok: int = 0  # rollouts committed in the run so far, when this was handed out
    num_dead: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class BringBack:
    """Try dead keys of a committed shard again, and commit a supplement."""

    attempt: Attempt
    rerun_id: str
    keys: tuple[Key, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """Grow some rollouts of a whole, to see whether the process outlives them. Commits nothing."""

    whole: Grow | BringBack
    start: int  # position of the first one; see Attempt
    stop: int

    @property
    def attempt(self) -> Attempt:
        return self.whole.attempt


Assignment: TypeAlias = Grow | BringBack | Probe
"""What an actor is given to do."""


class ShardEnd(StrEnum):
    """How an attempt at a shard ended."""

    COMMITTED = "committed"
    ALREADY = "already"  # another attempt had committed it; this one's work, if any, is dropped
    SURVIVED = "survived"  # a probe came to its end
    FAILED = "failed"


class Remedy(StrEnum):
    """What the driver is to do about a failed attempt."""

    GIVE_BACK = "give_back"  # the shard is tried again
    REPLACE_WORKER = "replace_worker"  # it can grow nothing any more; no record is to blame
    SUSPECT_RECORDS = "suspect_records"  # its models broke: as if its process had died
    GIVE_UP = "give_up"  # no retry can mend this shard; the others are not concerned
    STOP = "stop"  # no retry can mend it
    STOP_FOR_STORE = "stop_for_store"  # which was waited for long enough, or said no
    STOP_FOR_DEAD = "stop_for_dead"  # more rollouts are dead than the run puts up with


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardFailure:
    """Why an attempt failed. `reason` is a word for people and tables; nothing acts on it."""

    kind: FailureKind
    reason: str
    message: str
    remedy: Remedy


Name = TypeVar("Name")
Number = TypeVar("Number", int, float)


def added(first: Mapping[Name, Number], second: Mapping[Name, Number]) -> dict[Name, Number]:
    """Numbers of equal names added up."""
    added = dict(first)
    for name, number in second.items():
        added[name] = added[name] + number if name in added else number
    return added


@dataclass(frozen=True, kw_only=True, slots=True)
class Ends:
    """How rollouts ended."""

    num_accepted: int = 0  # ok, and no region was drawn again
    num_revised: int = 0  # ok, and some region was
    dead: Mapping[str, int] = field(default_factory=dict)  # by reason

    @property
    def num_dead(self) -> int:
        return sum(self.dead.values())

    @property
    def total(self) -> int:
        return self.num_accepted + self.num_revised + self.num_dead

    def __add__(self, other: "Ends") -> "Ends":
        return Ends(
            num_accepted=self.num_accepted + other.num_accepted,
            num_revised=self.num_revised + other.num_revised,
            dead=added(self.dead, other.dead),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What work took, since a process began. Added up, it is of several."""

    seconds: Mapping[tuple[str, str], float] = field(default_factory=dict)  # by phase and device
    tokens: Mapping[str, int] = field(default_factory=dict)  # chosen, by the role that asked
    ends: Ends = field(default_factory=Ends)
    store_seconds: float = 0.0  # that threads spent in calls of the store, waits included

    def __add__(self, other: "Work") -> "Work":
        return Work(
            seconds=added(self.seconds, other.seconds),
            tokens=added(self.tokens, other.tokens),
            ends=self.ends + other.ends,
            store_seconds=self.store_seconds + other.store_seconds,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardReport:
    """What an attempt at a shard came to, as its worker tells the driver."""

    shard: int
    attempt_id: str
    end: ShardEnd
    num_ok: int = 0  # of rollouts that count from now on, by whomever they were committed
    num_dead: int = 0
    num_bytes: int = 0  # committed by this attempt
    ends: Ends = field(default_factory=Ends)  # of the rollouts that this attempt grew and committed
    failure: ShardFailure | None = None  # of one that FAILED
    work: Work = field(default_factory=Work)  # of the worker, up to now


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """What a worker waits for."""

    since: float  # seconds since the epoch
    whom: str = "the store"
    what: str = ""  # is to be done then, as `put traces/shard-00003.parquet`


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerStatus:
    """What a worker says of itself when asked."""

    ends: Mapping[str, Ends] = field(default_factory=dict)  # in open shards, by attempt id
    store_wait: Wait | None = None  # for it, or for room on the scratch disk
    work: Work = field(default_factory=Work)
    num_rows_busy: int = 0  # requests that models work at, or that wait for them
    endpoints_away: tuple[str, ...] = ()  # those that some question waits for
    endpoints: Mapping[str, EndpointUsage] = field(default_factory=dict)  # all that they answered
