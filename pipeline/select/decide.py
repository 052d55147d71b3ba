"""What becomes of every row, where that depends on others: groups, duplicates, the best, the mix.

Nothing depends on how the work was spread: ties are broken by lot, and the lot of a row follows
from its name and the recipe's seed. Larger mixes hold the rows of smaller ones.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from pipeline.select.columns import REFLECT, ROLES, Flags, Floats, Ints, Keys
from pipeline.select.shard_candidates import (
    NOT_SCORED,
    TASK_OF_GROUP,
    ShardCandidates,
    is_of_role,
    task_name,
)
from schemas.errors import InputError
from schemas.recipe_names import covers
from schemas.recipes import Groups, Mix, Pairs, PerPrompt, Recipe

_CRITIQUES = ROLES[REFLECT].value


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidates:
    """All traces and all rows of all trace objects, one object after the other.

    A trace is an index into the arrays [traces], a row one into the arrays [rows]; both count
    through all objects. `decide` fills in `reason`, `partner` and what groups are told where they
    stand; all else stays as it was gathered.
    """

    run: npt.NDArray[np.int32]  # [traces]: index into the runs
    record: Keys  # [traces]: the record id's 16 hex digits as a number
    prompt: Keys  # [traces]: equal for prompts that are equal at L0 or L1
    category: npt.NDArray[np.int32]  # [traces]: index into `categories`
    categories: list[str]  # each once, sorted; empty: the metadata says none
    rank: Floats  # [traces]: the score or reward that traces are ranked by; NaN: none
    hash: Keys  # [traces]: of the picture; 0 where `has_hash` is False
    has_hash: Flags  # [traces]
    partner: npt.NDArray[np.int32]  # [traces]: of the best of a pair the worst; of others -1
    advantage: npt.NDArray[np.float32]  # [traces]: NaN without a reward, and outside of groups
    reward_mean: Floats  # [traces]: of its group; NaN as the advantage
    reward_std: Floats  # [traces]: of its group, with ddof 0
    num_rewards: npt.NDArray[np.int32]  # [traces]: in its group; 0 outside groups
    group_size: npt.NDArray[np.int32]  # [traces]: ok ones of its record and run; 1 outside groups
    trace: npt.NDArray[np.int32]  # [rows]: the trace that it would be made of
    task: npt.NDArray[np.int16]  # [rows]: see `task_name`
    event: npt.NDArray[np.int16]  # [rows]: index in its trace; WHOLE: of the whole trace
    reason: npt.NDArray[np.int16]  # [rows]: index into `reasons`; 0: kept
    value: npt.NDArray[np.float32]  # [rows]: what the column of that reason says; NaN: nothing
    lot: Keys  # [rows]: rows are taken from the lowest
    is_revise: Flags  # [rows]: whether it is a critique that asks for a revision
    first_trace: Ints  # [objects + 1] int64: the first trace of each object; last, their number
    first_row: Ints  # [objects + 1] int64: the first row of each object; last, their number
    reasons: tuple[str, ...]  # why rows are left out; the first is that they are kept

    def drop(self, is_bad: Flags, reason: str) -> None:
        """Leave out those rows that are bad [rows] and not left out already."""
        self.reason[is_bad & self.is_kept] = self.reasons.index(reason)

    @property
    def is_kept(self) -> Flags:
        """[rows]: whether nothing was said against it, so far."""
        is_kept: Flags = self.reason == 0
        return is_kept

    def has_kept_rows(self) -> Flags:
        """[traces]: whether any row of it is kept, so far."""
        has_kept = np.zeros(len(self.record), np.bool_)
        has_kept[self.trace[self.is_kept]] = True
        return has_kept


def gather(
    shards: Sequence[ShardCandidates], run_indices: Sequence[int], reasons: tuple[str, ...]
) -> Candidates:
    """Those of each trace object as one; nothing that depends on others is decided yet.

    `run_indices` say which run each object is of. `reasons` are those of the recipe that the rows
    were judged by. The arrays are copies.
    """
    traces, rows = [shard.traces for shard in shards], [shard.rows for shard in shards]
    categories = sorted({name for shard in traces for name in shard.categories})
    indices = {name: index for index, name in enumerate(categories)}
    num_traces = [len(shard.position) for shard in traces]
    first_trace = np.cumsum([0, *num_traces])
    own_categories = (
        np.array([indices[name] for name in shard.categories], np.int32)[shard.category]
        for shard in traces
    )
    return Candidates(
        run=np.repeat(np.array(run_indices, np.int32), num_traces),
        record=np.concatenate([shard.record for shard in traces]),
        prompt=np.concatenate([shard.prompt for shard in traces]),
        category=np.concatenate(list(own_categories)),
        categories=categories,
        rank=np.concatenate([shard.rank for shard in traces]),
        hash=np.concatenate([shard.hash for shard in traces]),
        has_hash=np.concatenate([shard.has_hash for shard in traces]),
        partner=np.full(first_trace[-1], -1, np.int32),
        advantage=np.full(first_trace[-1], np.nan, np.float32),
        reward_mean=np.full(first_trace[-1], np.nan),
        reward_std=np.full(first_trace[-1], np.nan),
        num_rewards=np.zeros(first_trace[-1], np.int32),
        group_size=np.ones(first_trace[-1], np.int32),
        trace=np.concatenate(
            [shard.trace + first for shard, first in zip(rows, first_trace, strict=False)]
        ).astype(np.int32),
        task=np.concatenate([shard.task for shard in rows]),
        event=np.concatenate([shard.event for shard in rows]),
        reason=np.concatenate([shard.reason for shard in rows]),
        value=np.concatenate([shard.value for shard in rows]),
        lot=np.concatenate([shard.lot for shard in rows]),
        is_revise=np.concatenate([shard.is_revise for shard in rows]),
        first_trace=first_trace,
        first_row=np.cumsum([0, *(len(shard.trace) for shard in rows)]),
        reasons=reasons,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Endings:
    """How all planned rollouts of each trace's record ended, in its run. Arrays [traces]."""

    is_ended: Flags  # ok or dead
    num_dead: Ints  # for good


