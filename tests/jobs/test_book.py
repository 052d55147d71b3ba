"""Which shards a driver hands out, and when it gives one up."""

from jobs.book import ShardBook, ShardState
from schemas.config import ExecutionConfig
from schemas.errors import FailureKind

EXECUTION = ExecutionConfig(max_shard_attempts=2, max_shard_infrastructure_failures=3)


def _take_all(book: ShardBook) -> list[int]:
    taken = []
    while (assignment := book.take()) is not None:
        taken.append(assignment.shard)
    return taken


def test_committed_shards_are_not_handed_out():
    book = ShardBook(5, [0, 3], EXECUTION)

    assert _take_all(book) == [1, 2, 4]
    assert book.count(ShardState.DONE) == 2


def test_a_failed_shard_comes_again_after_the_others_as_another_attempt():
    book = ShardBook(3, [], EXECUTION)
    first = book.take()
    assert first is not None
    book.failed(first.shard, FailureKind.TASK, "it broke")

    assert _take_all(book) == [1, 2, 0]


def test_each_attempt_has_a_number_and_an_id_of_its_own():
    book = ShardBook(1, [], EXECUTION)
    first = book.take()
    assert first is not None
    book.failed(0, FailureKind.TASK, "it broke")
    second = book.take()

    assert second is not None
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.attempt_id != second.attempt_id


def test_task_and_infrastructure_failures_have_a_budget_each():
    book = ShardBook(1, [], EXECUTION)
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
    book = ShardBook(2, [], EXECUTION)
    book.take()
    book.done(0)
    book.done(1)

    assert book.take() is None
    assert book.count(ShardState.DONE) == 2
