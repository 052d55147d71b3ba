"""Which replica of an endpoint is asked: a rollout's own while it is well, or the least loaded."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_ROLLOUTS_REMEMBERED = 65536
_DOWN_SECONDS = 5.0  # for how long one that did not answer is passed over


@dataclass(slots=True, eq=False)
class Replica:
    """One server of an endpoint, and how it is doing."""

    url: str
    num_in_flight: int = 0
    down_until: float = 0.0  # on the router's clock


class Router:
    """Chooses among replicas. Used by one thread."""

    def __init__(self, urls: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._replicas = [Replica(url) for url in urls]
        self._clock = clock
        self._replica_of: OrderedDict[str, Replica] = OrderedDict()

    def choose(self, rollout: str) -> Replica:
        """The replica for a request of this rollout; empty: of none."""
        now = self._clock()
        up = [replica for replica in self._replicas if replica.down_until <= now]
        own = self._replica_of.get(rollout)
        if own is not None and (own in up or not up):
            return own
        chosen = min(up or self._replicas, key=lambda replica: replica.num_in_flight)
        if rollout:
            self._replica_of[rollout] = chosen
            while len(self._replica_of) > _ROLLOUTS_REMEMBERED:
                self._replica_of.popitem(last=False)
        return chosen

    def passed_over(self, replica: Replica) -> None:
        """It did not answer: others are asked for a while."""
        replica.down_until = self._clock() + _DOWN_SECONDS
