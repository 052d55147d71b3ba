"""A film strip as one piece of HTML, for a notebook: no script, no style sheet, nothing fetched.

Every text is escaped, and pictures stand in it as they are.
"""

import base64
from collections.abc import Sequence
from html import escape

from pipeline.pictures import Pixels, encode_webp
from pipeline.scoring.painting import Pictures
from pipeline.view.strips import Chip, Critique, Frame, Strip

_SIDE = 150  # CSS pixels
_GREEN, _RED, _GREY = "#2f6b4f", "#a8461f", "#77776c"
_LONGEST = 400  # characters of a text; the gallery has all of it


def strip_html(strip: Strip, pictures: Pictures) -> str:
    """The strip of a trace with its pictures; in the place of one that is missing stand words."""
    cells = [_frame(frame, pictures.get(frame.event)) for frame in strip.frames]
    if strip.is_finished:
        caption = _line("the finished picture", _GREEN) + _chips(strip.chips)
        cells.append(_cell("", pictures.get(None), caption, _GREEN))
    dead = f"<p style='color:{_RED}'>{_text(strip.dead)}</p>" if strip.dead else ""
    return (
        "<div style='font:13px/1.45 system-ui,sans-serif;overflow-wrap:anywhere'>"
        f"<p dir='auto' style='font-size:15px;margin:8px 0'><b>{_text(strip.prompt)}</b><br>"
        f"<span style='color:{_GREY}'>{_text(strip.trace_id)}</span></p>{dead}"
        f"<div style='display:flex;flex-wrap:wrap;gap:14px'>{''.join(cells)}</div></div>"
    )


def _frame(frame: Frame, pixels: Pixels | None) -> str:
    head = f"Region {frame.region + 1}{', drawn again' if frame.revision else ''}"
    caption = _judgement(frame.critique) + _chips(frame.chips)
    thought = f"<span style='color:{_GREY}'>{head}</span><br>{_text(frame.thought)}"
    return _cell(thought, pixels, caption, _RED if frame.is_replaced else "#d8d5cb")


def _judgement(critique: Critique | None) -> str:
    if critique is None:
        return _line("not judged", _GREY)
    score = "" if critique.score is None else f"{critique.score:g}: "
    colour = _GREEN if critique.verdict == "accept" else _RED
    better = _line(f"better: {critique.better}", _GREY) if critique.verdict == "revise" else ""
    return _line(f"{score}{critique.verdict}", colour) + better


def _cell(thought: str, pixels: Pixels | None, caption: str, frame: str) -> str:
    return (
        f"<div style='width:{_SIDE}px'><div dir='auto' style='min-height:60px'>{thought}</div>"
        f"{_picture(pixels, frame)}{caption}</div>"
    )


def _picture(pixels: Pixels | None, frame: str) -> str:
    size = f"width:{_SIDE}px;height:{_SIDE}px;border:1px solid {frame};box-sizing:border-box"
    if pixels is None:
        return f"<div style='{size}'>no picture</div>"
    data = base64.b64encode(encode_webp(pixels)).decode()
    return (
        f"<img alt='canvas' src='data:image/webp;base64,{data}' "
        f"style='{size};image-rendering:{'pixelated' if len(pixels) < _SIDE else 'auto'}'>"
    )


def _chips(chips: Sequence[Chip]) -> str:
    values = (f"{name} {value:.4g}" for name, value in chips if isinstance(value, float))
    return "".join(_line(value, _GREY) for value in values)


def _line(text: str, colour: str) -> str:
    return f"<div dir='auto' style='color:{colour}'>{_text(text)}</div>"


def _text(text: str) -> str:
    cut = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."
    return escape(cut, quote=True)