def decide(
    candidates: Candidates, recipe: Recipe, is_validation: Flags, endings: Endings | None = None
) -> None:
    """Leave out what does not fit beside the others.

    `is_validation` is of each trace [traces]; `endings` are for recipes of groups. Raises
    InputError for a mix that the rows left cannot fill.
    """
    if recipe.groups is not None and endings is not None:
        _keep_whole_groups(candidates, recipe.groups, endings)
    if recipe.pairs is not None:
        _keep_best_and_worst(candidates, recipe.pairs)
    if recipe.per_prompt is not None:
        _keep_best_of_prompts(candidates, recipe.per_prompt)
    if recipe.mix is not None:
        _keep_mix(candidates, recipe, recipe.mix, is_validation)
    elif recipe.agreement is not None and recipe.agreement.balance:
        _balance(candidates, is_validation)


def validation_records(records: Keys, prompts: Keys, seed: int, share: float) -> Flags:
    """Which of these records [n] are set aside, by lot.

    `share` is from 0 to below 1. Records whose `prompts` [n] are equal share the lot of the first
    of them, by id, so that no prompt stands on both sides in another form. A prompt in one form
    alone has its lot wherever it stands.
    """
    _, prompt_of = np.unique(prompts, return_inverse=True)
    first = np.full(prompt_of.max(initial=-1) + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(first, prompt_of, records)
    distinct, indices = np.unique(first[prompt_of], return_inverse=True)
    digests = (
        hashlib.sha256(f"{seed}|split|{record:016x}".encode()).digest()[:8]
        for record in distinct.tolist()
    )
    lots = np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)
    is_aside: Flags = lots < np.uint64(int(share * 2.0**64))
    return is_aside[indices]


def _keep_whole_groups(candidates: Candidates, groups: Groups, endings: Endings) -> None:
    """Groups are whole or not at all; each member is told how it fares among them.

    Whole: all rollouts that were planned ended, no more of them dead than the recipe puts up with,
    and nothing is said against any of the others.
    """
    has_row = candidates.has_kept_rows()
    is_whole, is_alike = np.zeros_like(has_row), np.zeros_like(has_row)
    has_ended = endings.is_ended & (endings.num_dead <= groups.max_dead)
    for members in _traces_by_record(candidates):
        is_whole[members] = bool((has_row & has_ended)[members].all())
        rewards = candidates.rank[members]
        known = rewards[~np.isnan(rewards)]
        # A mean of equal numbers may be off by a bit, and a deviation from it is then not 0.
        is_alike[members] = alike = not len(known) or bool(known.min() == known.max())
        candidates.group_size[members] = len(members)
        if len(known):
            mean, deviation = (known[0], 0.0) if alike else (known.mean(), float(known.std()))
            candidates.advantage[members] = (rewards - mean) / (deviation + 1e-4)
            candidates.reward_mean[members] = mean
            candidates.reward_std[members] = deviation
            candidates.num_rewards[members] = len(known)
    candidates.drop(~is_whole[candidates.trace], "incomplete_group")
    if groups.drop_zero_variance:
        is_null = np.isnan(candidates.rank)
        candidates.drop((is_alike & is_null)[candidates.trace], NOT_SCORED)
        candidates.drop(is_alike[candidates.trace], "zero_variance")


