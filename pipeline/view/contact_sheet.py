"""A contact sheet: rollouts at a glance, one below the other, as a PNG.

Each shows its prompt, the canvas after every drawing with the thought that it was drawn from and
the score that it got, and the finished picture. Works on rows of trace files. What rollouts say is
anybody's text: it is drawn as letters, cut to its cell, and what does not print is escaped.
"""

import io
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from pipeline.pictures import decode_picture
from schemas.errors import InputError
from schemas.rows import EventRow, TraceRow
from schemas.trace import Role, Verdict

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

_CELL = 168  # pixels a picture's side, shown
_GAP = 14
_LINE, _FONT_SIZE = 16, 12
_CELL_CHARACTERS = 27  # that fit below a picture, about
_THOUGHT_LINES, _BETTER_LINES = 4, 3
_PROMPT_CHARACTERS = 400
_LETTERS = 0x250  # the default font has what comes before
_CELL_LINES = _THOUGHT_LINES + 1 + _BETTER_LINES

Colour: TypeAlias = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""
Line: TypeAlias = tuple[str, Colour]
"""A line of text that fits its cell."""

_BACKGROUND, _INK, _QUIET = (250, 250, 248), (30, 30, 30), (120, 120, 120)
_GOOD, _BAD, _FINAL = (30, 125, 60), (190, 45, 40), (40, 80, 170)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cell:
    """A picture and what is written below it."""

    picture: bytes | None  # encoded; None: the trace does not keep it
    frame: Colour
    lines: tuple[Line, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Strip:
    """One rollout."""

    heading: str
    cells: tuple[_Cell, ...]


def contact_sheet(trace_rows: Sequence[TraceRow]) -> bytes:
    """A PNG of these rollouts. Canvases are shown where the run kept all pictures.

    Raises InputError if there is no row: a sheet needs one.
    """
    from PIL import Image, ImageDraw

    strips = [_strip(trace_row) for trace_row in trace_rows]
    if not strips:
        raise InputError("a contact sheet needs at least one trace; grow some first")
    columns = max(len(strip.cells) for strip in strips)
    headings = [_wrapped(strip.heading, columns * _CELL_CHARACTERS, 3) for strip in strips]
    captions = [max((len(cell.lines) for cell in strip.cells), default=0) for strip in strips]
    heights = [
        _GAP + (len(lines) + caption) * _LINE + _CELL + 12
        for lines, caption in zip(headings, captions, strict=True)
    ]
    sheet = Image.new("RGB", (columns * (_CELL + _GAP) + _GAP, sum(heights) + _GAP), _BACKGROUND)
    pen, top = ImageDraw.Draw(sheet), _GAP
    for strip, lines, height in zip(strips, headings, heights, strict=True):
        _write(pen, (_GAP, top), [(line, _INK) for line in lines])
        below = top + len(lines) * _LINE + 4
        for index, cell in enumerate(strip.cells):
            _draw_cell(sheet, pen, cell, (_GAP + index * (_CELL + _GAP), below))
        top += height
    sink = io.BytesIO()
    sheet.save(sink, "PNG", optimize=True)
    return sink.getvalue()


def printable(text: str) -> str:
    """The text as one line of letters that the font has; anything else is escaped."""
    return "".join(
        letter if letter.isprintable() and ord(letter) < _LETTERS else _escaped(letter)
        for letter in " ".join(text.split())
    )


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")


def _strip(trace_row: TraceRow) -> _Strip:
    cells = list(_cells(trace_row))
    if trace_row["dead_reason"] is not None:
        words = _wrapped(
            f"dead: {trace_row['dead_reason']}. {trace_row['dead_message'] or ''}",
            _CELL_CHARACTERS,
            _CELL_LINES,
        )
        lines = tuple((line, _BAD) for line in words)
        cells.append(_Cell(picture=None, frame=_BAD, lines=lines))
    elif trace_row["final_picture"] is not None:
        final = trace_row["images"][trace_row["final_picture"]]["bytes"]
        cells.append(_Cell(picture=final, frame=_FINAL, lines=(("the finished picture", _FINAL),)))
    return _Strip(heading=trace_row["prompt"][:_PROMPT_CHARACTERS], cells=tuple(cells))


def _cells(trace_row: TraceRow) -> Iterator[_Cell]:
    """A cell for every drawing, the replaced ones too."""
    said = ""
    for event in trace_row["events"]:
        if event["role"] == Role.DRAW:
            thought = _new_words(event["text"], said)
            is_replaced = event["superseded_by"] is not None
            said = said if is_replaced else event["text"]
            picture = event["picture"]
            yield _Cell(
                picture=None if picture is None else trace_row["images"][picture]["bytes"],
                frame=_BAD if is_replaced else _QUIET,
                lines=(
                    *((line, _INK) for line in _wrapped(thought, _CELL_CHARACTERS, _THOUGHT_LINES)),
                    *_judgement(trace_row["events"], event),
                ),
            )


def _new_words(text: str, said: str) -> str:
    """A drawing's text without the thoughts of the regions before."""
    return text[len(said) :].strip() if said and text.startswith(said) else text


def _judgement(events: Sequence[EventRow], drawing: EventRow) -> Iterator[Line]:
    """What the critique of a drawing came to: the last one, if it was asked again."""
    critiques = [
        event
        for event in events
        if event["role"] == Role.REFLECT
        and event["region"] == drawing["region"]
        and event["revision"] == drawing["revision"]
    ]
    if not critiques:
        yield ("not judged", _QUIET)
        return
    last = critiques[-1]
    score = "no score" if last["score"] is None else f"{last['score']:g}"
    colour = _GOOD if last["verdict"] == Verdict.ACCEPT else _BAD
    yield (f"{score}: {last['verdict']}", colour)
    if last["verdict"] == Verdict.REVISE:
        better = f"better: {last['better_thought']}"
        yield from ((line, _QUIET) for line in _wrapped(better, _CELL_CHARACTERS, _BETTER_LINES))


def _wrapped(text: str, width: int, most: int) -> list[str]:
    """Lines of so many characters; what is left over ends in three dots."""
    return textwrap.wrap(
        printable(text), width, max_lines=most, placeholder=" ...", break_on_hyphens=False
    )


def _draw_cell(sheet: "Image", pen: "ImageDraw", cell: _Cell, corner: tuple[int, int]) -> None:
    x, y = corner
    pen.rectangle((x - 2, y - 2, x + _CELL + 1, y + _CELL + 1), outline=cell.frame, width=2)
    if cell.picture is not None:
        sheet.paste(_shown(cell.picture), (x, y))
    _write(pen, (x, y + _CELL + 6), cell.lines)


def _shown(data: bytes) -> "Image":
    """A picture at the size of a cell: small ones keep their pixels, large ones are averaged."""
    from PIL import Image

    picture = Image.fromarray(decode_picture(data))
    is_small = picture.width <= _CELL
    resampling = Image.Resampling.NEAREST if is_small else Image.Resampling.LANCZOS
    return picture.resize((_CELL, _CELL), resampling)


def _write(pen: "ImageDraw", corner: tuple[int, int], lines: Sequence[Line]) -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(_FONT_SIZE)
    x, y = corner
    for index, (line, colour) in enumerate(lines):
        pen.text((x, y + index * _LINE), line, fill=colour, font=font)
