"""A contact sheet: what it shows of rollouts, whatever they say."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.pictures import decode_picture, encode_webp
from pipeline.view import contact_sheet as sheets
from pipeline.view.contact_sheet import printable
from pipeline.view.verdicts import Drawing, JudgedTrace, critique_of
from schemas.errors import InputError


def a_picture(colour, side=48):
    return {
        "bytes": encode_webp(np.full((side, side, 3), colour, dtype=np.uint8)),
        "path": "some.webp",
    }


def an_event(role, text, region=0, revision=0, **fields) -> dict[str, Any]:
    empty = {"score": None, "verdict": None, "better_thought": None}
    empty |= {"superseded_by": None, "picture": None}
    return {"role": role, "region": region, "revision": revision, "text": text, **empty, **fields}


def contact_sheet(rows, **shares):
    """The sheet of these rows, with the pictures that they keep."""
    return sheets.contact_sheet([judged_by_hand(row, **shares) for row in rows])


def judged_by_hand(row, share_right=None):
    pictures = [decode_picture(image["bytes"]) for image in row["images"]]
    final = row["final_picture"]
    return JudgedTrace(
        row=row,
        drawings=tuple(
            Drawing(
                event=event,
                canvas=None if event["picture"] is None else pictures[event["picture"]],
                critique=critique_of(event, row["events"]),
                share_right=share_right,
            )
            for event in row["events"]
            if event["role"] == "draw"
        ),
        picture=None if final is None else pictures[final],
    )


def a_row(**changes) -> dict[str, Any]:
    """A rollout of one region, drawn red, judged and drawn again in green."""
    events = [
        an_event("think", "a red sky."),
        an_event("draw", "a red sky.", superseded_by=3, picture=0),
        an_event("reflect", "...", score=40.0, verdict="revise", better_thought="a green sky."),
        an_event("draw", "a green sky.", revision=1, picture=1),
    ]
    return {
        "prompt": "a green sky",
        "events": events,
        "images": [a_picture((250, 0, 0)), a_picture((0, 250, 0))],
        "final_picture": 1,
        "dead_reason": None,
        "dead_message": None,
    } | changes


def opened(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def num_pixels(sheet, colour):
    return int((np.abs(sheet - colour).max(-1) < 6).sum())


def test_every_canvas_and_the_finished_picture_are_shown_at_full_size():
    sheet = opened(contact_sheet([a_row()]))
    cell = num_pixels(sheet, (250, 0, 0))
    assert cell == 168 * 168
    assert num_pixels(sheet, (0, 250, 0)) == 2 * cell


def test_a_sheet_has_a_strip_for_every_rollout():
    single, three = opened(contact_sheet([a_row()])), opened(contact_sheet([a_row()] * 3))
    assert num_pixels(three, (250, 0, 0)) == 3 * num_pixels(single, (250, 0, 0))
    assert three.shape[1] == single.shape[1]


def test_what_is_said_shows():
    plain = contact_sheet([a_row()])
    assert contact_sheet([a_row(prompt="another prompt")]) != plain
    events = a_row()["events"]
    events[1] = events[1] | {"text": "another thought."}
    assert contact_sheet([a_row(events=events)]) != plain
    events = a_row()["events"]
    events[2] = events[2] | {"score": 41.0}
    assert contact_sheet([a_row(events=events)]) != plain
    verdicts = [contact_sheet([a_row()], share_right=share) for share in (None, 0.5, 0.75, 1.0)]
    assert len(set(verdicts)) == 4
    assert sheets.contact_sheet([judged_by_hand(a_row())], title="4 traces") != plain


def test_a_run_that_keeps_final_pictures_only_still_shows_them():
    events = [event | {"picture": None} for event in a_row()["events"]]
    row = a_row(events=events, images=[a_picture((0, 250, 0))], final_picture=0)
    assert num_pixels(opened(contact_sheet([row])), (0, 250, 0)) == 168 * 168


def test_a_dead_rollout_is_shown_with_its_reason():
    dead = a_row(dead_reason="too_long", dead_message="too long", final_picture=None, images=[])
    dead["events"] = dead["events"][:1]
    other = dead | {"dead_reason": "crash"}
    assert contact_sheet([dead]) != contact_sheet([other])


def test_large_pictures_are_shrunk():
    row = a_row(images=[a_picture((250, 0, 0), 384), a_picture((0, 250, 0), 384)])
    assert num_pixels(opened(contact_sheet([row])), (250, 0, 0)) == 168 * 168


@pytest.mark.parametrize(
    "text",
    [
        "a\x1b[31mred\x07\r\n cat",
        "\u202eevil\u2066 \u0000",
        "\u6a39\U0001f333 tree",
        "half \ud800 a pair",
        "word" * 5000,
        "{prompt} </svg> %s",
    ],
)
def test_hostile_text_is_drawn_as_letters(text):
    shown = printable(text)
    assert shown.isprintable()
    assert max(shown) < "\u0250"

    events = [event | {"text": text, "better_thought": text} for event in a_row()["events"]]
    sheet = opened(contact_sheet([a_row(prompt=text, events=events)]))
    assert sheet.shape[1] == opened(contact_sheet([a_row()])).shape[1]


def test_an_empty_sheet_is_refused():
    with pytest.raises(InputError, match="at least one trace"):
        contact_sheet([])
