"""What a trace says beyond the rows that are made of it, for exports that show more than rows.

Pictures after each drawing, how it was sampled, how its group fared, and of pairs the thoughts and
drawings that answer one prompt.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.sets.exports.form import DrawingPair, ThoughtPair, TraceFacts
from pipeline.sets.questions import canvas_in_sight, canvas_picture, messages_of
from pipeline.twig.programs import Settings
from pipeline.twig.requests import Request, Text
from schemas.rows import EventRow, ImageCell, TraceRow
from schemas.trace import Role


@dataclass(frozen=True, kw_only=True, slots=True)
class Opening:
    """The first region of a trace: the thought of it, if there is one, and the drawing that stands.

    Pairs of rollouts are compared there alone: later on each has a canvas of its own in sight.
    """

    thought: EventRow | None
    drawing: EventRow

    @classmethod
    def of(cls, trace_row: TraceRow) -> "Opening":
        first = [event for event in trace_row["events"] if event["region"] == 0]
        thoughts = [event for event in first if event["role"] == Role.THINK]
        drawings = [event for event in first if event["role"] == Role.DRAW]
        standing = [event for event in drawings if event["superseded_by"] is None]
        return cls(thought=thoughts[0] if thoughts else None, drawing=standing[-1])


class GroupRewards(NamedTuple):
    """How a group fared: the mean and the deviation, with ddof 0, of the rewards that there are."""

    mean: float | None
    std: float | None
    num_rewards: int


NO_GROUP = GroupRewards(None, None, 0)


def facts_of(
    trace_row: TraceRow,
    requests: Sequence[Request],
    settings: Settings,
    *,
    rejected: int | None = None,  # of a pair of drawings of this trace: the one that was replaced
    worse: Opening | None = None,  # of a pair of traces: the other one's
    rewards: GroupRewards = NO_GROUP,
) -> TraceFacts:
    """What is known of a row beyond it."""
    thoughts, drawings = None, None
    if worse is not None:
        thoughts = _first_thoughts(trace_row, requests, worse)
        drawings = _drawing_pair(Opening.of(trace_row).drawing, worse.drawing, ((), ()))
    elif rejected is not None:
        replaced, chosen = revision_of(trace_row, rejected)
        thoughts = _revised_thoughts(trace_row, requests, replaced, chosen)
        above, others = (canvas_in_sight(requests[event["index"]]) for event in (chosen, replaced))
        drawings = _drawing_pair(chosen, replaced, (above, others))
    sampling = settings.method.sampling
    return TraceFacts(
        canvases=dict(_canvases(trace_row)),
        region_stops=trace_row["region_stops"] or [len(trace_row["codes"])],
        cfg_weight=sampling.cfg_weight,
        image_temperature=sampling.image_temperature,
        text_temperature=sampling.text_temperature,
        reward_mean=rewards.mean,
        reward_std=rewards.std,
        num_rewards=rewards.num_rewards,
        thoughts=thoughts,
        drawings=drawings,
    )


def revision_of(trace_row: TraceRow, event: int) -> tuple[EventRow, EventRow]:
    """A drawing that was replaced, and the one that replaced it."""
    rejected = trace_row["events"][event]
    assert rejected["superseded_by"] is not None
    return rejected, trace_row["events"][rejected["superseded_by"]]


def _canvases(trace_row: TraceRow) -> Iterator[tuple[int, ImageCell]]:
    """The pictures that are kept, by the drawings after which they were."""
    for event in trace_row["events"]:
        if event["role"] == Role.DRAW and event["picture"] is not None:
            yield event["index"], trace_row["images"][event["picture"]]
    # Of a run that keeps the finished picture alone, that is the canvas after the last drawing.
    if trace_row["final_picture"] is not None:
        last = max(event["index"] for event in trace_row["events"] if event["role"] == Role.DRAW)
        yield last, trace_row["images"][trace_row["final_picture"]]


def _revised_thoughts(
    trace_row: TraceRow, requests: Sequence[Request], rejected: EventRow, chosen: EventRow
) -> ThoughtPair | None:
    """The thoughts that a drawing and the one in its place were made from: both answer what was
    asked of the region. None where nobody was asked.
    """
    events = trace_row["events"]
    region = [event for event in events if event["region"] == rejected["region"]]
    asked = [event for event in region if event["role"] == Role.THINK]
    if not asked:
        return None
    thoughts = {0: asked[0]["text"]} | {
        event["revision"] + 1: event["better_thought"]
        for event in region
        if event["role"] == Role.REFLECT
    }
    better, worse = thoughts.get(chosen["revision"]), thoughts.get(rejected["revision"])
    return _thought_pair(trace_row, requests, asked[0], better, worse, has_one_prompt=True)


def _first_thoughts(
    best: TraceRow, requests: Sequence[Request], worst: Opening
) -> ThoughtPair | None:
    """The first thoughts of two rollouts. None where there is none."""
    thought, other = Opening.of(best).thought, worst.thought
    if thought is None or other is None:
        return None
    has_one_prompt = thought["prefix_ids"] == other["prefix_ids"]
    return _thought_pair(
        best, requests, thought, thought["text"], other["text"], has_one_prompt=has_one_prompt
    )


def _thought_pair(
    trace_row: TraceRow,
    requests: Sequence[Request],
    asked: EventRow,
    chosen: str | None,
    rejected: str | None,
    *,
    has_one_prompt: bool,
) -> ThoughtPair | None:
    request = requests[asked["index"]]
    if not isinstance(request, Text) or chosen is None or rejected is None:
        return None
    return ThoughtPair(
        question=messages_of(request, asked["backend"]),
        images=canvas_picture(trace_row, asked) if canvas_in_sight(request) else [],
        has_one_prompt=has_one_prompt,
        chosen=chosen,
        rejected=rejected,
    )


def _drawing_pair(
    chosen: EventRow, rejected: EventRow, canvases: tuple[Sequence[int], Sequence[int]]
) -> DrawingPair:
    """Two drawings of one region, and the codes above each."""
    canvas, other = map(list, canvases)
    return DrawingPair(
        has_one_prompt=chosen["prefix_ids"] == rejected["prefix_ids"] and canvas == other,
        prompt_ids=chosen["prefix_ids"] or [],
        canvas=canvas,
        chosen=chosen["codes"],
        rejected=rejected["codes"],
    )
