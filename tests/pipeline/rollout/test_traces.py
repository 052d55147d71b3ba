"""From an ended rollout to its trace: which canvases there were, and which pictures are kept."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pipeline.pictures import Pixels, decode_picture
from pipeline.rollout.traces import canvas_after, canvases_to_keep, make_trace
from pipeline.store.plans import PlanRow
from pipeline.twig.drive import Outcome, Rollout
from pipeline.twig.programs import Running
from pipeline.twig.requests import Codes
from schemas.config import Pictures
from schemas.errors import RecordFailure, RolloutError
from schemas.trace import Event, Role, Status, Trace
from tests.support import some_event

ROW = PlanRow(
    record_id="0123456789abcdef",
    prompt="a red cube",
    metadata={"line": 7},
    rollout_start=0,
    rollout_stop=5,
)
TOO_LONG = RecordFailure("5000 tokens", reason="too_long")


def drawn(index: int, region: int, revision: int, *codes: int, **changes: Any) -> Event:
    return some_event(index, Role.DRAW, region=region, revision=revision, codes=codes, **changes)


def said(index: int, role: Role = Role.THINK, **changes: Any) -> Event:
    return some_event(index, role, **changes)


EVENTS = (
    said(0),
    drawn(1, 0, 0, 10, 11),
    said(2, Role.REFLECT),
    drawn(3, 0, 1, 12, 13),
    said(4, region=1),
    drawn(5, 1, 0, 20),
    said(6, Role.REFLECT, region=1),
    said(7, region=2),
    drawn(8, 2, 0, 30, 31, 32),
    said(9, Role.REFLECT, region=2),
    drawn(10, 2, 1, 33, 34, 35),
)
"""Three regions; the first and the last were drawn again."""
FINISHED = (12, 13, 20, 33, 34, 35)
CANVASES = {
    1: (10, 11),
    3: (12, 13),
    5: (12, 13, 20),
    8: (12, 13, 20, 30, 31, 32),
    10: FINISHED,
}


def never() -> Running:
    yield from ()
    return ()


def ended(
    events: Sequence[Event] = EVENTS, codes: Codes = FINISHED, error: RolloutError | None = None
) -> Outcome:
    rollout = Rollout(record_id=ROW.record_id, rollout_index=4, run_seed=0, program=never())
    return Outcome(
        rollout=rollout,
        codes=codes,
        schedule=None,
        events=tuple(events),
        error=error,
        duration_seconds=2.5,
    )


def shade(codes: Codes) -> Pixels:
    """A picture that tells its canvas from others."""
    return np.full((4, 4, 3), sum(codes) % 256, dtype=np.uint8)


def traced(outcome: Outcome, pictures: Pictures) -> Trace:
    pixels = [shade(canvas) for canvas in canvases_to_keep(outcome, pictures)]
    return make_trace(outcome, ROW, pixels, pictures=pictures, started_at=1_700_000_000.0)


# Canvases


def test_a_canvas_holds_the_regions_kept_and_the_newest_drawing():
    assert canvas_after(EVENTS) == CANVASES


def test_a_revision_takes_the_place_of_what_it_redraws():
    twice = [drawn(0, 0, 0, 1), drawn(1, 0, 1, 2), drawn(2, 0, 2, 3), drawn(3, 1, 0, 4)]

    assert canvas_after(twice) == {0: (1,), 1: (2,), 2: (3,), 3: (3, 4)}


@pytest.mark.parametrize("length", range(len(EVENTS) + 1))
def test_a_rollout_that_died_has_the_canvases_that_it_had(length: int):
    canvases = canvas_after(EVENTS[:length])

    assert canvases == {index: codes for index, codes in CANVASES.items() if index < length}


@pytest.mark.parametrize(
    ("pictures", "expected"),
    [
        (Pictures.NONE, []),
        (Pictures.FINAL, [FINISHED]),
        (Pictures.ALL, list(CANVASES.values())),
    ],
)
def test_the_config_says_which_canvases_are_kept(pictures: Pictures, expected: list[Codes]):
    assert canvases_to_keep(ended(), pictures) == expected


@pytest.mark.parametrize(
    ("pictures", "expected"),
    [(Pictures.NONE, []), (Pictures.FINAL, []), (Pictures.ALL, [(10, 11), (12, 13)])],
)
def test_a_dead_rollout_has_no_finished_canvas(pictures: Pictures, expected: list[Codes]):
    assert canvases_to_keep(ended(EVENTS[:5], (), TOO_LONG), pictures) == expected


# Traces


def test_a_trace_says_what_became_of_which_rollout():
    trace = traced(ended(), Pictures.NONE)

    assert (trace.record_id, trace.rollout_index) == (ROW.record_id, 4)
    assert (trace.prompt, trace.metadata) == ("a red cube", {"line": 7})
    assert (trace.status, trace.dead_reason, trace.dead_message) == (Status.OK, None, None)
    assert (trace.events, trace.codes) == (EVENTS, FINISHED)
    assert (trace.started_at, trace.duration_seconds) == (1_700_000_000.0, 2.5)
    assert (trace.images, trace.final_picture) == ((), None)


def test_all_pictures_are_found_from_the_drawings_that_they_show():
    trace = traced(ended(), Pictures.ALL)

    shown = {event.index: event.picture for event in trace.events if event.picture is not None}
    assert shown == {1: 0, 3: 1, 5: 2, 8: 3, 10: 4}
    for index, picture in shown.items():
        pixels = decode_picture(trace.images[picture].data)
        assert (pixels == shade(CANVASES[index])).all()
    assert trace.final_picture == 4
    assert len({image.path for image in trace.images}) == 5
    assert all(image.path.startswith("0123456789abcdef-4") for image in trace.images)


def test_the_final_picture_belongs_to_no_event():
    trace = traced(ended(), Pictures.FINAL)

    assert trace.final_picture == 0
    assert (decode_picture(trace.images[0].data) == shade(FINISHED)).all()
    assert trace.images[0].path == "0123456789abcdef-4.webp"
    assert {event.picture for event in trace.events} == {None}


@pytest.mark.parametrize("pictures", Pictures)
def test_a_dead_rollout_has_its_reason_and_no_final_picture(pictures: Pictures):
    trace = traced(ended(EVENTS[:5], (), TOO_LONG), pictures)

    assert (trace.status, trace.codes) == (Status.DEAD, ())
    assert (trace.dead_reason, trace.dead_message) == ("too_long", "5000 tokens")
    assert trace.final_picture is None
    assert len(trace.images) == (2 if pictures is Pictures.ALL else 0)


def test_a_rollout_that_died_before_it_drew_has_no_pictures():
    trace = traced(ended(EVENTS[:1], (), TOO_LONG), Pictures.ALL)

    assert (trace.images, trace.final_picture) == ((), None)
    assert trace.events == EVENTS[:1]
