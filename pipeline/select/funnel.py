"""The funnel: how many came in, what each reason removed, what is left by task and category."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.select.columns import Flags
from pipeline.select.decide import Candidates
from pipeline.select.shard_candidates import Part, task_name
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
    def of(cls, found: Candidates, parts: Sequence[Part], is_validation: Flags) -> "Funnel":
        """Count. `is_validation` is of traces."""
        kept = found.is_kept
        kept_traces = np.unique(found.trace[kept])
        categories = found.category[found.trace[kept]]
        return cls(
            num_objects=len(parts),
            num_dead=sum(part.num_dead for part in parts),
            num_traces=len(found.record),
            num_traces_kept=len(kept_traces),
            num_prompts=len(np.unique(found.record)),
            num_prompts_kept=len(np.unique(found.record[kept_traces])),
            num_rows=len(found.task),
            num_rows_kept=int(kept.sum()),
            removed=_removed(found, np.ones(len(kept), np.bool_)),
            by_task={
                task_name(task): _of_task(found, found.task == task, is_validation)
                for task in np.unique(found.task).tolist()
            },
            kept_by_category={
                name or "unknown": int((categories == place).sum())
                for place, name in enumerate(found.categories)
            },
        )


def _of_task(found: Candidates, is_task: Flags, is_validation: Flags) -> dict[str, int]:
    kept = is_task & found.is_kept
    aside = int((kept & is_validation[found.trace]).sum())
    counts = {"in": int(is_task.sum()), **_removed(found, is_task)}
    return counts | {"train": int(kept.sum()) - aside, "validation": aside}


def _removed(found: Candidates, among: Flags) -> dict[str, int]:
    counts = np.bincount(found.reason[among], minlength=len(found.reasons)).tolist()
    return {reason: num for reason, num in zip(found.reasons[1:], counts[1:], strict=True) if num}


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
        parts = (f"{name} {num:,}" for name, num in funnel.kept_by_category.items())
        lines.append(f"By category: {', '.join(parts)}.")
    return lines


def as_json(funnel: Funnel) -> dict[str, Any]:
    return funnel.model_dump()
