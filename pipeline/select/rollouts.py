"""How many rollouts a record has: planned, over all parts of a plan, and dead for good.

A *key* is a record and the index of its rollout. Keys come as two arrays [keys], records and
indices; the same key may come more than once, as it does of one that died and was brought back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.select.columns import Flags, Ints, Keys
from pipeline.select.decide import Candidates, Endings
from pipeline.select.shard_candidates import ShardTraces
from pipeline.store.plans import read_plan_shard
from pipeline.store.runs import RunSource

_OK, _DEAD, _OPEN = range(3)  # what became of a key; of one that comes more than once the least


class _KeyArrays(NamedTuple):
    """Keys of one run, and what became of them. Arrays [keys]."""

    record: Keys
    rollout: Ints
    state: Ints


@dataclass(frozen=True, kw_only=True, slots=True)
class RunKeys:
    """What the objects of one run say of its rollouts. Arrays [ok] and [dead]."""

    ok_record: Keys
    ok_rollout: Ints
    dead_record: Keys
    dead_rollout: Ints

    @classmethod
    def of(cls, shards: Sequence[ShardTraces]) -> "RunKeys":
        """Those of all objects of a run: at least one."""
        return cls(
            ok_record=np.concatenate([shard.record for shard in shards]),
            ok_rollout=np.concatenate([shard.rollout for shard in shards]),
            dead_record=np.concatenate([shard.dead_record for shard in shards]),
            dead_rollout=np.concatenate([shard.dead_rollout for shard in shards]),
        )

    def num_dead(self) -> int:
        """How many rollouts are dead and were never brought back."""
        is_near = np.isin(self.ok_record, self.dead_record)
        _, _, state = _distinct(self._keys(self.ok_record[is_near], self.ok_rollout[is_near]))
        return int((state == _DEAD).sum())

    def endings(self, wanted: Keys, open_keys: Sequence[tuple[int, int]]) -> tuple[Flags, Ints]:
        """Of each wanted record [n] whether all that was planned of it ended, and how much of it
        is dead. `open_keys` are planned in shards that are not there.
        """
        ended = self._keys(self.ok_record, self.ok_rollout)
        record, _, state = _distinct(
            _KeyArrays(
                np.concatenate([ended.record, np.array([key for key, _ in open_keys], np.uint64)]),
                np.concatenate([ended.rollout, np.array([key for _, key in open_keys], np.int64)]),
                np.concatenate([ended.state, np.full(len(open_keys), _OPEN)]),
            )
        )
        records, inverse = np.unique(record, return_inverse=True)
        num_open = np.bincount(inverse[state == _OPEN], minlength=len(records))
        num_dead = np.bincount(inverse[state == _DEAD], minlength=len(records))
        own = np.searchsorted(records, wanted)
        return num_open[own] == 0, num_dead[own]

    def _keys(self, ok_record: Keys, ok_rollout: Ints) -> _KeyArrays:
        """Some of the ok keys, and all the dead ones."""
        return _KeyArrays(
            np.concatenate([ok_record, self.dead_record]),
            np.concatenate([ok_rollout, self.dead_rollout]),
            np.repeat([_OK, _DEAD], [len(ok_record), len(self.dead_record)]),
        )


def endings_of(
    runs: Sequence[RunSource], keys: Sequence[RunKeys], candidates: Candidates
) -> Endings:
    """How the rollouts of each trace's record ended. Reads the plans of shards that are not there:
    those that are there hold every key that was planned for them.
    """
    is_whole, num_dead = np.ones(len(candidates.run), np.bool_), np.zeros(len(candidates.run), int)
    for run_index, (run, run_keys) in enumerate(zip(runs, keys, strict=True)):
        own = np.flatnonzero(candidates.run == run_index)
        is_whole[own], num_dead[own] = run_keys.endings(candidates.record[own], open_keys(run))
    return Endings(is_ended=is_whole, num_dead=num_dead)


def open_keys(run: RunSource) -> list[tuple[int, int]]:
    """The keys that were planned in shards that have no object: records as numbers, and indices."""
    committed = {source.shard for source in run.objects if not source.supplement}
    return [
        (int(record, 16), rollout)
        for shard in range(run.manifest.num_shards)
        if shard not in committed
        for row in read_plan_shard(run.store, run.manifest, shard)
        for record, rollout in row.rollout_keys()
    ]


def _distinct(keys: _KeyArrays) -> _KeyArrays:
    """Each key once, in order, with the best that became of it."""
    order = np.lexsort((keys.state, keys.rollout, keys.record))
    record, rollout, state = keys.record[order], keys.rollout[order], keys.state[order]
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = (np.diff(record) != 0) | (np.diff(rollout) != 0)
    return _KeyArrays(record[is_first], rollout[is_first], state[is_first])
