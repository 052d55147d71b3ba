"""What a worker tells of an attempt, from what the attempt came to."""

from collections.abc import Sequence

from schemas.runs import Attempt, Ends, Key, ShardEnd, ShardFooter, ShardReport


def crashed_keys(attempt: Attempt, keys: Sequence[Key]) -> dict[Key, str]:
    """The rollouts that an attempt gives up on, and what they did; `keys` in their positions."""
    return {keys[position]: message for position, message in attempt.crashed.items()}


def report_of(
    attempt: Attempt,
    end: ShardEnd,
    footer: ShardFooter,
    num_bytes: int = 0,
    *,
    num_ok: int | None = None,
    num_dead: int | None = None,
    ends: Ends | None = None,
) -> ShardReport:
    """The report of an attempt that did not fail. Counts are the footer's unless told."""
    return ShardReport(
        shard=attempt.shard,
        attempt_id=attempt.attempt_id,
        end=end,
        num_ok=footer.num_ok if num_ok is None else num_ok,
        num_dead=footer.num_dead if num_dead is None else num_dead,
        num_bytes=num_bytes,
        ends=ends or Ends(),
    )
