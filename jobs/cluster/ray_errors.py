"""What each of Ray's errors means for a run: the one place that reads Ray's error tree.

Whatever it is, it ends a worker or an answer, and never the driver, unless Ray does not take the
driver's word any more.
"""

import re
from enum import Enum

from ray import exceptions
from ray.exceptions import RayActorError, RayError, RayTaskError


class Loss(Enum):
    """What is lost, and so what is to be done."""

    ATTEMPT = "attempt"  # our code raised in the actor, which lives: the attempt failed
    PROCESS = "process"  # the actor's process ended. The node table tells who is to blame
    PREEMPTED = "preempted"  # its node was taken away on notice: nobody is to blame
    ACTOR = "actor"  # it, or its answer, cannot be had any more. Another one; no record is to blame
    DRIVER = "driver"  # Ray refuses this process: its token is not good any more


_PROCESS = (
    exceptions.RayActorError,
    exceptions.WorkerCrashedError,
    exceptions.OutOfMemoryError,  # of Ray's memory monitor, which chooses whom it ends
    exceptions.NodeDiedError,
    exceptions.LocalRayletDiedError,  # of the actor's node
    exceptions.AsyncioActorExit,
)
_ADVICE = {
    exceptions.OutOfMemoryError: "Ray's memory monitor ended the actor, since its node ran low on "
    "memory: let an actor have more of it (more CPUs by execution.cpus_per_actor, so that a node "
    "has fewer actors; fewer rollouts at once by execution.live_rollouts_per_actor), or end what "
    "else takes it there",
    exceptions.OutOfDiskError: "the disk of the actor's node is full: make room where Ray keeps "
    "its files (/tmp/ray, or ray start --temp-dir)",
    exceptions.RuntimeEnvSetupError: "Ray could not set up the job's runtime environment on the "
    "actor's node; its log is in /tmp/ray/session_latest/logs there",
}
_SHADOWED = re.compile(
    r"(?:No module named|cannot import name .{1,80} from) '(schemas|pipeline|jobs)[.']"
)
_KEPT = 300  # characters of Ray's own message


def loss_of(error: RayError) -> Loss:
    """What an error means that Ray answered with in the place of an actor's answer."""
    if isinstance(error, RayTaskError):  # also if what was raised in the actor is Ray's
        return Loss.ATTEMPT
    if isinstance(error, RayActorError) and getattr(error, "_preempted", False):
        return Loss.PREEMPTED
    if isinstance(error, exceptions.AuthenticationError):
        return Loss.DRIVER
    return Loss.PROCESS if isinstance(error, _PROCESS) else Loss.ACTOR


def may_live(error: RayError) -> bool:
    """Whether the actor's process may live on, unheard, and keep what it holds."""
    is_unheard = isinstance(error, exceptions.ActorUnavailableError)
    return is_unheard or loss_of(error) is Loss.ACTOR


def told(error: RayError) -> str:
    """An error in one line: what is to be done about it if we know, and Ray's own words."""
    advice = next((text for kind, text in _ADVICE.items() if isinstance(error, kind)), "")
    try:
        said = " ".join(str(error).split())
    except Exception:  # some of Ray's cannot be printed when they come without their details
        said = ""
    if match := _SHADOWED.search(said):
        advice = (
            f"another package named {match[1]!r} is in the way on the worker's node: look for it "
            "in the folder in which the command was started and in PYTHONPATH there"
        )
    said = said if len(said) <= _KEPT else said[: _KEPT - 3] + "..."
    name = type(error).__name__
    return f"{advice} ({name}: {said})" if advice else f"{name}: {said}"
