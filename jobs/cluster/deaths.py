"""Processes that died, and whether their own records or their nodes are to blame.

Ray's node table decides, some time after a death: exceptions do not tell, and a lost node is seen
by its processes' ends first.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from jobs.cluster.shard_book import ShardBook
from schemas.errors import FailureKind, TooManyDead

MAX_DEATHS_IN_A_ROW = 20
"""Actors that die without a commit or a survived probe between them: then it is not the records."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Death:
    node_id: str  # Ray's; empty: the actor had not said where it is
    shards: tuple[int, ...]  # that it had in hand
    message: str
    judged_at: float


class Deaths:
    """Deaths that are still to be judged."""

    def __init__(
        self,
        *,
        node_check_seconds: float,
        living_nodes: Callable[[], Collection[str]],
        clock: Callable[[], float],
    ) -> None:
        self._node_check_seconds = node_check_seconds
        self._living_nodes = living_nodes
        self._clock = clock
        self._waiting: list[_Death] = []
        self._num_in_a_row = 0

    def add(self, node_id: str, shards: Iterable[int], message: str) -> None:
        """A process died with these shards in hand. Raises TooManyDead for one too many."""
        self.count(message)
        self._waiting.append(
            _Death(
                node_id=node_id,
                shards=tuple(shards),
                message=message,
                judged_at=self._clock() + self._node_check_seconds,
            )
        )

    def count(self, message: str) -> None:
        """An actor was lost, and no record is to blame. Raises TooManyDead for one too many."""
        self._num_in_a_row += 1
        if self._num_in_a_row >= MAX_DEATHS_IN_A_ROW:
            raise TooManyDead(
                f"{self._num_in_a_row} actors died without a single commit between them; what is "
                f"committed stays, and the same command goes on; the last one: {message}"
            )

    def break_row(self) -> None:
        """A shard was committed, or a probe survived."""
        self._num_in_a_row = 0

    def judge(self, book: ShardBook) -> None:
        """Suspect the records of each process that died while its node lives, and of no other."""
        due = [death for death in self._waiting if death.judged_at <= self._clock()]
        if not due:
            return
        living = self._living_nodes()
        for death in due:
            self._waiting.remove(death)
            for shard in death.shards:
                if death.node_id in living:
                    book.died(shard, death.message)
                else:
                    message = f"its node was lost: {death.message}"
                    book.failed(shard, FailureKind.INFRASTRUCTURE, message)
