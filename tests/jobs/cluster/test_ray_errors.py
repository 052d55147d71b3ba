"""What each error of Ray's becomes. A new one in Ray is an actor that is lost."""

from collections.abc import Iterator

import pytest
from ray import exceptions
from ray.exceptions import RayError

from jobs.cluster.ray_errors import Loss, loss_of, told

EXPECTED = {
    "RayTaskError": Loss.ATTEMPT,
    "RayActorError": Loss.PROCESS,
    "ActorDiedError": Loss.PROCESS,
    "ActorUnavailableError": Loss.PROCESS,
    "WorkerCrashedError": Loss.PROCESS,
    "OutOfMemoryError": Loss.PROCESS,
    "NodeDiedError": Loss.PROCESS,
    "AsyncioActorExit": Loss.PROCESS,
    "LocalRayletDiedError": Loss.PROCESS,
    "AuthenticationError": Loss.DRIVER,
}


def _all_below(kind: type[RayError]) -> Iterator[type[RayError]]:
    for below in kind.__subclasses__():
        yield below
        yield from _all_below(below)


KINDS = sorted(
    {kind for kind in (RayError, *_all_below(RayError)) if kind.__module__ == "ray.exceptions"},
    key=lambda kind: kind.__name__,
)


def _bare(kind: type[RayError]) -> RayError:
    """An error without its details, which only Ray's C++ can fill in for some."""
    return kind.__new__(kind)


def test_the_table_names_only_errors_that_there_are():
    assert EXPECTED.keys() <= {kind.__name__ for kind in KINDS}
    assert len(KINDS) >= 40


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_of_ray_is_a_loss_and_one_line(kind: type[RayError]):
    error = _bare(kind)

    assert loss_of(error) is EXPECTED.get(kind.__name__, Loss.ACTOR)
    assert kind.__name__ in told(error)
    assert "\n" not in told(error)


def test_an_error_that_ray_does_not_have_yet_costs_an_actor_and_no_driver():
    class NewerError(RayError):
        pass

    assert loss_of(NewerError("a\nb")) is Loss.ACTOR
    assert told(NewerError("a\nb")) == "NewerError: a b"


def test_a_preempted_node_is_nobodys_fault():
    assert loss_of(exceptions.RayActorError(preempted=True)) is Loss.PREEMPTED
    assert loss_of(exceptions.RayActorError()) is Loss.PROCESS


def test_what_was_raised_in_an_actor_is_the_attempts_failure_also_if_it_is_rays():
    cause = exceptions.OutOfDiskError("full")
    error = exceptions.RayTaskError("run_shard", "a traceback", cause)

    assert loss_of(error) is Loss.ATTEMPT
    assert loss_of(error.as_instanceof_cause()) is Loss.ATTEMPT


def test_the_memory_monitor_comes_with_advice():
    line = told(exceptions.OutOfMemoryError("Memory on the node was low\n" + 900 * "x"))

    assert "execution.cpus_per_actor" in line
    assert "Memory on the node was low" in line
    assert len(line) < 700
