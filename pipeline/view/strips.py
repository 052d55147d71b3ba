"""A trace as a film strip: what was thought, drawn, judged and drawn again, region by region.

All text in it may be shown as it is: see `pipeline.view.text`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.view.facts import EventScores, read_metadata
from pipeline.view.text import visible
from pipeline.view.where import Value
from schemas.json_values import canonical_json
from schemas.rows import DecisionRow, EventRow, TraceRow
from schemas.trace import Role

Chip = tuple[str, Value]
"""A scorer's column, and what it says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Critique:
    """What the critic said of a drawing: the last time, if it was asked again."""

    score: float | None
    verdict: str
    better: str  # the thought that it proposed; empty: none
    problem: str  # why it could not be read; empty: it could
    said: str  # as it came
    chips: tuple[Chip, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One drawing of a region, with the thought before it and the critique after it."""

    event: int  # index of the drawing: its canvas goes by it
    region: int  # from 0
    revision: int
    is_replaced: bool
    thought: str  # what was new in the text that it was drawn from
    critique: Critique | None  # None: it was not judged
    thought_chips: tuple[Chip, ...]
    chips: tuple[Chip, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Strip:
    """One trace. Its pictures are told of by the indices of drawings; None: the finished one."""

    trace_id: str
    prompt: str
    metadata: tuple[tuple[str, str], ...]
    made_by: str
    frames: tuple[Frame, ...]
    is_finished: bool
    dead: str  # reason and message; empty: it is not dead
    chips: tuple[Chip, ...]  # of the whole trace
    decisions: tuple[str, ...]  # in a set: what became of each of its rows


def strip_of(row: TraceRow, scores: EventScores, decisions: Sequence[DecisionRow] = ()) -> Strip:
    """The film strip of a trace, with what scorers said of it and what a set made of it."""
    metadata = read_metadata(row["metadata"])
    dead = f"{row['dead_reason']}: {row['dead_message'] or ''}" if row["dead_reason"] else ""
    return Strip(
        trace_id=row["trace_id"],
        prompt=visible(row["prompt"]),
        metadata=tuple(
            (visible(name), visible(value if isinstance(value, str) else canonical_json(value)))
            for name, value in metadata.items()
        ),
        made_by=visible(f"{row['program']}, {row['model']['name']}, run {row['run_id']}"),
        frames=tuple(_frames(row["events"], scores)),
        is_finished=bool(row["codes"]),
        dead=visible(dead),
        chips=_chips(scores, None),
        decisions=tuple(map(_told, decisions)),
    )


def _frames(events: Sequence[EventRow], scores: EventScores) -> Iterator[Frame]:
    said = ""  # by the thoughts of the regions before
    thoughts = {event["region"]: event["index"] for event in events if event["role"] == Role.THINK}
    for event in events:
        if event["role"] != Role.DRAW:
            continue
        text, is_replaced = event["text"], event["superseded_by"] is not None
        is_first = event["revision"] == 0
        thought = thoughts.get(event["region"]) if is_first else None
        yield Frame(
            event=event["index"],
            region=event["region"],
            revision=event["revision"],
            is_replaced=is_replaced,
            thought=visible(text[len(said) :].strip() if text.startswith(said) else text),
            critique=_critique(events, event, scores),
            thought_chips=() if thought is None else _chips(scores, thought),
            chips=_chips(scores, event["index"]),
        )
        said = said if is_replaced else text


def _critique(
    events: Sequence[EventRow], drawing: EventRow, scores: EventScores
) -> Critique | None:
    about = [
        event
        for event in events
        if event["role"] == Role.REFLECT
        and (event["region"], event["revision"]) == (drawing["region"], drawing["revision"])
    ]
    if not about:
        return None
    last = about[-1]
    return Critique(
        score=last["score"],
        verdict=last["verdict"] or "",
        better=visible(last["better_thought"] or ""),
        problem=visible(last["problem"] or ""),
        said=visible(last["raw_text"] or last["text"]),
        chips=_chips(scores, last["index"]),
    )


def _chips(scores: EventScores, event: int | None) -> tuple[Chip, ...]:
    of_event: Mapping[str, Value] = scores.get(event, {})
    return tuple(
        (name, visible(value) if isinstance(value, str) else value)
        for name, value in of_event.items()
        if value is not None
    )


def _told(decision: DecisionRow) -> str:
    """`think_1: kept, train` or `draw_2: dropped as not_scored`."""
    if decision["is_kept"]:
        return visible(f"{decision['task']}: kept, {decision['split']}")
    value = "" if decision["value"] is None else f" ({decision['value']:.4g})"
    return visible(f"{decision['task']}: dropped as {decision['reason']}{value}")
