"""Thoughts for prompts by a thinker alone: many prompts at once, each answered or failed."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.twig.captions import think_stepwise
from pipeline.twig.drive import Backends, Given, Outcome, Rollout, drive
from pipeline.twig.programs import Settings
from schemas.config import RunConfig
from schemas.errors import FailureKind, RecordFailure, RolloutError
from schemas.ids import record_id
from schemas.prompts import Prompt
from schemas.trace import Finish

_SURROGATE = re.compile(r"[\ud800-\udfff]")  # JSON can name half a pair; UTF-8 cannot store it


@dataclass(frozen=True, kw_only=True, slots=True)
class Caption:
    """What came of one prompt: a thought a region, or what was wrong with the answers."""

    prompt: Prompt
    thoughts: tuple[str, ...] = ()  # each one line; empty: failed
    failure: RolloutError | None = None


def caption_prompts(
    prompts: Sequence[Prompt], settings: Settings, backends: Backends, config: RunConfig
) -> Iterator[Caption]:
    """Think of each prompt, and yield it as it ends, in whatever order.

    Raises the failure of a thinker that cannot be asked any more.
    """
    by_id = {record_id(prompt.text): prompt for prompt in prompts}
    rollouts = (
        Rollout(
            record_id=name,
            rollout_index=0,
            run_seed=config.method.seed,
            program=think_stepwise(prompt.text, settings),
        )
        for name, prompt in by_id.items()
    )
    execution = config.execution
    for outcome in drive(
        Given(rollouts),
        backends,
        max_live=execution.live_rollouts_per_actor,
        max_seconds=execution.rollout_timeout_seconds,
    ):
        failure = outcome.error or _fault(outcome)
        if failure and failure.kind is not FailureKind.RECORD:
            raise failure
        prompt = by_id[outcome.rollout.record_id]
        if failure:
            yield Caption(prompt=prompt, failure=failure)
        else:
            yield Caption(prompt=prompt, thoughts=tuple(event.text for event in outcome.events))


def _fault(outcome: Outcome) -> RolloutError | None:
    """Why the thoughts of an outcome are none to draw from."""
    for event in outcome.events:
        if not event.text:
            return RecordFailure(f"thought {event.region + 1} is empty", reason="empty_thought")
        if _SURROGATE.search(event.text):
            return RecordFailure(f"thought {event.region + 1} is no text", reason="not_text")
        if event.finish is Finish.LENGTH:
            return RecordFailure(
                f"thought {event.region + 1} was cut off after {len(event.text)} characters; raise "
                "method.sampling.max_text_tokens",
                reason="truncated",
            )
    return None
