"""Work spread over processes of this machine, its results in the order of the work."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

Work = TypeVar("Work")
Result = TypeVar("Result")

_AHEAD = 2  # results a worker that wait for their turn: they are in memory


def ordered_map(
    function: Callable[[Work], Result], work: Sequence[Work], num_workers: int
) -> Iterator[Result]:
    """What the function returns for each piece of work, in order, whoever is done first.

    With several workers the function, the work and the results are pickled. What the function
    raises is raised here, when its turn comes.
    """
    if num_workers == 1 or len(work) < 2:
        yield from map(function, work)
        return
    waiting: deque[Future[Result]] = deque()
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        for piece in work:
            waiting.append(pool.submit(function, piece))
            if len(waiting) >= _AHEAD * num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
