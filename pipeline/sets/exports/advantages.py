"""A rollout's advantage within its group, as each trainer works it out, and what its tokens weigh.

Trainers differ in the standard deviation that they divide by (of the group, or as an estimate of
what it was drawn from) and in what they add to it. Sources: TRL 1.16.0 `grpo_trainer`, verl 0.9.1
`core_algos.compute_grpo_outcome_advantage`, UniRL 0.2.0 `types/sample.py`; T2I-R1 (commit 2d9d4d1)
is as TRL.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import NamedTuple

from pipeline.sets.exports.form import Source, is_group
from schemas.rows import SegmentRow


class AdvantageForm(NamedTuple):
    """(reward - mean) / (deviation + eps), the deviation with these degrees of freedom less."""

    ddof: int
    eps: float


ADVANTAGES: Mapping[str, AdvantageForm] = {
    "coppice": AdvantageForm(0, 1e-4),  # of the canonical rows
    "trl": AdvantageForm(1, 1e-4),
    "verl": AdvantageForm(1, 1e-6),
    "unirl": AdvantageForm(0, 1e-8),
}
"""By whose it is."""


def advantage_of(trainer: str, source: Source) -> float | None:
    """A rollout's advantage in a trainer's form. None without a reward."""
    row, facts = source.row, source.trace
    assert is_group(row)
    if row["reward"] is None or facts.reward_mean is None or facts.reward_std is None:
        return None
    form = ADVANTAGES[trainer]
    if facts.num_rewards <= form.ddof:
        return 0.0  # a group of one says nothing
    deviation = facts.reward_std * sqrt(facts.num_rewards / (facts.num_rewards - form.ddof))
    return (row["reward"] - facts.reward_mean) / (deviation + form.eps)


def token_weight(segments: Sequence[SegmentRow]) -> float:
    """What each learned token of a rollout weighs where all of them are to weigh 1 together: so a
    rollout counts once, however often it was revised.
    """
    return 1 / max(1, sum(len(segment["tokens"] or ()) for segment in segments))
