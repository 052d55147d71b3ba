"""Work spread over the workers of a Ray cluster, as `pipeline.select.parallel.Spread` says.

A task is tried again if the process or the node under it goes away; it puts the same objects again.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeAlias

import ray
from ray.exceptions import RayTaskError

from pipeline.select.parallel import AHEAD, Result, Spread, Work
from pipeline.store.objects import repeat
from schemas.errors import CoppiceError, InfrastructureFailure, StoreUnavailable

_RETRIES = 5  # of one piece of work
_PATIENCE_SECONDS = 600.0  # with a store that is away

Task: TypeAlias = Any
"""Ray's handle of a function, of which it loses the types."""


def on_cluster(num_workers: int) -> Spread:
    """Spread over so many CPUs of the cluster that this process has joined."""
    return partial(_map_on_ray, num_workers=num_workers)


def _map_on_ray(
    function: Callable[[Work], Result], work: Iterable[Work], num_workers: int = 1
) -> Iterator[Result]:
    """As a `Spread`. The function travels once, with all that is bound to it."""
    shared = ray.put(function)
    task: Task = ray.remote(num_cpus=1, max_retries=_RETRIES)(_call)
    waiting: deque[ray.ObjectRef[Result]] = deque()
    running: list[ray.ObjectRef[Result]] = []
    for piece in work:
        if len(running) >= num_workers:
            _, running = ray.wait(running, num_returns=1, fetch_local=False)
        waiting.append(task.remote(shared, piece))
        running.append(waiting[-1])
        if len(waiting) >= AHEAD * num_workers:
            yield _result(waiting.popleft())
    while waiting:
        yield _result(waiting.popleft())


def _call(function: Callable[[Work], Result], piece: Work) -> Result:
    """Do a piece of work, and again while the store is away: all of it may be done twice."""
    return repeat(
        lambda: function(piece), patience_seconds=_PATIENCE_SECONDS, waits_for=(StoreUnavailable,)
    )


def _result(reference: "ray.ObjectRef[Result]") -> Result:
    """What a task returned. Raises what it raised, and not what Ray makes of it."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, CoppiceError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        told = str(error).strip().partition("\n")[0]
        raise InfrastructureFailure(
            f"a worker died {_RETRIES + 1} times over one piece of work ({told}); start the same "
            "command again, which goes on where this one ended, with fewer --workers if memory "
            "ran out",
            reason="worker_died",
        ) from error
