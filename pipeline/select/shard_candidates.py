"""What workers and the one who decides tell each other: criteria, and candidates as arrays.

A *row* is what a set could hold: an event of a trace, or for pairs and groups a whole trace. Tasks
and reasons are numbers here, so that millions of rows fit in memory.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.prompts.leaks import EvaluationSet
from pipeline.select.columns import MAX_REGIONS, ROLES, Flags, Floats, Ints, Keys
from schemas.recipes import Recipe
from schemas.scores import ScorerId
from schemas.specs import PromptOrigin

GROUP, REVISION = "group", "revision"
TASK_OF_GROUP, TASK_OF_REVISION = len(ROLES) * MAX_REGIONS, len(ROLES) * MAX_REGIONS + 1

KEPT = ""
NOT_FINITE = "not_finite"  # counts before all others, and is numbered after them
NOT_SCORED = "not_scored"  # null is no verdict: whatever goes by a score says this where it is null
NOT_OWN = "given"  # a thought that came with the prompt: nobody's answer, so nobody's to learn
LATE_REASONS = (
    NOT_FINITE,
    NOT_SCORED,
    NOT_OWN,
)  # numbered last, and told in sets only where they occur
BEFORE_FILTERS = ("unparseable", "truncated", "leak_L0", "leak_L1")
AFTER_FILTERS = (
    *("disagrees", "no_margin", "incomplete_group", "zero_variance", "near_duplicate", "not_best"),
    *("not_extreme", "unbalanced", "beyond_mix"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Criteria:
    """What rows are judged by, the same in every worker. Small, and may be pickled."""

    recipe: Recipe
    evaluation: EvaluationSet
    columns: Mapping[ScorerId, frozenset[str]]  # of the scores that the recipe goes by


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardTraces:
    """The ok traces of one trace object: a shard's, or a supplement's. Arrays [traces], in order.

    These stay in memory while a set is written.
    """

    position: Ints  # int64: the row in its object, dead rows counted too
    record: Keys  # the record id's 16 hex digits as a number
    prompt: Keys  # equal for prompts that are equal at L0 or L1, see `prompt_key`
    rollout: Ints  # int64
    category: Ints  # int64: index into `categories`
    categories: list[str]  # each once, sorted; empty: the metadata says none
    origins: Counter[PromptOrigin]  # how many traces have a prompt from there
    # The score or reward that traces are ranked by; NaN: none, or still to be compared.
    rank: Floats
    hash: Keys  # of the picture; 0 where `has_hash` is False
    has_hash: Flags
    opinions: Floats  # [opinions, traces], see `opinion_names`; NaN: none
    dead_record: Keys  # [dead]: of the dead rollouts of the object, as it says
    dead_rollout: Ints  # [dead] int64
    broken: tuple[str, ...] = ()  # traces with numbers that are none, with object and column


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardRows:
    """The rows that could be made of a `ShardTraces`. Arrays [rows], in no order that counts."""

    trace: npt.NDArray[np.int32]  # index into the traces
    event: npt.NDArray[np.int16]  # index in its trace; WHOLE: the row is of the whole trace
    task: npt.NDArray[np.int16]  # see `task_name`
    reason: npt.NDArray[np.int16]  # index into `reasons_of` the recipe; 0: kept
    value: npt.NDArray[np.float32]  # what the column of that reason says; NaN: nothing
    lot: Keys  # from the recipe's seed and the row's name: rows are taken from the lowest
    is_revise: Flags  # whether it is a critique that asks for a revision


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardCandidates:
    """All that is known of one trace object's rows by themselves."""

    traces: ShardTraces
    rows: ShardRows


def reasons_of(recipe: Recipe) -> tuple[str, ...]:
    """Why rows of a recipe may be left out, in the order in which reasons count; the first is KEPT.

    A decision is an index into these.
    """
    own = dict.fromkeys(row_filter.label for row_filter in recipe.filters)
    leaks = (f"leak_{level}" for level in recipe.decontamination.counted)
    before = (*BEFORE_FILTERS, *leaks)  # L0 and L1 are numbered whether they count or not
    return tuple(dict.fromkeys((KEPT, *before, *own, *AFTER_FILTERS, *LATE_REASONS)))


def task_name(task: int) -> str:
    """`think_1` and so on, from a row's number of its task."""
    if task == TASK_OF_GROUP:
        return GROUP
    if task == TASK_OF_REVISION:
        return REVISION
    return f"{ROLES[task // MAX_REGIONS].value}_{task % MAX_REGIONS + 1}"


def region_task(role: Ints, region: Ints) -> Ints:
    """The number [n] of the task of events with a role [n], an index into ROLES, and a region [n]
    below MAX_REGIONS.
    """
    return role * MAX_REGIONS + region


def is_of_role(task: Ints, role: int) -> Flags:
    """Whether each of these tasks is of this role, an index into ROLES."""
    is_role: Flags = task // MAX_REGIONS == role
    return is_role


def aggregated(rewards: Floats, how: str) -> Floats:
    """Rewards [names, traces] as one a trace, over those that apply; NaN where none does.

    `how` is mean, sum or min.
    """
    applies = ~np.isnan(rewards)
    num = applies.sum(0)
    total = np.where(applies, rewards, 0).sum(0)
    if how == "min":
        combined = np.where(applies, rewards, np.inf).min(0)
    else:
        combined = total if how == "sum" else total / np.maximum(num, 1)
    return np.where(num > 0, combined, np.nan)
