"""What can be said of each row of one trace object without the others: the first reason to leave it
out, and what it is ranked and drawn by.

Runs in a worker: what it returns is a few numbers a row. What depends on other traces, such as
duplicates, the best of a prompt and mixes, is decided in `pipeline.select.decide`.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.prompts.normal_form import prompt_key
from pipeline.select.candidates import CandidateRows, candidate_rows
from pipeline.select.columns import (
    REFLECT,
    WHOLE,
    Flags,
    Floats,
    Keys,
    SidecarColumns,
    TraceColumns,
    read_columns,
    read_scores,
)
from pipeline.select.judge import judged
from pipeline.select.opinions import opinions_of
from pipeline.select.shard_candidates import (
    NOT_FINITE,
    NOT_OWN,
    NOT_SCORED,
    TASK_OF_REVISION,
    Criteria,
    ShardCandidates,
    ShardRows,
    ShardTraces,
    aggregated,
    reasons_of,
    task_name,
)
from pipeline.select.values import RowValues
from pipeline.store.layout import sidecar_key, traces_object_key
from pipeline.store.open import open_store
from schemas.json_values import JsonMapping, read_json_object
from schemas.recipe_names import JUDGE, covers
from schemas.recipes import Agreement, Filter, Pairs, Recipe, SetKind
from schemas.specs import PromptOrigin
from schemas.trace import Finish, Verdict

_CATEGORY_FIELDS = ("category", "task_type")  # of a record's metadata; the first that is a word


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardWork:
    """One trace object to judge. May be pickled."""

    url: str  # of the run
    name: str  # below `traces/`


def judge_shard(criteria: Criteria, work: ShardWork) -> ShardCandidates:
    """Read one trace object and its sidecars, slimly, and judge each row by itself."""
    store = open_store(work.url)
    columns = read_columns(store, traces_object_key(work.name))
    scores = {
        scorer.name: read_scores(store, sidecar_key(work.name, scorer), names, columns)
        for scorer, names in criteria.columns.items()
    }
    recipe = criteria.recipe
    if recipe.judge is not None and recipe.is_judged:
        scores[JUDGE] = judged(scores, recipe.judge)
    return judge(columns, scores, criteria, traces_object_key(work.name))


def judge(
    columns: TraceColumns,
    scores: Mapping[str, SidecarColumns],
    criteria: Criteria,
    key: str = "",
) -> ShardCandidates:
    """Judge each row of the recipe by itself. `scores` are by the names of scorers; the traces
    stand in the object at `key`.
    """
    metadata = [read_json_object(text) for text in columns.metadata]
    categories = [category_of(fields) for fields in metadata]
    rows = candidate_rows(columns, criteria.recipe)
    values = RowValues(rows, columns, scores, categories)
    first = _first_reasons(rows, columns, values, criteria)
    names = sorted(set(categories))
    indices = {name: index for index, name in enumerate(names)}
    hashes, has_hash = _hashes(columns, scores, criteria.recipe)
    return ShardCandidates(
        traces=ShardTraces(
            position=columns.position,
            record=columns.record,
            prompt=_prompt_keys(columns.prompts),
            rollout=columns.rollout,
            category=np.array([indices[name] for name in categories], np.int64),
            categories=names,
            origins=Counter(PromptOrigin.of(fields) for fields in metadata),
            rank=_ranks(columns, scores, criteria.recipe),
            hash=hashes,
            has_hash=has_hash,
            opinions=opinions_of(columns, scores, criteria.recipe),
            dead_record=columns.dead_record,
            dead_rollout=columns.dead_rollout,
            broken=tuple(
                f"{key}: trace {columns.trace_ids[trace]}, column {column}"
                for trace, column in columns.broken.items()
            ),
        ),
        rows=ShardRows(
            trace=rows.trace.astype(np.int32),
            event=rows.event.astype(np.int16),
            task=rows.task.astype(np.int16),
            reason=first.reason.astype(np.int16),
            value=first.value.astype(np.float32),
            lot=_lots(rows, columns, criteria.recipe.seed),
            is_revise=_asks_for_revision(rows, columns),
        ),
    )


def _prompt_keys(prompts: Sequence[str]) -> Keys:
    """[traces] of prompts [traces]: 64 bits of the one form that equal prompts have."""
    keys = {prompt: _digest64(prompt_key(prompt)) for prompt in set(prompts)}
    return np.array([keys[prompt] for prompt in prompts], np.uint64)


def _digest64(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Verdicts:
    """What a rule that goes by a column says of each row. Arrays [rows]."""

    is_bad: Flags
    is_unscored: Flags  # left out since there is no number to go by; none of them is bad
    values: Floats | None  # the numbers that the rule goes by; None: words


class _FirstReasons:
    """For each row the first reason there is to leave it out, and the value that it goes by."""

    def __init__(self, num_rows: int, reasons: Sequence[str]) -> None:
        self._reasons = reasons
        self.reason = np.zeros(num_rows, np.int64)  # index into `reasons`; 0: none
        self.value = np.full(num_rows, np.nan)  # NaN: the reason goes by no number

    def drop(self, reason: str, is_bad: Flags, values: Floats | None = None) -> None:
        """Leave out the bad ones [rows] of those that nothing was said against."""
        is_new = is_bad & (self.reason == 0)
        self.reason[is_new] = self._reasons.index(reason)
        if values is not None:
            self.value[is_new] = values[is_new]

    def judge(self, reason: str, verdicts: _Verdicts) -> None:
        """Leave out what is bad by a rule, for that reason, and what has no score, for its own."""
        self.drop(reason, verdicts.is_bad, verdicts.values)
        self.drop(NOT_SCORED, verdicts.is_unscored)


def _first_reasons(
    rows: CandidateRows, columns: TraceColumns, values: RowValues, criteria: Criteria
) -> _FirstReasons:
    recipe, evaluation, events = criteria.recipe, criteria.evaluation, columns.events
    first = _FirstReasons(len(rows), reasons_of(recipe))
    is_broken = np.zeros(len(columns), np.bool_)
    is_broken[list(columns.broken)] = True
    first.drop(NOT_FINITE, is_broken[rows.trace])
    if recipe.kind == SetKind.SFT:
        first.drop(NOT_OWN, events.is_given[rows.event_row])
        first.drop("unparseable", events.verdict[rows.event_row] == Verdict.UNPARSEABLE)
        first.drop("truncated", events.finish[rows.event_row] == Finish.LENGTH)
    leaks = np.array([evaluation.leak_of(prompt) for prompt in columns.prompts], np.object_)
    for level in evaluation.levels:
        first.drop(f"leak_{level}", (leaks == level)[rows.trace])
    for row_filter in recipe.filters:
        first.judge(row_filter.label, _fails(rows, values, row_filter))
    if recipe.agreement is not None:
        first.judge("disagrees", _disagrees(rows, columns, values, recipe.agreement))
    if recipe.pairs is not None:
        first.judge("no_margin", _lacks_margin(rows, values, recipe.pairs))
    return first


def _fails(rows: CandidateRows, values: RowValues, row_filter: Filter) -> _Verdicts:
    """Which rows a filter leaves out. A word that is missing is another word than the one asked
    for; a number that is missing is no number.
    """
    cells = values.of(row_filter.column, row_filter.of)
    numbers: Floats | None = None
    if cells.dtype == np.object_:
        is_null = np.array([cell is None for cell in cells], np.bool_)
        is_bad: Flags = ~is_null & (cells != row_filter.equals)
        is_unscored = np.zeros(len(rows), np.bool_)
        if row_filter.null == "drop":
            is_bad = is_bad | is_null
    else:
        numbers = cells.astype(np.float64)
        least = -np.inf if row_filter.min is None else row_filter.min
        most = np.inf if row_filter.max is None else row_filter.max
        is_bad = (numbers < least) | (numbers > most)
        is_unscored = np.isnan(numbers) & (row_filter.null == "drop")
    is_covered = np.ones(len(rows), np.bool_)
    if row_filter.tasks:
        covered = [
            number
            for number in np.unique(rows.task).tolist()
            if any(covers(task, task_name(number)) for task in row_filter.tasks)
        ]
        is_covered = np.isin(rows.task, covered)
    return _Verdicts(
        is_bad=is_bad & is_covered, is_unscored=is_unscored & is_covered, values=numbers
    )


def _disagrees(
    rows: CandidateRows, columns: TraceColumns, values: RowValues, agreement: Agreement
) -> _Verdicts:
    """Critiques with which the outside score of the drawing that they judged does not agree, by
    that score; and those of which it does not say enough, for want of a score.
    """
    events = columns.events
    is_critique = events.role[rows.event_row] == REFLECT
    is_revise = events.verdict[rows.event_row] == Verdict.REVISE
    judged = values.of(agreement.by, "drawing").astype(np.float64)
    is_bad = np.where(is_revise, judged > agreement.revise_max, judged < agreement.accept_min)
    is_unscored = np.isnan(judged)
    if agreement.gain_min is not None:
        gain = values.gain(agreement.by)
        is_bad |= is_revise & (gain < agreement.gain_min)
        is_unscored |= is_revise & np.isnan(gain)
    return _Verdicts(
        is_bad=is_critique & is_bad, is_unscored=is_critique & is_unscored & ~is_bad, values=judged
    )


def _lacks_margin(rows: CandidateRows, values: RowValues, pairs: Pairs) -> _Verdicts:
    """Replaced drawings whose successor is not better by the margin asked for, by the margin."""
    gain = values.gain(pairs.by)
    is_revision = rows.task == TASK_OF_REVISION
    return _Verdicts(
        is_bad=is_revision & ((gain < pairs.min_margin) | (gain <= 0)),
        is_unscored=is_revision & np.isnan(gain),
        values=gain,
    )


def _asks_for_revision(rows: CandidateRows, columns: TraceColumns) -> Flags:
    asks = np.zeros(len(rows), np.bool_)
    is_event = rows.event != WHOLE
    asks[is_event] = columns.events.verdict[rows.event_row[is_event]] == Verdict.REVISE
    return asks


def _ranks(columns: TraceColumns, scores: Mapping[str, SidecarColumns], recipe: Recipe) -> Floats:
    """What each trace [traces] is ranked by: one score, or the reward made of several. Nothing yet
    where rollouts are compared, some of which are in other objects.
    """
    if not recipe.ranked_by or not len(columns) or recipe.compares_rollouts:
        return np.full(len(columns), np.nan)
    traces, whole = np.arange(len(columns)), np.full(len(columns), WHOLE)
    rewards = []
    for column in recipe.ranked_by:
        source, _, name = column.partition(".")
        rewards.append(scores[source].at(name, traces, whole))
    return aggregated(np.stack(rewards), recipe.groups.aggregate if recipe.groups else "mean")


def _hashes(
    columns: TraceColumns, scores: Mapping[str, SidecarColumns], recipe: Recipe
) -> tuple[Keys, Flags]:
    """The hash of each picture [traces], and whether there is one that the recipe asks for."""
    rule = recipe.per_prompt
    if rule is None or not rule.min_distance:
        return np.zeros(len(columns), np.uint64), np.zeros(len(columns), np.bool_)
    source, _, name = rule.hash.partition(".")
    return scores[source].hashes(name, len(columns))


def _lots(rows: CandidateRows, columns: TraceColumns, seed: int) -> Keys:
    """A number by lot for each row, from the recipe's seed and the row's name alone."""
    prefixes = [f"{seed}|{trace_id}" for trace_id in columns.trace_ids.to_pylist()]
    digests = (
        hashlib.sha256(f"{prefixes[trace]}|{event}|{task}".encode()).digest()[:8]
        for trace, event, task in zip(
            rows.trace.tolist(), rows.event.tolist(), rows.task.tolist(), strict=True
        )
    )
    return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)


def category_of(metadata: JsonMapping) -> str:
    """Of a record; empty where its metadata says none."""
    cells = (metadata.get(name) for name in _CATEGORY_FIELDS)
    return next((cell for cell in cells if isinstance(cell, str)), "")
