"""Everything that a command says goes through `Terminal`. What it quotes is hostile: prompts and
their categories, answers of models, names of files, messages of stores.
"""

import os
import shlex
import time
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from rich.console import Console
from rich.status import Status
from rich.table import Column, Table
from rich.text import Text

from schemas.json_values import JsonObject

if TYPE_CHECKING:
    from jobs.cluster.snapshot import Snapshot
    from pipeline.pictures import Pixels

_PLAIN_LINE_SECONDS = 10.0  # between two lines where there is no terminal to redraw one
_PICTURE_COLUMNS = 48  # characters, each two pixels high
_HOSTILE = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}  # Unicode categories


class Terminal:
    """Standard output, or another file, which people or scripts read.

    Text is shown letter by letter: it is never markup, and a character that could move the cursor,
    hide, or reorder what is around it is spelt out, as is a line break inside of a line.
    """

    def __init__(self, file: IO[str] | None = None, *, width: int | None = None) -> None:
        self._console = _LastingConsole(file=file, width=width)

    def say(self, *lines: str, style: str = "", can_wrap: bool = False) -> None:
        """Print lines, each of them whole, as scripts like them, or wrapped at words for people."""
        for line in lines:
            text = Text(printable(line), style=style)
            self._console.print(text, soft_wrap=not can_wrap)

    def fail(self, error: Exception) -> None:
        """Print what went wrong. The line breaks of the message are kept."""
        self.say(*f"coppice: {error}".split("\n"))

    def say_json(self, value: JsonObject) -> None:
        """Print one object, in ASCII."""
        self._console.print_json(data=value, ensure_ascii=True)

    def say_table(self, headings: Sequence[Column | str], rows: Iterable[Sequence[str]]) -> None:
        """Print rows of cells under our own headings."""
        table = Table(*headings, box=None)
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        self._console.print(table)

    def show_picture(self, pixels: "Pixels") -> None:
        """Draw a picture in half blocks, two pixels a character. Nothing where no one looks."""
        if self._console.is_terminal:
            self._console.print(_half_blocks(pixels))

    def progress(self, clock: Callable[[], float] = time.monotonic) -> "ProgressLine":
        """A line that shows how far a run is."""
        return ProgressLine(self._console, clock)


class _LastingConsole(Console):
    """Goes on without a word when nobody reads any more: a run outlives `| head`."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        silence(self.file.fileno())


def silence(descriptor: int) -> None:
    """Have what is written to a file from now on go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


class ProgressLine:
    """One line that moves: redrawn on a terminal, printed now and then elsewhere."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock
        self._printed_at = clock() - _PLAIN_LINE_SECONDS
        self._waiting = ""
        self._status: Status | None = None

    def __enter__(self) -> "ProgressLine":
        if self._console.is_terminal:
            self._status = self._console.status(Text("starting Ray and loading models"))
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self._status:
            self._status.stop()

    def show(self, snapshot: "Snapshot") -> None:
        """Show how far the run is."""
        self.tell(describe(snapshot), waiting=snapshot.waiting)

    def tell(self, progress: str, *, waiting: str = "") -> None:
        """Show how far the work is. What is waited for is told at once."""
        line = Text(printable(progress))
        if self._status:
            self._status.update(line)
            return
        is_news = waiting != self._waiting
        if is_news or self._clock() - self._printed_at >= _PLAIN_LINE_SECONDS:
            self._printed_at, self._waiting = self._clock(), waiting
            self._console.print(line, soft_wrap=True)


def describe(snapshot: "Snapshot") -> str:
    """`18 of 24 rollouts, 2 of 3 shards committed (16 ok, 0 dead), 2 actors, 1.9/s, 3 s left`."""
    if not snapshot.num_actors:
        return snapshot.waiting or "starting actors and loading models"
    parts = [
        f"{snapshot.num_finished:,} of {snapshot.num_planned:,} rollouts",
        f"{snapshot.num_committed:,} of {snapshot.num_shards:,} shards committed "
        f"({snapshot.num_ok:,} ok, {snapshot.num_dead:,} dead)",
        counted(snapshot.num_actors, "actor"),
    ]
    if wait := snapshot.store_wait:
        clock = time.strftime("%H:%M:%S", time.localtime(wait.since))
        parts.append(f"waiting for {wait.whom} since {clock}{wait.what and f', to {wait.what}'}")
    if snapshot.endpoints_away:
        parts.append(f"waiting for endpoint {' and '.join(snapshot.endpoints_away)}")
    if snapshot.waiting:
        parts.append(snapshot.waiting)
    if rate := snapshot.rollouts_per_second:
        left = (snapshot.num_planned - snapshot.num_finished) / rate
        parts += [f"{rate:.1f} rollouts/s", f"{duration(left)} left"]
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """`42 s`, `3 min 20 s`, `5 h 12 min`."""
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def size(num_bytes: float) -> str:
    """`812 B`, `1.3 MB`, `2.0 GB`: decimal, as storage is billed."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if round(num_bytes, 1) < 1000 or unit == "TB":  # as shown: 999.95 is 1000.0
            break
        num_bytes /= 1000
    return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"


def counted(number: int, noun: str) -> str:
    """`1 shard`, `2 shards`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def as_typed(url: str) -> str:
    """A run's URL as one would type it here: relative where it can be, quoted where it must be."""
    path = Path(url)
    return shlex.quote(
        str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else url
    )


def printable(text: str) -> str:
    """One line that cannot move the cursor, hide, or reorder what is around it."""
    return "".join(
        f"\\u{ord(char):04x}" if unicodedata.category(char) in _HOSTILE else char for char in text
    )


def _half_blocks(pixels: "Pixels") -> Text:
    import numpy as np
    from PIL import Image

    height, width, _ = pixels.shape
    num_lines = _PICTURE_COLUMNS * height // width // 2
    small = np.asarray(Image.fromarray(pixels).resize((_PICTURE_COLUMNS, 2 * num_lines)))
    text = Text()
    for uppers, lowers in zip(small[::2], small[1::2], strict=True):
        for upper, lower in zip(uppers, lowers, strict=True):
            text.append("\u2580", style=f"{_hex(upper)} on {_hex(lower)}")
        text.append("\n")
    return text


def _hex(color: "Pixels") -> str:
    """`color` is uint8 [3]."""
    return "#{:02x}{:02x}{:02x}".format(*color)
