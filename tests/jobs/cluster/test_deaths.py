"""Whom a driver blames for a process that died, and when it stops blaming records."""

import pytest

from jobs.cluster.deaths import MAX_DEATHS_IN_A_ROW, Deaths
from jobs.cluster.shard_book import ShardBook, ShardState
from schemas.config import ExecutionConfig
from schemas.errors import TooManyDead
from tests.pipeline.store.test_objects import FakeTime

EXECUTION = ExecutionConfig(max_shard_attempts=2, max_shard_infrastructure_failures=9)


def book_of_two() -> ShardBook:
    """Two shards of 8 rollouts, both handed out."""
    book = ShardBook(2, [], EXECUTION, lambda shard: 8)
    book.take()
    book.take()
    return book


def kill(deaths: Deaths, book: ShardBook, time: FakeTime, node_id: str, *shards: int) -> None:
    """A process dies, and is judged as soon as that is done."""
    deaths.add(node_id, shards, "killed")
    time.now += 30
    deaths.judge(book)


def deaths_on(nodes: set[str], time: FakeTime) -> Deaths:
    return Deaths(node_check_seconds=30, living_nodes=lambda: nodes, clock=time.clock)


def test_two_deaths_on_a_living_node_cast_suspicion_on_what_was_in_hand():
    time, book = FakeTime(), book_of_two()
    deaths = deaths_on({"node-1"}, time)

    kill(deaths, book, time, "node-1", 0, 1)
    assert [book.take().suspects, book.take().suspects] == [None, None]
    kill(deaths, book, time, "node-1", 0)

    assert book.take().suspects == (0, 4)


@pytest.mark.parametrize("node_id", ["node-2", ""])
def test_a_lost_node_or_one_that_was_never_told_casts_no_suspicion(node_id: str):
    time, book = FakeTime(), book_of_two()
    deaths = deaths_on({"node-1"}, time)

    for _ in range(3):
        kill(deaths, book, time, node_id, 0)
        assert book.take().suspects is None


def test_a_death_is_judged_when_the_node_table_had_time_to_notice():
    time, book, nodes = FakeTime(), book_of_two(), {"node-1"}
    deaths = deaths_on(nodes, time)
    deaths.add("node-1", [0], "killed")

    time.now += 29
    deaths.judge(book)
    assert book.count(ShardState.WAITING) == 0

    nodes.clear()
    time.now += 1
    deaths.judge(book)
    deaths.judge(book)
    assert book.count(ShardState.WAITING) == 1


def test_so_many_deaths_without_a_commit_between_them_are_no_records_fault():
    deaths = deaths_on({"node-1"}, FakeTime())

    for _ in range(MAX_DEATHS_IN_A_ROW - 1):
        deaths.add("node-1", [0], "killed")
    deaths.break_row()
    for _ in range(MAX_DEATHS_IN_A_ROW - 1):
        deaths.add("node-1", [0], "killed")
    with pytest.raises(TooManyDead, match=r"20 actors died .* the last one: out of memory"):
        deaths.add("node-1", [0], "out of memory")
