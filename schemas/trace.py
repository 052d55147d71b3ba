"""What a rollout leaves behind: a trace of events. The nouns; `schemas.tables` has the columns."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Both load pydantic, which a bare GPU machine may lack.
    from schemas.json_values import JsonObject
    from schemas.runs import EndpointUsage

TRACE_VERSION = 1
"""Raised by hand when the same inputs would give other tokens or other columns."""


GIVEN = "given"
"""The backend of events that nobody answered: thoughts that came with the prompt."""


class Role(StrEnum):
    """What a model call is for."""

    SCHEDULE = "schedule"
    THINK = "think"
    DRAW = "draw"
    REFLECT = "reflect"


class Verdict(StrEnum):
    """What a reflection amounts to."""

    ACCEPT = "accept"
    REVISE = "revise"
    UNPARSEABLE = "unparseable"


class Finish(StrEnum):
    """Why an answer ended: the model ended it, or the limit did."""

    STOP = "stop"
    LENGTH = "length"


class Status(StrEnum):
    """How a rollout ended."""

    OK = "ok"
    DEAD = "dead"


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """A horizontal band of the picture, as a range of its tokens in drawing order."""

    index: int  # from 0, top to bottom
    start: int
    stop: int

    @property
    def num_tokens(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True, slots=True)
class Reflection:
    """A critique as it was read. `score` is the number found, also where it cannot be used."""

    verdict: Verdict
    score: float | None
    better_thought: str  # one line; empty if there was none
    problem: str = ""  # why it is unparseable


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """The regions of one picture, and where they came from: equal, ratios, adaptive or fallback."""

    regions: tuple[Region, ...]
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One model call. Text roles fill `token_ids`, drawing fills `codes`; the rest stays empty."""

    index: int
    role: Role
    region: int
    revision: int
    candidate: int
    backend: str
    seed: int | None  # None: greedy
    text: str  # what was said, or the thoughts drawn from, as one line
    raw_text: str | None  # the answer as it came
    prefix_ids: tuple[int, ...] | None  # None: of a foreign tokenizer, as the following
    token_ids: tuple[int, ...] | None = ()
    codes: tuple[int, ...] = ()
    logp_sample: tuple[float, ...] | None = None
    logp_cond: tuple[float, ...] | None = None
    finish: Finish | None = None
    reflection: Reflection | None = None
    superseded_by: int | None = None  # index of the drawing that replaced this one
    picture: int | None = None  # index into the trace's images: the canvas after this event
    duration_seconds: float
    usage: "EndpointUsage | None" = None  # of an endpoint; goes into the footer


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """An encoded picture and the file name it would go by."""

    data: bytes
    path: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """One rollout, ok or dead. A dead one keeps the events that it had."""

    record_id: str
    rollout_index: int
    prompt: str
    metadata: "JsonObject"
    status: Status
    schedule: Schedule | None
    events: tuple[Event, ...]
    codes: tuple[int, ...]  # the finished picture; empty if dead
    final_picture: int | None = None  # index into images
    images: tuple[Image, ...] = ()
    dead_reason: str | None = None
    dead_message: str | None = None
    attempts: int = 1  # tries at this rollout, from 1
    started_at: float  # seconds since the epoch, UTC
    duration_seconds: float
