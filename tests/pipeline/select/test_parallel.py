"""Work spread over processes: its results come in the order of the work."""

from collections.abc import Iterator

import pytest

from pipeline.select.parallel import ordered_map


def countdown(number: int) -> int:
    """The number, after work that is longer for a larger one."""
    for _ in range(number):
        pass
    return number


def test_results_come_in_the_order_of_the_work_whoever_is_done_first():
    work = [3_000_000, *range(9, 0, -1)]

    assert list(ordered_map(countdown, work, num_workers=2)) == work
    assert list(ordered_map(countdown, work, num_workers=1)) == work


def test_without_work_no_process_is_started():
    assert list(ordered_map(countdown, [], num_workers=8)) == []


def test_one_worker_does_a_piece_when_its_result_is_asked_for():
    done: list[int] = []
    results: Iterator[None] = ordered_map(done.append, [1, 2, 3], num_workers=1)

    next(results)
    assert done == [1]


def reciprocal(number: int) -> float:
    return 1 / number


@pytest.mark.parametrize("num_workers", [1, 2])
def test_what_goes_wrong_is_raised_in_its_turn(num_workers: int):
    results = ordered_map(reciprocal, [1, 2, 0, 4], num_workers)

    assert [next(results), next(results)] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)
