"""Work spread over processes of this machine, its results in the order of the work."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

T = TypeVar("T")

_AHEAD = 2  # results a worker that wait for their turn: they are in memory


def in_order(
    function: Callable[..., T], work: Sequence[tuple[Any, ...]], num_workers: int
) -> Iterator[T]:
    """What the function returns for each tuple of arguments, in order, whoever is done first."""
    if num_workers == 1 or len(work) < 2:
        yield from (function(*arguments) for arguments in work)
        return
    waiting: deque[Future[T]] = deque()
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        for arguments in work:
            waiting.append(pool.submit(function, *arguments))
            if len(waiting) >= _AHEAD * num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
