"""What becomes of every row, where that depends on others: groups, duplicates, the best, the mix.

Nothing depends on how the work was spread: ties are broken by lot, and the lot of a row follows
from its name and the recipe's seed. Larger mixes hold the rows of smaller ones.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.select.columns import REFLECT, Flags, Floats, Ints
from pipeline.select.shard_candidates import (
    TASK_OF_GROUP,
    Job,
    Keys,
    Part,
    is_of_role,
    task_name,
)
from schemas.errors import InputError
from schemas.recipes import Mix, Pairs, PerPrompt, covers


@dataclass(kw_only=True, slots=True)
class Candidates:
    """All rows of all parts, one after the other. `trace` counts through all parts."""

    run: Ints  # of each trace: which run
    record: Keys
    category: Ints
    categories: list[str]
    rank: Floats
    hash: Keys
    has_hash: Flags
    trace: Ints
    task: Ints
    event: Ints
    reason: Ints
    value: Floats
    order: Keys
    is_revise: Flags
    partner: Ints  # of a kept best trace: the worst one; of others -1
    advantage: Floats  # of each trace; NaN outside of groups
    group_size: Ints  # of each trace
    first_trace: Ints  # of each part, and the end
    first_row: Ints
    reasons: tuple[str, ...]

    def drop(self, is_bad: Flags, reason: str) -> None:
        """Leave out those rows that are bad and not left out already."""
        self.reason[is_bad & (self.reason == 0)] = self.reasons.index(reason)

    @property
    def is_kept(self) -> Flags:
        kept: Flags = self.reason == 0
        return kept


def gather(parts: Sequence[Part], runs: Sequence[int], job: Job) -> Candidates:
    """The parts as one. `runs` says which run each part is of."""
    categories = sorted({name for part in parts for name in part.categories})
    places = {name: place for place, name in enumerate(categories)}
    lengths = [len(part.position) for part in parts]
    first_trace = np.cumsum([0, *lengths])
    num_traces = int(first_trace[-1])
    return Candidates(
        run=np.repeat(np.array(runs, np.int32), lengths),
        record=np.concatenate([part.record for part in parts]),
        category=np.concatenate(
            [np.array([places[n] for n in part.categories], int)[part.category] for part in parts]
        ).astype(np.int32),
        categories=categories,
        rank=np.concatenate([part.rank for part in parts]),
        hash=np.concatenate([part.hash for part in parts]),
        has_hash=np.concatenate([part.has_hash for part in parts]),
        trace=np.concatenate(
            [part.trace + start for part, start in zip(parts, first_trace, strict=False)]
        ).astype(np.int32),
        task=np.concatenate([part.task for part in parts]).astype(np.int16),
        event=np.concatenate([part.event for part in parts]).astype(np.int16),
        reason=np.concatenate([part.reason for part in parts]).astype(np.int8),
        value=np.concatenate([part.value for part in parts]).astype(np.float32),
        order=np.concatenate([part.order for part in parts]),
        is_revise=np.concatenate([part.is_revise for part in parts]),
        partner=np.full(num_traces, -1, np.int32),
        advantage=np.full(num_traces, np.nan, np.float32),
        group_size=np.ones(num_traces, np.int32),
        first_trace=first_trace,
        first_row=np.cumsum([0, *(len(part.trace) for part in parts)]),
        reasons=job.reasons,
    )


def decide(found: Candidates, job: Job, group_sizes: Sequence[int]) -> None:
    """Leave out what does not fit beside the others. `group_sizes` are the rollouts a record has in
    each run. Raises InputError for a mix that the rows left cannot fill.
    """
    recipe = job.recipe
    if recipe.groups is not None:
        _whole_groups(found, group_sizes, drop_alike=recipe.groups.drop_zero_variance)
    if recipe.pairs is not None:
        _best_and_worst(found, recipe.pairs)
    if recipe.per_prompt is not None:
        _best_of_prompts(found, recipe.per_prompt)
    if recipe.agreement is not None and recipe.agreement.balance:
        _balance(found)
    if recipe.mix is not None:
        _mix(found, recipe.mix)


def validation_records(records: Keys, seed: int, share: float) -> Flags:
    """Which of these records are set aside: by lot, whatever else there is."""
    distinct, place = np.unique(records, return_inverse=True)
    lots = (
        hashlib.sha256(f"{seed}|split|{record:016x}".encode()).digest()[:8]
        for record in distinct.tolist()
    )
    drawn = np.frombuffer(b"".join(lots), ">u8").astype(np.uint64)
    chosen: Flags = (drawn < np.uint64(int(share * 2.0**64)))[place]
    return chosen


def _whole_groups(found: Candidates, group_sizes: Sequence[int], *, drop_alike: bool) -> None:
    """Groups are whole or not at all; each member is told how it fares among them."""
    is_kept = np.zeros(len(found.record), np.bool_)
    is_kept[found.trace[found.is_kept]] = True
    is_whole, is_alike = np.zeros(len(is_kept), np.bool_), np.zeros(len(is_kept), np.bool_)
    for members in _groups(found, by_run=True):
        size = group_sizes[int(found.run[members[0]])]
        is_whole[members] = len(members) == size and bool(is_kept[members].all())
        rewards = found.rank[members]
        known = rewards[~np.isnan(rewards)]
        deviation = float(known.std()) if len(known) else 0.0
        is_alike[members] = deviation == 0
        found.group_size[members] = len(members)
        if len(known):
            found.advantage[members] = (rewards - known.mean()) / (deviation + 1e-4)
    found.drop(~is_whole[found.trace], "incomplete_group")
    if drop_alike:
        found.drop(is_alike[found.trace], "zero_variance")


def _best_and_worst(found: Candidates, pairs: Pairs) -> None:
    """Of the traces of a prompt, the best and the worst make a pair if they are far enough apart.

    Both are kept as rows; the best one names the other.
    """
    is_group = found.task == TASK_OF_GROUP
    rows = np.full(len(found.record), -1)
    rows[found.trace[is_group]] = np.flatnonzero(is_group)
    is_extreme, is_near = np.zeros(len(found.trace), np.bool_), np.zeros(len(found.trace), np.bool_)
    for members in _groups(found, by_run=True):
        fit = [
            trace
            for trace in members.tolist()
            if rows[trace] >= 0
            and found.reason[rows[trace]] == 0
            and not np.isnan(found.rank[trace])
        ]
        if len(fit) < 2:
            continue
        fit.sort(key=lambda trace: (-found.rank[trace], found.order[rows[trace]]))
        best, worst = fit[0], fit[-1]
        margin = found.rank[best] - found.rank[worst]
        is_extreme[rows[[best, worst]]] = True
        if margin > 0 and margin >= pairs.min_margin:
            found.partner[best] = worst
        else:
            is_near[rows[[best, worst]]] = True
    found.drop(is_group & ~is_extreme, "not_extreme")
    found.drop(is_near, "no_margin")


def _best_of_prompts(found: Candidates, rule: PerPrompt) -> None:
    """Of each prompt, over all runs: the best traces first, none too like one that stays."""
    is_alive = np.zeros(len(found.record), np.bool_)
    is_alive[found.trace[found.is_kept]] = True
    lot = np.full(len(found.record), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(lot, found.trace, found.order)
    is_alike, is_worse = np.zeros(len(is_alive), np.bool_), np.zeros(len(is_alive), np.bool_)
    for members in _groups(found, by_run=False):
        fit = members[is_alive[members]]
        ranks = np.nan_to_num(found.rank[fit], nan=-np.inf)
        kept: list[int] = []
        for trace in fit[np.lexsort((lot[fit], -ranks))].tolist():
            if _is_like(found, trace, kept, rule.min_distance):
                is_alike[trace] = True
            elif rule.keep is not None and len(kept) >= rule.keep:
                is_worse[trace] = True
            else:
                kept.append(trace)
    found.drop(is_alike[found.trace], "near_duplicate")
    found.drop(is_worse[found.trace], "not_best")


def _is_like(found: Candidates, trace: int, kept: Sequence[int], min_distance: int) -> bool:
    if not min_distance or not found.has_hash[trace]:
        return False
    own = int(found.hash[trace])
    return any(
        found.has_hash[other] and (own ^ int(found.hash[other])).bit_count() < min_distance
        for other in kept
    )


def _groups(found: Candidates, *, by_run: bool) -> Iterator[Ints]:
    """The traces of each record, of each run by itself if asked for; in a fixed order."""
    run = found.run if by_run else np.zeros_like(found.run)
    order = np.lexsort((found.record, run))
    if not len(order):
        return
    is_new = (np.diff(found.record[order]) != 0) | (np.diff(run[order]) != 0)
    yield from np.split(order, np.flatnonzero(is_new) + 1)


def _balance(found: Candidates) -> None:
    """As many critiques that ask for a revision as critiques that accept."""
    is_critique = is_of_role(found.task, REFLECT)
    sides = [is_critique & found.is_kept & (found.is_revise == side) for side in (True, False)]
    num = min(int(side.sum()) for side in sides)
    for side in sides:
        _keep_lowest(found, np.flatnonzero(side), num, "unbalanced")


def _mix(found: Candidates, mix: Mix) -> None:
    numbers = np.unique(found.task).tolist()
    left = np.zeros(len(found.task), np.bool_)
    pools: dict[str, Ints] = {}
    for pool in mix.weights or mix.counts:
        tasks = [number for number in numbers if covers(pool, task_name(number))]
        is_member = np.isin(found.task, tasks)
        left |= is_member
        pools[pool] = np.flatnonzero(is_member & found.is_kept)
    for pool, num in _sizes(mix, {pool: len(rows) for pool, rows in pools.items()}).items():
        _keep_lowest(found, pools[pool], num, "beyond_mix")
    found.drop(~left, "beyond_mix")


def _sizes(mix: Mix, there: dict[str, int]) -> dict[str, int]:
    """How many rows each pool gives. Raises InputError where there are too few."""
    listed = ", ".join(f"{pool} {num:,}" for pool, num in there.items())
    if mix.counts:
        if any(there[pool] < num for pool, num in mix.counts.items()):
            wanted = ", ".join(f"{pool} {num:,}" for pool, num in mix.counts.items())
            raise InputError(
                f"the mix asks for {wanted} rows, and these are left: {listed}; ask for fewer, "
                "use weights instead of counts, loosen the filters, or grow more traces"
            )
        return mix.counts
    if not all(there.values()):
        raise InputError(
            f"the mix cannot be made, since a pool of it has no rows left: {listed}; loosen the "
            "filters, leave that pool out, or grow more traces (--dry-run shows what removed them)"
        )
    scale = min(there[pool] / weight for pool, weight in mix.weights.items())
    if mix.max_rows is not None:
        scale = min(scale, mix.max_rows / sum(mix.weights.values()))
    # A hair more than the quotient, so that a division does not take a row away.
    return {pool: int(scale * weight + 1e-9) for pool, weight in mix.weights.items()}


def _keep_lowest(found: Candidates, rows: Ints, num: int, reason: str) -> None:
    """Keep so many of these rows, by lot, and leave the others out."""
    by_lot = rows[np.argsort(found.order[rows], kind="stable")]
    is_bad = np.zeros(len(found.task), np.bool_)
    is_bad[by_lot[num:]] = True
    found.drop(is_bad, reason)
