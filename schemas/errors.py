"""Every error that Coppice raises on purpose, and the exit code that each one ends a command with.

    CoppiceError
    |-- InputError               2  what was given cannot be used: a prompt file, an option
    |-- ConfigMismatch           5  the run was planned with another method
    |-- DriverAlive              6  another driver is at work on this run
    |-- ClusterLost              3  the Ray that the work was done on is gone
    |-- EndpointAway             3  an endpoint does not answer, and was waited for long enough
    |-- Stopped                  3  the command was stopped from outside
    |-- TooManyDead              8  more rollouts, or workers, died than the run puts up with
    |-- StoreError               7
    |   |-- ObjectMissing           no object at this key
    |   |-- StoreUnavailable        down, slow or throttling: the same call may succeed later
    |   `-- StoreRefused            a missing bucket, or a server that cannot do it
    |       |-- ObjectBlocked       a folder stands at its key: it concerns no other object
    |       `-- CredentialsRefused  refused for now: a run waits for them, a start does not
    `-- RolloutError                a rollout failed; its `kind` says whose fault it is
        |-- RecordFailure           this prompt breaks it: the rollout becomes a dead row
        |-- TaskFailure             this attempt at the shard broke: the shard is given back
        |-- InfrastructureFailure   a worker, node or store went away: the shard is given back
        `-- FatalFailure            nothing that a retry could mend: the run stops
            |-- EndpointRefused  3  an endpoint takes no questions: its key, address or model
            |-- ForeignObject    5  an object of another run, or of another method
            `-- DamagedObject    9  an object that is not whole, or is gone
                `-- DamagedPlan     of a plan: it costs its own shard, and no other

A message says what was found, what was expected, and what to do.
"""

from collections.abc import Callable
from enum import IntEnum, StrEnum
from typing import ClassVar, TypeAlias


class ExitCode(IntEnum):
    """How a command ended, for scripts. Stable."""

    COMPLETE = 0
    BUG = 1
    USAGE = 2
    INCOMPLETE = 3
    COMPLETE_WITH_DEAD = 4
    CONFIG_MISMATCH = 5
    DRIVER_ALIVE = 6
    STORE = 7
    TOO_MANY_DEAD = 8
    DAMAGED = 9


class FailureKind(StrEnum):
    """Whose fault a failed rollout is. Only `RECORD` makes a dead row."""

    RECORD = "record"
    TASK = "task"
    INFRASTRUCTURE = "infrastructure"
    FATAL = "fatal"


class CoppiceError(Exception):
    """The root: catch this to catch everything that Coppice raises on purpose."""

    exit_code: ClassVar[ExitCode] = ExitCode.BUG


class InputError(CoppiceError):
    """What the user gave cannot be used; nothing was started."""

    exit_code = ExitCode.USAGE


class ConfigMismatch(CoppiceError):
    """The run was planned with another method than this one."""

    exit_code = ExitCode.CONFIG_MISMATCH


class DriverAlive(CoppiceError):
    """Another driver is at work on this run."""

    exit_code = ExitCode.DRIVER_ALIVE


class ClusterLost(CoppiceError):
    """The Ray that the work was done on is gone. What is committed stays, the rest is missing."""

    exit_code = ExitCode.INCOMPLETE


class Stopped(CoppiceError):
    """The command was stopped from outside, by a signal. The same command goes on."""

    exit_code = ExitCode.INCOMPLETE


class EndpointAway(CoppiceError):
    """An endpoint does not answer, and was waited for long enough. What is committed stays."""

    exit_code = ExitCode.INCOMPLETE


class TooManyDead(CoppiceError):
    """More rollouts are dead than the run puts up with, or workers die and none commits."""

    exit_code = ExitCode.TOO_MANY_DEAD


class StoreError(CoppiceError):
    """The object store did not do what was asked."""

    exit_code = ExitCode.STORE


class ObjectMissing(StoreError):
    """There is no object at this key."""


class StoreUnavailable(StoreError):
    """The store is down, slow or throttling. Nothing is known of what the call did; repeat it."""


class StoreRefused(StoreError):
    """The store said no: permission, a missing bucket, or a promise it cannot keep."""


class ObjectBlocked(StoreRefused):
    """A folder stands where an object is to be. Every other object can be put."""


class CredentialsRefused(StoreRefused):
    """The store does not take these credentials: expired, rotated, or without the permission.

    In mid-run they were good a moment ago, and someone may renew them: repeat the call.
    """


class RolloutError(CoppiceError):
    """A rollout failed. `reason` is one lowercase word for tables; the message is for people."""

    kind: ClassVar[FailureKind] = FailureKind.TASK

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> "tuple[_Remake, tuple[type[RolloutError], str, str]]":
        return _remake, (type(self), str(self), self.reason)  # so that it can leave its process


class RecordFailure(RolloutError):
    """This record breaks the rollout, on any worker, at any time."""

    kind = FailureKind.RECORD


class TaskFailure(RolloutError):
    """This attempt broke for a reason that may not come back."""

    kind = FailureKind.TASK


class InfrastructureFailure(RolloutError):
    """A worker, a node or the store went away in mid-rollout."""

    kind = FailureKind.INFRASTRUCTURE


class FatalFailure(RolloutError):
    """No retry can mend this: the run stops."""

    kind = FailureKind.FATAL


class EndpointRefused(FatalFailure):
    """An endpoint takes no questions: not with this key, at this address, or of this model."""

    exit_code = ExitCode.INCOMPLETE


class ForeignObject(FatalFailure):
    """An object of another run, or of another method, stands where one of this run belongs."""

    exit_code = ExitCode.CONFIG_MISMATCH


class DamagedObject(FatalFailure):
    """An object of a run is not what was committed, or is gone."""

    exit_code = ExitCode.DAMAGED


class DamagedPlan(DamagedObject):
    """A plan file that is not the one its run named. Its shard cannot be made; all others can."""


_FATAL_BY_REASON: dict[str, type[FatalFailure]] = {
    "endpoint_refused": EndpointRefused,
    "foreign_object": ForeignObject,
    "damaged_object": DamagedObject,
    "damaged_plan": DamagedPlan,
    "base_vanished": DamagedObject,
}


DAMAGED_REASONS = frozenset({"damaged_object", "base_vanished"})
"""Of failures that are told as damage, even if all other shards were made."""


def fatal_failure(message: str, *, reason: str) -> FatalFailure:
    """The failure of this reason, as itself: a report of a worker says no more than the word."""
    return _FATAL_BY_REASON.get(reason, FatalFailure)(message, reason=reason)


_Remake: TypeAlias = Callable[[type[RolloutError], str, str], RolloutError]


def _remake(kind: type[RolloutError], message: str, reason: str) -> RolloutError:
    return kind(message, reason=reason)
