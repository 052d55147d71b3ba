"""The funnel: how many came in, what each reason removed, what is left by task and category."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.select.columns import MAX_REGIONS, REFLECT, Flags
from pipeline.select.decide import Candidates
from pipeline.select.shard_candidates import TASK_OF_GROUP, is_of_role, task_name
from schemas.config import Frozen
from schemas.trace import Verdict

UNKNOWN = "unknown"  # the category of prompts that say none


class Funnel(Frozen):
    """Counts. Rows are of the set, or would have been: coming in = removed + kept."""

    num_objects: int
    num_dead: int  # traces, as the next two
    num_traces: int  # ok
    num_traces_kept: int  # with at least one row
    num_prompts: int
    num_prompts_kept: int
    num_rows: int
    num_rows_kept: int
    removed: dict[str, int]  # by reason, in the order in which reasons count
    by_task: dict[str, dict[str, int]]  # rows coming in, removed by reason, train, validation
    kept_by_category: dict[str, int]
    kept_by_region: dict[str, int]  # from 1; of rows that are events
    kept_by_verdict: dict[str, int]  # of critiques, by split: train accept, and so on

    @classmethod
    def of(
        cls, candidates: Candidates, is_validation: Flags, *, num_objects: int, num_dead: int
    ) -> "Funnel":
        """Count what was decided. `is_validation` is of each trace [traces]."""
        is_kept = candidates.is_kept
        kept_traces = np.unique(candidates.trace[is_kept])
        categories = candidates.category[candidates.trace[is_kept]]  # of each kept row
        return cls(
            num_objects=num_objects,
            num_dead=num_dead,
            num_traces=len(candidates.record),
            num_traces_kept=len(kept_traces),
            num_prompts=len(np.unique(candidates.record)),
            num_prompts_kept=len(np.unique(candidates.record[kept_traces])),
            num_rows=len(candidates.task),
            num_rows_kept=int(is_kept.sum()),
            removed=_removed(candidates, np.ones_like(is_kept)),
            by_task={
                task_name(task): _of_task(candidates, candidates.task == task, is_validation)
                for task in np.unique(candidates.task).tolist()
            },
            kept_by_category=_by_category(candidates.categories, categories),
            kept_by_region=_by_region(candidates.task[is_kept]),
            kept_by_verdict=_by_verdict(candidates, is_validation),
        )


def _by_category(names: Sequence[str], indices: npt.NDArray[np.int32]) -> dict[str, int]:
    """How many rows [n] are of each category. One that prompts call unknown is as good as none."""
    counts = Counter({name or UNKNOWN: 0 for name in names})
    for name, num in zip(names, np.bincount(indices, minlength=len(names)).tolist(), strict=True):
        counts[name or UNKNOWN] += num
    return dict(counts)


def _by_region(tasks: npt.NDArray[np.int16]) -> dict[str, int]:
    """How many of these rows [n] are of each region; rows of whole traces are of none."""
    regions = tasks[tasks < TASK_OF_GROUP] % MAX_REGIONS + 1
    numbers, counts = np.unique(regions, return_counts=True)
    return {str(number): num for number, num in zip(numbers.tolist(), counts.tolist(), strict=True)}


def _by_verdict(candidates: Candidates, is_validation: Flags) -> dict[str, int]:
    """How many critiques of each verdict are kept in each split that has any."""
    is_critique = is_of_role(candidates.task, REFLECT) & candidates.is_kept
    is_aside = is_validation[candidates.trace]
    counts = {
        f"{split} {verdict.value}": int((is_critique & is_split & is_verdict).sum())
        for split, is_split in (("train", ~is_aside), ("validation", is_aside))
        for verdict, is_verdict in (
            (Verdict.ACCEPT, ~candidates.is_revise),
            (Verdict.REVISE, candidates.is_revise),
        )
        if (is_critique & is_split).any()
    }
    return counts


def _of_task(candidates: Candidates, is_task: Flags, is_validation: Flags) -> dict[str, int]:
    """What comes in, what each reason removes, and what each split keeps of the rows of a task."""
    is_kept = is_task & candidates.is_kept
    num_validation = int((is_kept & is_validation[candidates.trace]).sum())
    counts = {"in": int(is_task.sum()), **_removed(candidates, is_task)}
    return counts | {"train": int(is_kept.sum()) - num_validation, "validation": num_validation}


def _removed(candidates: Candidates, among: Flags) -> dict[str, int]:
    """How many of some rows each reason removes; reasons that remove none are left away."""
    counts = np.bincount(candidates.reason[among], minlength=len(candidates.reasons)).tolist()
    return {
        reason: num for reason, num in zip(candidates.reasons[1:], counts[1:], strict=True) if num
    }


def lines_of(funnel: Funnel) -> list[str]:
    """The funnel for people."""
    left, lines = funnel.num_rows, []
    lines.append(
        f"{funnel.num_traces:,} traces of {funnel.num_prompts:,} prompts came in "
        f"({funnel.num_dead:,} dead ones left out): {funnel.num_rows:,} rows."
    )
    for reason, num in funnel.removed.items():
        left -= num
        lines.append(f"  {reason:<20} {-num:>12,}  {left:>12,} left")
    lines.append(
        f"Kept {funnel.num_rows_kept:,} rows of {funnel.num_traces_kept:,} traces and "
        f"{funnel.num_prompts_kept:,} prompts:"
    )
    for task, counts in funnel.by_task.items():
        lines.append(
            f"  {task:<20} {counts['train']:>12,} train {counts['validation']:>8,} validation "
            f"of {counts['in']:,}"
        )
    if set(funnel.kept_by_category) != {UNKNOWN}:
        by_category = (f"{name} {num:,}" for name, num in funnel.kept_by_category.items())
        lines.append(f"By category: {', '.join(by_category)}.")
    for noun, counts in (("region", funnel.kept_by_region), ("verdict", funnel.kept_by_verdict)):
        if len(counts) > 1:
            listed = ", ".join(f"{name} {num:,}" for name, num in counts.items())
            lines.append(f"By {noun}: {listed}.")
    return lines
