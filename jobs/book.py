"""Which shards are still to be grown: the driver's whole memory of a run, and none of its truth.

The truth is on storage. This book saves work: it hands out each shard that is not known to be
committed, takes back what failed, and gives up on what fails too often. One byte a shard.
"""

import uuid
from collections import Counter, deque
from collections.abc import Iterable
from enum import IntEnum

from schemas.config import ExecutionConfig
from schemas.errors import FailureKind
from schemas.runs import Assignment


class ShardState(IntEnum):
    """Where a shard stands for this driver."""

    WAITING = 0
    TAKEN = 1
    DONE = 2
    GIVEN_UP = 3


class ShardBook:
    """Hands out shards in order, failed ones again after the others."""

    def __init__(
        self, num_shards: int, committed: Iterable[int], execution: ExecutionConfig
    ) -> None:
        self._states = bytearray(num_shards)
        self._next = 0
        self._again: deque[int] = deque()
        self._failures: dict[int, Counter[FailureKind]] = {}  # only of shards that failed
        self._budgets = {
            FailureKind.TASK: execution.max_shard_attempts,
            FailureKind.INFRASTRUCTURE: execution.max_shard_infrastructure_failures,
        }
        self.given_up: dict[int, str] = {}  # the last message, by shard
        for shard in committed:
            self._states[shard] = ShardState.DONE

    def count(self, state: ShardState) -> int:
        return self._states.count(state)

    def take(self) -> Assignment | None:
        """The next shard to grow; None if none waits."""
        while self._next < len(self._states):
            shard, self._next = self._next, self._next + 1
            if self._states[shard] == ShardState.WAITING:
                return self._assign(shard)
        return self._assign(self._again.popleft()) if self._again else None

    def done(self, shard: int) -> None:
        """The shard is committed, by whomever."""
        self._states[shard] = ShardState.DONE

    def failed(self, shard: int, kind: FailureKind, message: str) -> None:
        """Give a shard back. Task and infrastructure failures have a budget each."""
        failures = self._failures.setdefault(shard, Counter())
        failures[kind] += 1
        if failures[kind] >= self._budgets.get(kind, 1):
            self._states[shard] = ShardState.GIVEN_UP
            self.given_up[shard] = message
        else:
            self._states[shard] = ShardState.WAITING
            self._again.append(shard)

    def _assign(self, shard: int) -> Assignment:
        self._states[shard] = ShardState.TAKEN
        attempt = 1 + self._failures.get(shard, Counter()).total()
        return Assignment(shard=shard, attempt=attempt, attempt_id=uuid.uuid4().hex)
