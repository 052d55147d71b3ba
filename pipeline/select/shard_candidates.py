"""What workers and the one who decides tell each other: the job, and candidates as arrays.

A *row* is what a set could hold: an event of a trace, or for pairs and groups a whole trace. Tasks
and reasons are numbers here, so that millions of rows fit in memory.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.prompts.evaluation_sets import EvaluationSet
from pipeline.select.columns import ROLES, Flags, Floats, Ints
from schemas.recipes import Recipe
from schemas.scores import ScorerId
from schemas.specs import PromptOrigin

GROUP, REVISION = "group", "revision"
_REGIONS = 64  # at most, of a schedule
TASK_OF_GROUP, TASK_OF_REVISION = len(ROLES) * _REGIONS, len(ROLES) * _REGIONS + 1

KEPT = ""
BROKEN = "not_finite"  # a number of the trace is NaN or infinite
BEFORE_FILTERS = ("unparseable", "truncated", "leak_L0", "leak_L1")
AFTER_FILTERS = (
    *("disagrees", "no_margin", "incomplete_group", "zero_variance", "near_duplicate", "not_best"),
    *("not_extreme", "unbalanced", "beyond_mix"),
)

Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What every worker has to know. Small, and may be pickled."""

    recipe: Recipe
    evaluation: EvaluationSet
    columns: Mapping[ScorerId, frozenset[str]]  # of the scores that the recipe goes by
    categories: tuple[str, ...] = ("category", "task_type")  # where metadata may have it

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why a row is left out: a decision is a place here, and 0 is kept."""
        return reasons_of(self.recipe)


def reasons_of(recipe: Recipe) -> tuple[str, ...]:
    """The reasons that rows of a recipe may be left out for, in the order in which they count; but
    `BROKEN`, which counts before all others, is the last.
    """
    own = dict.fromkeys(one.label for one in recipe.filters)
    return tuple(dict.fromkeys((KEPT, *BEFORE_FILTERS, *own, *AFTER_FILTERS, BROKEN)))


def task_name(task: int) -> str:
    """`think_1` and so on, from a row's number of its task."""
    if task == TASK_OF_GROUP:
        return GROUP
    if task == TASK_OF_REVISION:
        return REVISION
    return f"{ROLES[task // _REGIONS].value}_{task % _REGIONS + 1}"


def region_task(role: Ints, region: Ints) -> Ints:
    """The number of an event's task."""
    return role * _REGIONS + region


def is_of_role(task: Ints, role: int) -> Flags:
    """Whether each of these tasks is of this role (see `frames.ROLES`)."""
    found: Flags = task // _REGIONS == role
    return found


@dataclass(kw_only=True, slots=True)
class Part:
    """The candidates of one trace object. Traces first, then rows; a row names its trace."""

    position: Ints
    record: Keys
    rollout: Ints
    category: Ints  # place in `categories`
    categories: list[str]
    origins: Counter[PromptOrigin]  # of its traces' prompts
    rank: Floats
    hash: Keys
    has_hash: Flags
    num_dead: int
    broken: list[str]  # traces with numbers that are none, each with its object and column
    trace: Ints
    event: Ints
    task: Ints
    reason: Ints
    value: Floats
    order: Keys  # by lot: rows are taken from the lowest
    is_revise: Flags  # of a critique

    def forget_rows(self) -> None:
        """Give back the memory of what has been gathered: only the traces stay."""
        for name in ("trace", "event", "task", "reason", "value", "order", "is_revise"):
            setattr(self, name, getattr(self, name)[:0].copy())


def aggregated(rewards: Floats, how: str) -> Floats:
    """Rewards [names, traces] as one a trace, over those that apply; NaN where none does."""
    applies = ~np.isnan(rewards)
    num = applies.sum(0)
    total = np.where(applies, rewards, 0).sum(0)
    if how == "min":
        combined = np.where(applies, rewards, np.inf).min(0)
    else:
        combined = total if how == "sum" else total / np.maximum(num, 1)
    return np.where(num > 0, combined, np.nan)
