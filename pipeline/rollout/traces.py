"""From how a rollout ended to the trace that is kept of it."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.engine.soundness import not_finite
from pipeline.pictures import Pixels, encode_webp
from pipeline.store.plans import PlanRow
from pipeline.store.traces import prepare_to_write
from pipeline.twig.drive import Outcome
from pipeline.twig.requests import Codes
from schemas.config import Pictures
from schemas.runs import Ends
from schemas.trace import Event, Image, Role, Status, Trace


def as_numbers(outcome: Outcome) -> Outcome:
    """The outcome; dead if a log-probability in it is no number, and then without that event's.

    The last look before a trace: whatever backend answered, no file of ours holds a NaN.
    """
    events = tuple(
        event if _is_finite(event) else replace(event, logp_sample=None, logp_cond=None)
        for event in outcome.events
    )
    if events == outcome.events:
        return outcome
    first = next(event for event in outcome.events if not _is_finite(event))
    error = outcome.error or not_finite(f"log-probabilities of event {first.index}")
    return replace(outcome, events=events, codes=(), error=error)


def _is_finite(event: Event) -> bool:
    return math.isfinite(sum(event.logp_sample or ()) + sum(event.logp_cond or ()))


def prepare_to_trace() -> None:
    """Load what the first traces would load, while the models of the same process wait."""
    encode_webp(np.zeros((1, 1, 3), np.uint8))
    prepare_to_write()


def canvases_to_keep(outcome: Outcome, pictures: Pictures) -> list[Codes]:
    """The canvases whose pictures a trace keeps: none, the finished one, or one a drawing."""
    if pictures is Pictures.ALL:
        return list(canvas_after(outcome.events).values())
    if pictures is Pictures.FINAL and outcome.codes:
        return [outcome.codes]
    return []


def canvas_after(events: Sequence[Event]) -> dict[int, Codes]:
    """The canvas after each drawing, by its event's index: the regions kept and the new one."""
    kept: dict[int, Codes] = {}
    canvases = {}
    for event in events:
        if event.role is Role.DRAW:
            above = [kept[region] for region in range(event.region)]
            kept[event.region] = event.codes
            canvases[event.index] = tuple(code for codes in [*above, event.codes] for code in codes)
    return canvases


def ends_of(events: Sequence[Event], dead_reason: str | None) -> Ends:
    """How one rollout ended, to be added up."""
    if dead_reason is not None:
        return Ends(dead={dead_reason: 1})
    is_revised = any(event.superseded_by is not None for event in events)
    return Ends(num_accepted=int(not is_revised), num_revised=int(is_revised))


def make_trace(
    outcome: Outcome,
    row: PlanRow,
    pixels: Sequence[Pixels],
    *,
    pictures: Pictures,
    started_at: float,
) -> Trace:
    """The trace of an ended rollout.

    `pixels` are those of `canvases_to_keep`, in its order; or none, if they cannot be painted.
    """
    rollout, error = outcome.rollout, outcome.error
    name = f"{rollout.record_id}-{rollout.rollout_index}"
    events, final_picture = outcome.events, None
    if pictures is Pictures.ALL and pixels:
        picture_of = {event: number for number, event in enumerate(canvas_after(events))}
        paths = [f"{name}-event-{event:02d}.webp" for event in picture_of]
        events = tuple(replace(event, picture=picture_of.get(event.index)) for event in events)
    else:
        paths = [f"{name}.webp"]
    if outcome.codes and pixels:
        final_picture = len(pixels) - 1  # the last drawing stands in the finished picture
    return Trace(
        record_id=rollout.record_id,
        rollout_index=rollout.rollout_index,
        prompt=row.prompt,
        metadata=row.metadata,
        status=Status.DEAD if error else Status.OK,
        schedule=outcome.schedule,
        events=events,
        codes=outcome.codes,
        final_picture=final_picture,
        images=tuple(
            Image(data=encode_webp(picture), path=path)
            for picture, path in zip(pixels, paths, strict=False)
        ),
        dead_reason=error.reason if error else None,
        dead_message=str(error) if error else None,
        started_at=started_at,
        duration_seconds=outcome.duration_seconds,
    )
