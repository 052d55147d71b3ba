"""Which shards a driver hands out, and when it gives one up."""

from hypothesis import given
from hypothesis import strategies as st

from jobs.cluster.shard_book import ShardBook, ShardState
from schemas.config import ExecutionConfig
from schemas.errors import FailureKind

EXECUTION = ExecutionConfig(max_shard_attempts=2, max_shard_infrastructure_failures=3)


def _take_all(book: ShardBook) -> list[int]:
    taken = []
    while (turn := book.take()) is not None:
        taken.append(turn.attempt.shard)
    return taken


def test_committed_shards_are_not_handed_out():
    book = ShardBook(5, [0, 3], EXECUTION, lambda shard: 8)

    assert _take_all(book) == [1, 2, 4]
    assert book.count(ShardState.DONE) == 2


def test_a_failed_shard_comes_again_after_the_others_as_another_attempt():
    book = ShardBook(3, [], EXECUTION, lambda shard: 8)
    first = book.take()
    assert first is not None
    book.failed(first.attempt.shard, FailureKind.TASK, "it broke")

    assert _take_all(book) == [1, 2, 0]


def test_each_attempt_has_a_number_and_an_id_of_its_own():
    book = ShardBook(1, [], EXECUTION, lambda shard: 8)
    first = book.take()
    assert first is not None
    book.failed(0, FailureKind.TASK, "it broke")
    second = book.take()

    assert second is not None
    assert (first.attempt.number, second.attempt.number) == (1, 2)
    assert first.attempt.attempt_id != second.attempt.attempt_id


def test_task_and_infrastructure_failures_have_a_budget_each():
    book = ShardBook(1, [], EXECUTION, lambda shard: 8)
    for _ in range(2):
        book.take()
        book.failed(0, FailureKind.INFRASTRUCTURE, "node lost")
    book.take()
    book.failed(0, FailureKind.TASK, "it broke")
    assert book.count(ShardState.WAITING) == 1

    book.take()
    book.failed(0, FailureKind.TASK, "it broke again")

    assert book.take() is None
    assert book.given_up == {0: "it broke again"}


def test_a_shard_that_another_driver_committed_is_done():
    book = ShardBook(2, [], EXECUTION, lambda shard: 8)
    book.take()
    book.done(0)
    book.done(1)

    assert book.take() is None
    assert book.count(ShardState.DONE) == 2


# Deaths


def _hunt(size: int, poison: set[int]) -> tuple[ShardBook, list[tuple[int, int] | None]]:
    """A book of one shard, after all attempts at it; a process with a poisonous rollout dies."""
    book = ShardBook(1, [], EXECUTION, lambda shard: size)
    attempts = []
    while (turn := book.take()) is not None:
        attempts.append(turn.suspects)
        start, stop = turn.suspects or (0, size)
        if poison & set(range(start, stop)) - turn.attempt.crashed.keys():
            book.died(0, "killed")
        elif turn.suspects:
            book.survived(0)
        else:
            book.done(0)
            assert turn.attempt.crashed.keys() == poison
    return book, attempts


def test_a_process_that_dies_once_convicts_nothing():
    book = ShardBook(2, [], EXECUTION, lambda shard: 8)
    first, _ = book.take(), book.take()
    assert not first.attempt.is_alone
    book.died(first.attempt.shard, "killed")
    again = book.take()

    assert (again.attempt.shard, again.attempt.is_alone) == (0, True)
    assert (again.suspects, again.attempt.crashed) == (None, {})


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_halving_finds_exactly_the_rollouts_that_kill(case: tuple[int, set[int]]):
    size, poison = case
    book, _ = _hunt(size, poison)

    assert book.count(ShardState.DONE) == 1


def test_one_poisonous_rollout_among_many_costs_few_attempts():
    _, attempts = _hunt(256, {200})

    assert len(attempts) <= 2 + 8 * 2 + 2 + 1


def test_a_rollout_is_convicted_only_by_two_deaths_alone():
    _, attempts = _hunt(4, {2})

    assert attempts.count((2, 3)) == 2


def test_a_failed_shard_waits_for_a_free_actor():
    book = ShardBook(2, [], EXECUTION, lambda shard: 8)
    book.died(book.take().attempt.shard, "killed")

    assert book.take(is_free=False).attempt.shard == 1
    assert book.take(is_free=False) is None
    assert book.take().attempt.shard == 0


def test_deaths_whose_cause_is_elsewhere_end_with_the_budget():
    book = ShardBook(1, [], EXECUTION, lambda shard: 1)
    for _ in range(2):
        book.take()
        book.died(0, "killed")  # then probes
    while book.take().suspects:
        book.survived(0)
    book.died(0, "killed")

    assert book.given_up == {0: "killed"}
