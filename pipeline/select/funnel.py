"""The funnel: how many came in, what each reason removed, what is left by task and category."""

from collections.abc import Sequence

import numpy as np

from pipeline.select.columns import Flags
from pipeline.select.decide import Candidates
from pipeline.select.shard_candidates import ShardTraces, task_name
from schemas.config import Frozen


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

    @classmethod
    def of(
        cls, candidates: Candidates, shards: Sequence[ShardTraces], is_validation: Flags
    ) -> "Funnel":
        """Count what was decided. `is_validation` is of each trace [traces]."""
        is_kept = candidates.is_kept
        kept_traces = np.unique(candidates.trace[is_kept])
        categories = candidates.category[candidates.trace[is_kept]]  # of each kept row
        return cls(
            num_objects=len(shards),
            num_dead=sum(shard.num_dead for shard in shards),
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
            kept_by_category={
                name or "unknown": int((categories == index).sum())
                for index, name in enumerate(candidates.categories)
            },
        )


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
    if set(funnel.kept_by_category) != {"unknown"}:
        by_category = (f"{name} {num:,}" for name, num in funnel.kept_by_category.items())
        lines.append(f"By category: {', '.join(by_category)}.")
    return lines