def _keep_best_and_worst(candidates: Candidates, pairs: Pairs) -> None:
    """Of the traces of a prompt, the best and the worst make a pair if they are far enough apart.

    Both are kept as rows; the best one names the other.
    """
    is_group = candidates.task == TASK_OF_GROUP
    row_of = np.full(len(candidates.record), -1)  # [traces]: its row of the task; -1: none
    row_of[candidates.trace[is_group]] = np.flatnonzero(is_group)
    is_extreme, is_near = np.zeros_like(is_group), np.zeros_like(is_group)
    candidates.drop(is_group & np.isnan(candidates.rank)[candidates.trace], NOT_SCORED)
    for members in _traces_by_record(candidates):
        ranked = [
            trace
            for trace in members.tolist()
            if row_of[trace] >= 0 and candidates.reason[row_of[trace]] == 0
        ]
        if len(ranked) < 2:
            continue
        ranked.sort(key=lambda trace: (-candidates.rank[trace], candidates.lot[row_of[trace]]))
        best, worst = ranked[0], ranked[-1]
        margin = candidates.rank[best] - candidates.rank[worst]
        is_extreme[row_of[[best, worst]]] = True
        if margin > 0 and margin >= pairs.min_margin:
            candidates.partner[best] = worst
        else:
            is_near[row_of[[best, worst]]] = True
    candidates.drop(is_group & ~is_extreme, "not_extreme")
    candidates.drop(is_near, "no_margin")


def _keep_best_of_prompts(candidates: Candidates, rule: PerPrompt) -> None:
    """Of each prompt, over all runs: the best traces first, none too like one that stays."""
    has_row = candidates.has_kept_rows()
    lots = np.full(len(has_row), np.iinfo(np.uint64).max, np.uint64)  # [traces]: its rows' lowest
    np.minimum.at(lots, candidates.trace, candidates.lot)
    is_alike, is_worse = np.zeros_like(has_row), np.zeros_like(has_row)
    for members in _traces_by_prompt(candidates):
        left = members[has_row[members]]
        ranks = np.nan_to_num(candidates.rank[left], nan=-np.inf)
        kept: list[int] = []
        for trace in left[np.lexsort((lots[left], -ranks))].tolist():
            if _is_like(candidates, trace, kept, rule.min_distance):
                is_alike[trace] = True
            elif rule.keep is not None and len(kept) >= rule.keep:
                is_worse[trace] = True
            else:
                kept.append(trace)
    candidates.drop(is_alike[candidates.trace], "near_duplicate")
    if rule.by is not None:
        candidates.drop((is_worse & np.isnan(candidates.rank))[candidates.trace], NOT_SCORED)
    candidates.drop(is_worse[candidates.trace], "not_best")


def _is_like(candidates: Candidates, trace: int, kept: Sequence[int], min_distance: int) -> bool:
    if not min_distance or not candidates.has_hash[trace]:
        return False
    own = int(candidates.hash[trace])
    return any(
        candidates.has_hash[other]
        and (own ^ int(candidates.hash[other])).bit_count() < min_distance
        for other in kept
    )


def _traces_by_record(candidates: Candidates) -> Iterator[Ints]:
    """The traces of each record of each run, which have the same tokens before them."""
    yield from _split_by(candidates.record, candidates.run)


def _traces_by_prompt(candidates: Candidates) -> Iterator[Ints]:
    """The traces of each prompt over all runs, in whatever form it was written."""
    yield from _split_by(candidates.prompt, np.zeros_like(candidates.run))


def _split_by(minor: Keys, major: npt.NDArray[np.int32]) -> Iterator[Ints]:
    """The indices of equal pairs of both, in a fixed order."""
    order = np.lexsort((minor, major))
    if not len(order):
        return
    is_new = (np.diff(minor[order]) != 0) | (np.diff(major[order]) != 0)
    yield from np.split(order, np.flatnonzero(is_new) + 1)


def _balance(candidates: Candidates, is_validation: Flags) -> None:
    """As many critiques that ask for a revision as critiques that accept, in each split."""
    critiques = np.flatnonzero(is_of_role(candidates.task, REFLECT) & candidates.is_kept)
    units = _units(candidates, critiques, candidates.is_revise[critiques], 2, is_validation)
    _keep_only(candidates, critiques, units, "unbalanced")


