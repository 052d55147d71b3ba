"""Work on a cluster comes back in order, once, and what goes wrong is told as itself."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from jobs.cluster.spread import on_cluster
from schemas.errors import FatalFailure, InputError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


def scaled(factor: int, number: int) -> int:
    return factor * number


def refused(number: int) -> int:
    raise InputError(f"{number} cannot be used")


def hopeless(number: int) -> int:
    raise FatalFailure(f"{number} is hopeless", reason="some_reason")


def killed_once(folder: Path, number: int) -> int:
    """The first process that is given a number dies of it."""
    mark = folder / str(number)
    if not mark.exists():
        mark.touch()
        os._exit(1)
    return number


def test_results_come_in_order_and_work_is_asked_for_as_it_can_be_done():
    asked: list[int] = []

    def work() -> Iterator[int]:
        for number in range(20):
            asked.append(number)
            yield number

    results = on_cluster(2)(partial(scaled, 3), work())

    assert next(results) == 0
    assert len(asked) <= 2 * 2 + 1
    assert list(results) == [3 * number for number in range(1, 20)]
    assert list(on_cluster(4)(partial(scaled, 3), [])) == []


@pytest.mark.parametrize("function", [refused, hopeless])
def test_what_a_task_raises_is_raised_as_it_is(function: "partial[int]"):
    with pytest.raises((InputError, FatalFailure), match=r"^7 ") as raised:
        list(on_cluster(1)(function, [7]))
    assert type(raised.value) in (InputError, FatalFailure)
    assert getattr(raised.value, "reason", "some_reason") == "some_reason"


def test_a_task_whose_process_dies_is_done_again(tmp_path: Path):
    assert list(on_cluster(2)(partial(killed_once, tmp_path), [1, 2])) == [1, 2]
