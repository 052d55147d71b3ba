"""A contact sheet: rollouts at a glance, one below the other, as a PNG.

Each shows its prompt, and the canvas after every drawing: the thought that it was drawn from, what
the critic said of it, and what the exact scorer says where there is one; last the finished picture.
What rollouts say is anybody's text: it is drawn as letters, cut to its cell, and what does not
print is escaped.
"""

import io
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from pipeline.pictures import Pixels
from pipeline.view.verdicts import Drawing, JudgedTrace
from schemas.errors import InputError
from schemas.rows import EventRow
from schemas.trace import Verdict

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

_CELL = 168  # pixels a picture's side, shown
_GAP = 14
_BETWEEN = 10  # two strips
_LINE, _FONT_SIZE, _TITLE_SIZE = 16, 12, 15
_CELL_CHARACTERS = 27  # that fit below a picture, about
_THOUGHT_LINES, _SEEN_LINES, _DEAD_LINES = 3, 2, 8
_PROMPT_CHARACTERS = 400
_LETTERS = 0x250  # the default font has what comes before

Colour: TypeAlias = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""
Line: TypeAlias = tuple[str, Colour]
"""A line of text that fits its cell."""

_BACKGROUND, _INK, _QUIET, _RULE = (250, 250, 248), (30, 30, 30), (115, 115, 115), (222, 222, 218)
_GOOD, _BAD, _MISSED, _FINAL = (30, 125, 60), (190, 45, 40), (200, 110, 0), (40, 80, 170)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cell:
    """A picture and what is written below it."""

    picture: Pixels | None  # None: the trace does not keep it, and it cannot be painted
    frame: Colour
    lines: tuple[Line, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Strip:
    """One rollout."""

    heading: str
    cells: tuple[_Cell, ...]


def contact_sheet(traces: Sequence[JudgedTrace], *, title: str = "") -> bytes:
    """A PNG of these rollouts under a title. Raises InputError if there is none."""
    from PIL import Image, ImageDraw

    strips = [_strip(trace) for trace in traces]
    if not strips:
        raise InputError("a contact sheet needs at least one trace; grow some first")
    columns = max(len(strip.cells) for strip in strips)
    titles = _wrapped(title, int(columns * _CELL_CHARACTERS * _FONT_SIZE / _TITLE_SIZE), 3)
    headings = [_wrapped(strip.heading, columns * _CELL_CHARACTERS, 3) for strip in strips]
    captions = [max((len(cell.lines) for cell in strip.cells), default=0) for strip in strips]
    heights = [
        _GAP + (len(lines) + caption) * _LINE + _CELL + 12 + _BETWEEN
        for lines, caption in zip(headings, captions, strict=True)
    ]
    top = _GAP + len(titles) * (_LINE + 4)
    sheet = Image.new("RGB", (columns * (_CELL + _GAP) + _GAP, top + sum(heights)), _BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    _write(pen, (_GAP, _GAP), [(line, _INK) for line in titles], size=_TITLE_SIZE, line=_LINE + 4)
    for strip, lines, height in zip(strips, headings, heights, strict=True):
        pen.line((_GAP, top, sheet.width - _GAP, top), fill=_RULE)
        _write(pen, (_GAP, top + _BETWEEN), [(line, _INK) for line in lines])
        below = top + _BETWEEN + len(lines) * _LINE + 6
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


def _strip(trace: JudgedTrace) -> _Strip:
    row, cells = trace.row, list(_cells(trace.drawings))
    if row["dead_reason"] is not None:
        words = f"dead: {row['dead_reason']}. {row['dead_message'] or ''}"
        lines = tuple((line, _BAD) for line in _wrapped(words, _CELL_CHARACTERS, _DEAD_LINES))
        cells.append(_Cell(picture=None, frame=_BAD, lines=lines))
    elif trace.picture is not None:
        finished = (("the finished picture", _FINAL),)
        cells.append(_Cell(picture=trace.picture, frame=_FINAL, lines=finished))
    return _Strip(heading=row["prompt"][:_PROMPT_CHARACTERS], cells=tuple(cells))


def _cells(drawings: Sequence[Drawing]) -> Iterator[_Cell]:
    """A cell for every drawing, the replaced ones too."""
    said = ""
    for drawing in drawings:
        event = drawing.event
        is_replaced = event["superseded_by"] is not None
        thought = _new_words(event["text"], said)
        said = said if is_replaced else event["text"]
        if event["revision"]:
            thought = f"again: {thought}"
        yield _Cell(
            picture=drawing.canvas,
            frame=_BAD if is_replaced else _MISSED if drawing.is_missed else _QUIET,
            lines=(
                *((line, _INK) for line in _wrapped(thought, _CELL_CHARACTERS, _THOUGHT_LINES)),
                *_critique(drawing.critique),
                *_truth(drawing),
            ),
        )


def _new_words(text: str, said: str) -> str:
    """A drawing's text without the thoughts of the regions before."""
    return text[len(said) :].strip() if said and text.startswith(said) else text


def _critique(critique: EventRow | None) -> Iterator[Line]:
    """What the critic said of a drawing."""
    if critique is None:
        yield ("critic: not asked again", _QUIET)
        return
    words = critique["text"].partition("SCORE")[0].strip()
    if critique["verdict"] != Verdict.ACCEPT:
        yield from ((line, _QUIET) for line in _wrapped(words, _CELL_CHARACTERS, _SEEN_LINES))
    score = "no score" if critique["score"] is None else f"{critique['score']:g}"
    colour = _GOOD if critique["verdict"] == Verdict.ACCEPT else _BAD
    yield (f"critic: {score}, {critique['verdict']}", colour)


def _truth(drawing: Drawing) -> Iterator[Line]:
    """What the exact scorer says of a drawing, where it has a say."""
    share = drawing.share_right
    if share is None:
        return
    if share == 1.0:
        yield ("scorer: right", _GOOD)
        return
    said = f"scorer: {100 * share:.0f} % right" + ", not seen" * drawing.is_missed
    yield (said, _MISSED if drawing.is_missed else _BAD)


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


def _shown(pixels: Pixels) -> "Image":
    """A picture at the size of a cell: small ones keep their pixels, large ones are averaged."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    is_small = picture.width <= _CELL
    resampling = Image.Resampling.NEAREST if is_small else Image.Resampling.LANCZOS
    return picture.resize((_CELL, _CELL), resampling)


def _write(
    pen: "ImageDraw",
    corner: tuple[int, int],
    lines: Sequence[Line],
    *,
    size: int = _FONT_SIZE,
    line: int = _LINE,
) -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(size)
    x, y = corner
    for index, (text, colour) in enumerate(lines):
        pen.text((x, y + index * line), text, fill=colour, font=font)