def _keep_mix(candidates: Candidates, recipe: Recipe, mix: Mix, is_validation: Flags) -> None:
    """Keep of each pool what the mix gives it, and nothing else.

    A pool gives whole units: single rows by lot, or where something is balanced in it as many rows
    of each side.
    """
    is_in_pool = np.zeros(len(candidates.task), np.bool_)
    rows_of: dict[str, Ints] = {}
    units_of: dict[str, Ints] = {}
    for pool in mix.weights or mix.counts:
        tasks = [
            task for task in np.unique(candidates.task).tolist() if covers(pool, task_name(task))
        ]
        is_member = np.isin(candidates.task, tasks)
        is_in_pool |= is_member
        rows = rows_of[pool] = np.flatnonzero(is_member & candidates.is_kept)
        sides, num_sides = np.zeros(len(rows), np.int64), 1
        if mix.regions == "equal":
            sides, num_sides = np.searchsorted(tasks, candidates.task[rows]), max(1, len(tasks))
        if recipe.agreement is not None and recipe.agreement.balance and covers(_CRITIQUES, pool):
            sides, num_sides = 2 * sides + candidates.is_revise[rows], 2 * num_sides
        units_of[pool] = _units(candidates, rows, sides, num_sides, is_validation)
    for pool, num in _pool_sizes(mix, units_of).items():
        _keep_only(candidates, rows_of[pool], units_of[pool], "unbalanced")
        _keep_only(candidates, rows_of[pool], units_of[pool][:num], "beyond_mix")
    candidates.drop(~is_in_pool, "beyond_mix")


def _units(
    candidates: Candidates, rows: Ints, sides: Ints | Flags, num_sides: int, is_validation: Flags
) -> Ints:
    """Rows [units, num_sides], a row of each side in every unit, the lowest lots first.

    `sides` are those of the rows [rows]. A unit lies in one split, and so what is balanced is so in
    each of them. Rows without others to go with are in none.
    """
    is_aside = is_validation[candidates.trace[rows]]
    units = []
    for split in (False, True):
        columns = [
            _by_lot(candidates, rows[(is_aside == split) & (sides == n)]) for n in range(num_sides)
        ]
        depth = min(map(len, columns))
        units.append(np.stack([column[:depth] for column in columns], axis=1))
    both = np.concatenate(units)
    return both[np.argsort(candidates.lot[both].max(1), kind="stable")]


def _by_lot(candidates: Candidates, rows: Ints) -> Ints:
    return rows[np.argsort(candidates.lot[rows], kind="stable")]


def _pool_sizes(mix: Mix, units_of: Mapping[str, Ints]) -> Mapping[str, int]:
    """How many units each pool gives. Raises InputError where too few are left."""
    sides = {pool: units.shape[1] for pool, units in units_of.items()}
    num_left = {pool: units.size for pool, units in units_of.items()}
    listed = ", ".join(
        f"{pool} {num:,}" + (f" in {sides[pool]} equal parts" if sides[pool] > 1 else "")
        for pool, num in num_left.items()
    )
    if mix.counts:
        wanted = ", ".join(f"{pool} {num:,}" for pool, num in mix.counts.items())
        if uneven := [pool for pool, num in mix.counts.items() if num % sides[pool]]:
            raise InputError(
                f"the mix asks for {wanted} rows, and {uneven[0]} is to have "
                f"{sides[uneven[0]]} equal parts; ask for a multiple of {sides[uneven[0]]}"
            )
        if any(num_left[pool] < num for pool, num in mix.counts.items()):
            raise InputError(
                f"the mix asks for {wanted} rows, and these are left: {listed}; ask for fewer, "
                "use weights instead of counts, loosen the filters, or grow more traces"
            )
        return {pool: num // sides[pool] for pool, num in mix.counts.items()}
    if not all(num_left.values()):
        raise InputError(
            f"the mix cannot be made, since a pool of it has no rows left: {listed}; loosen the "
            "filters, leave that pool out, or grow more traces"
        )
    # As they are written: 0.1 is a tenth, and nothing overflows.
    weights = {pool: Fraction(str(weight)) for pool, weight in mix.weights.items()}
    scale = min(num_left[pool] / weight for pool, weight in weights.items())
    if mix.max_rows is not None:
        scale = min(scale, mix.max_rows / sum(weights.values(), Fraction()))
    sizes = {pool: int(scale * weight) // sides[pool] for pool, weight in weights.items()}
    if empty := [pool for pool, num in sizes.items() if not num]:
        unit = f"{sides[empty[0]]} equal parts" if sides[empty[0]] > 1 else "one row"
        raise InputError(
            f"the mix cannot be made, since the share of {empty[0]} is less than {unit}, and these "
            f"are left: {listed}; raise its weight or max_rows, leave that pool out, or grow more "
            "traces"
        )
    return sizes


def _keep_only(candidates: Candidates, rows: Ints, kept: Ints, reason: str) -> None:
    """Keep of some rows those that are among the kept ones, and leave the others out."""
    is_bad = np.zeros(len(candidates.task), np.bool_)
    is_bad[rows] = True
    is_bad[kept.ravel()] = False
    candidates.drop(is_bad, reason)
