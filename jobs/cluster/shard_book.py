"""Which shards are still to be grown: the driver's whole memory of a run, and none of its truth.

The truth is on storage. This book saves work: it hands out each shard that is not known to be
committed, takes back what failed, and gives up on what fails too often. One byte a shard.

When the process that grows a shard dies on a node that lives, a record of that shard may be what
kills it. The shard is then tried alone; if that kills its process too, its rollouts are probed in
halves, and whatever kills two processes all by itself is given up on, and the rest is grown.
"""

import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum

from schemas.config import ExecutionConfig
from schemas.errors import FailureKind
from schemas.runs import Attempt

_DEATHS_ALONE = 2  # that convict a rollout


class ShardState(IntEnum):
    """Where a shard stands for this driver."""

    WAITING = 0
    TAKEN = 1
    DONE = 2
    GIVEN_UP = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """What is to be done with a shard next: all of it, or a probe of some of its rollouts."""

    attempt: Attempt
    suspects: tuple[int, int] | None = None  # positions to be probed, from and to


@dataclass(slots=True)
class _Case:
    """What is known of a shard that failed."""

    failures: Counter[FailureKind] = field(default_factory=Counter)
    num_attempts: int = 0
    num_deaths: int = 0
    probes: deque[tuple[int, int]] = field(default_factory=deque)  # still to be seen alive
    deaths_alone: Counter[int] = field(default_factory=Counter)
    crashed: dict[int, str] = field(default_factory=dict)

    def died(self, size: int, message: str) -> None:
        """Its process died. Narrow down which rollout did it."""
        self.num_deaths += 1
        if self.probes:
            start, stop = self.probes.popleft()
        elif self.num_deaths > 1:
            start, stop = 0, size
        else:
            return
        if stop - start > 1:
            middle = (start + stop) // 2
            self.probes.extendleft([(middle, stop), (start, middle)])
            return
        self.deaths_alone[start] += 1
        if self.deaths_alone[start] >= _DEATHS_ALONE:
            self.crashed[start] = message
        else:
            self.probes.appendleft((start, stop))


class ShardBook:
    """Hands out shards in order, failed ones again after the others."""

    def __init__(
        self,
        num_shards: int,
        done: Iterable[int],
        execution: ExecutionConfig,
        size_of: Callable[[int], int],
    ) -> None:
        self._states = bytearray(num_shards)
        self._next = 0
        self._again: deque[int] = deque()
        self._cases: dict[int, _Case] = {}  # only of shards that failed
        self._budgets = {
            FailureKind.TASK: execution.max_shard_attempts,
            FailureKind.INFRASTRUCTURE: execution.max_shard_infrastructure_failures,
        }
        self._size_of = size_of  # in rollouts
        self.given_up: dict[int, str] = {}  # the last message, by shard
        for shard in done:
            self._states[shard] = ShardState.DONE

    def count(self, state: ShardState) -> int:
        return self._states.count(state)

    @property
    def num_unsettled(self) -> int:
        """Shards that wait or are in hand."""
        return self.count(ShardState.WAITING) + self.count(ShardState.TAKEN)

    def take(self, *, is_free: bool = True) -> Turn | None:
        """The next shard to grow; None if none waits. One that failed only for a free actor."""
        while self._next < len(self._states):
            shard, self._next = self._next, self._next + 1
            if self._states[shard] == ShardState.WAITING:
                return self._assign(shard)
        return self._assign(self._again.popleft()) if self._again and is_free else None

    def done(self, shard: int) -> None:
        """The shard is committed, by whomever."""
        self._states[shard] = ShardState.DONE

    def survived(self, shard: int) -> None:
        """A process outlived the first probe."""
        self._cases[shard].probes.popleft()
        self._give_back(shard)

    def died(self, shard: int, message: str) -> None:
        """The shard's process died while its node lives, by a fault of its own or not."""
        case = self._cases.setdefault(shard, _Case())
        is_probing = bool(case.probes)
        case.died(self._size_of(shard), message)
        if is_probing:
            self._give_back(shard)
        else:
            self.failed(shard, FailureKind.INFRASTRUCTURE, message)

    def failed(self, shard: int, kind: FailureKind, message: str) -> None:
        """Give a shard back. Task and infrastructure failures have a budget each."""
        failures = self._cases.setdefault(shard, _Case()).failures
        failures[kind] += 1
        if failures[kind] >= self._budgets.get(kind, 1):
            self._states[shard] = ShardState.GIVEN_UP
            self.given_up[shard] = message
        else:
            self._give_back(shard)

    def hand_back(self, shard: int) -> None:
        """Its actor had to leave, by no fault of anybody: nothing is held against the shard."""
        self._give_back(shard)

    def _give_back(self, shard: int) -> None:
        self._states[shard] = ShardState.WAITING
        self._again.append(shard)

    def _assign(self, shard: int) -> Turn:
        self._states[shard] = ShardState.TAKEN
        case = self._cases.get(shard)
        if case is None:
            return Turn(attempt=Attempt(shard=shard, number=1, attempt_id=uuid.uuid4().hex))
        case.num_attempts += 1
        attempt = Attempt(
            shard=shard,
            number=1 + case.num_attempts,
            attempt_id=uuid.uuid4().hex,
            crashed=dict(case.crashed),
        )
        return Turn(attempt=attempt, suspects=case.probes[0] if case.probes else None)
