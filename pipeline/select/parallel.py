"""Work spread over workers, its results in the order of the work: here over processes of this
machine, and by whoever has a cluster in a way of its own.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from itertools import chain, islice
from multiprocessing import get_context
from typing import Protocol, TypeVar

Work = TypeVar("Work")
Result = TypeVar("Result")

AHEAD = 2
"""Results a worker that wait for their turn: they are in memory."""


class Spread(Protocol):
    """How work is spread. The function, the work and the results may be pickled."""

    def __call__(
        self, function: Callable[[Work], Result], work: Iterable[Work]
    ) -> Iterator[Result]:
        """What the function returns for each piece of work, in order, whoever is done first.

        Work is asked for as workers come free, and at most `AHEAD` results a worker wait. What the
        function raises is raised here, when its turn comes.
        """


def in_processes(num_workers: int) -> Spread:
    """Spread over so many processes of this machine; 1: this very process."""
    return partial(ordered_map, num_workers=num_workers)


def ordered_map(
    function: Callable[[Work], Result], work: Iterable[Work], num_workers: int = 1
) -> Iterator[Result]:
    """As a `Spread`: over processes, or in this one if there is one worker or one piece of work."""
    pieces = iter(work)
    first = list(islice(pieces, 2))
    if num_workers == 1 or len(first) < 2:
        yield from map(function, chain(first, pieces))
        return
    waiting: deque[Future[Result]] = deque()
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        for piece in chain(first, pieces):
            waiting.append(pool.submit(function, piece))
            if len(waiting) >= AHEAD * num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
