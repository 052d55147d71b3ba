"""The progress of a run, from what its driver counts."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from jobs.commands.live.line import Fact, Progress, brief
from jobs.commands.terminal import counted

if TYPE_CHECKING:
    from jobs.cluster.snapshot import Snapshot
    from schemas.runs import Wait


def progress_of(snapshot: "Snapshot") -> Progress:
    """How far a run is, in rollouts."""
    ends, num_before = snapshot.ends, snapshot.num_finished - snapshot.ends.total
    facts = []
    if ends.dead:
        num_dead = f"{brief(ends.num_dead)} dead"
        facts.append(Fact(text=describe_dead(ends.dead), brief=num_dead, style="red"))
    if ends.num_revised:
        facts.append(Fact(text=f"{brief(ends.num_revised)} revised", style="yellow"))
    if ends.num_accepted:
        facts.append(Fact(text=f"{brief(ends.num_accepted)} accepted", style="green"))
    if num_before > 0:
        facts.append(Fact(text=f"{brief(num_before)} before"))
    shards = f"{snapshot.num_committed:,} of {counted(snapshot.num_shards, 'shard')}"
    facts.append(Fact(text=shards, is_extra=True))
    facts.append(Fact(text=counted(snapshot.num_actors, "actor"), is_extra=True))
    waits = [_describe_wait(snapshot.store_wait)] if snapshot.store_wait else []
    if snapshot.endpoints_away:
        waits.append(f"waiting for endpoint {' and '.join(snapshot.endpoints_away)}")
    return Progress(
        noun="rollouts",
        num_done=snapshot.num_finished,
        num_all=snapshot.num_planned,
        facts=facts,
        waiting=", ".join([*waits, *([snapshot.waiting] if snapshot.waiting else [])]),
    )


def _describe_wait(wait: "Wait") -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(wait.since))
    return f"waiting for {wait.whom} since {clock}{wait.what and f', to {wait.what}'}"


def describe_dead(reasons: Mapping[str, int]) -> str:
    """`1 dead (timeout)`, `13 dead (12 timeout, 1 crash)`."""
    total = sum(reasons.values())
    if len(reasons) == 1:
        return f"{total:,} dead ({next(iter(reasons))})"
    most_first = sorted(reasons.items(), key=lambda reason: -reason[1])
    return f"{total:,} dead ({', '.join(f'{count:,} {name}' for name, count in most_first)})"
