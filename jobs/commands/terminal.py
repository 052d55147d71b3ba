"""Everything that a command says goes through `Terminal`. What it quotes is hostile: prompts and
their categories, answers of models, names of files, messages of stores.
"""

import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Column, Table
from rich.text import Text

from jobs.commands.live.line import Pace, Progress, fitted_line, whole_line
from pipeline.file_names import is_hostile, quoted, spelt
from schemas.json_values import JsonObject

if TYPE_CHECKING:
    from pipeline.pictures import Pixels

_PLAIN_LINE_SECONDS = 10.0  # between two lines where there is no terminal to redraw one
_FRAMES_PER_SECOND = 8
_PICTURE_COLUMNS = 48  # characters, each two pixels high


class Terminal:
    """Standard output, or another file, which people or scripts read.

    Text is shown letter by letter: it is never markup, and a character that could move the cursor,
    hide, or reorder what is around it is spelt out, as is a line break inside of a line.
    """

    def __init__(self, file: IO[str] | None = None, *, width: int | None = None) -> None:
        is_stderr = file is sys.stderr  # which may come to be another file
        self._console = _LastingConsole(
            file=None if is_stderr else file, stderr=is_stderr, width=width
        )

    def say(self, *lines: str, style: str = "", can_wrap: bool = False) -> None:
        """Print lines, each of them whole, as scripts like them, or wrapped at words for people."""
        console: Console = self._console
        if _open_lines and console.is_terminal:  # above the line that moves there
            console = _open_lines[-1].console
        for line in lines:
            text = Text(printable(line), style=style)
            console.print(text, soft_wrap=not can_wrap)

    def fail(self, error: Exception) -> None:
        """Print what went wrong. The line breaks of the message are kept."""
        settle()
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

    def progress(
        self,
        doing: str,
        *,
        is_logged: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> "ProgressLine":
        """A line that shows how far work is, and these words before there is any to count.

        Where no terminal redraws it, it is a line now and then; not logged, only of counts.
        """
        return ProgressLine(self._console, clock, doing, is_logged=is_logged)

    def doing(self, words: str, *, is_logged: bool = True) -> None:
        """Say at once what goes on, before anything that takes time is even loaded.

        On a terminal it stays until something else moves there, or the command ends. Elsewhere it
        is a line, or nothing, where what is printed is soon there or is for a script.
        """
        if _is_redrawn(self._console):
            self.progress(words).__enter__()
        elif is_logged:
            self.say(words)


class _LastingConsole(Console):
    """Goes on without a word when nobody reads any more: a run outlives `| head`, and, disowned or
    under nohup, its terminal.
    """

    def on_broken_pipe(self) -> None:
        self.quiet = True
        silence(self.file.fileno())

    def _write_buffer(self) -> None:
        try:
            super()._write_buffer()
        except OSError as error:
            is_device = stat.S_ISCHR(os.fstat(self.file.fileno()).st_mode)  # it is no tty any more
            if error.errno != errno.EIO or not is_device:
                raise
            raise BrokenPipeError from error


def silence(descriptor: int) -> None:
    """Have what is written to a file from now on go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def keep_stderr_to_python() -> None:
    """From now on only what Python writes to `sys.stderr` is seen there, and no library's core."""
    stderr = sys.__stderr__
    if stderr is None or sys.stderr is not stderr or stderr.fileno() != 2:
        return  # it is somebody else's, or ours already
    seen, encoding = os.dup(2), stderr.encoding
    silence(2)
    sys.stderr = os.fdopen(seen, "w", buffering=1, encoding=encoding, errors="backslashreplace")


def silence_stderr() -> None:
    """Have what Python writes to standard error from now on go nowhere."""
    silence(sys.stderr.fileno())


class ProgressLine:
    """One line that moves: redrawn on a terminal, printed now and then elsewhere.

    A process has one at a time: who begins another ends it.
    """

    def __init__(
        self, console: Console, clock: Callable[[], float], doing: str, *, is_logged: bool
    ) -> None:
        self.console = console
        self._clock = clock
        self._doing = doing
        self._is_logged = is_logged
        self._progress: Progress | None = None
        self._pace = Pace()
        self._printed_at, self._printed = clock() - _PLAIN_LINE_SECONDS * is_logged, ""
        self._live: Live | None = None

    def __enter__(self) -> "ProgressLine":
        settle()
        if _is_redrawn(self.console):
            self._live = Live(
                _Moving(self._line),
                console=self.console,
                transient=True,
                refresh_per_second=_FRAMES_PER_SECOND,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start(refresh=True)
            _open_lines.append(self)
        elif self._is_logged:
            self._print(self._doing, news=self._doing)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self._live:
            self._live.stop()
            self._live = None
            _open_lines.remove(self)

    @property
    def per_second(self) -> float:
        """How fast the count grows, lately."""
        return self._pace.per_second

    def doing(self, words: str) -> None:
        """Say what goes on while there is nothing to count."""
        self._doing = words
        if not self._live:
            self._print(words, news=words)

    def show(self, progress: Progress) -> None:
        """Show how far the work is. What is waited for is told at once."""
        if self._progress is None or self._progress.noun != progress.noun:
            self._pace = Pace()
        self._pace.note(self._clock(), progress.num_done)
        self._progress = progress
        if not self._live:
            self._print(whole_line(progress, self._pace), news=progress.waiting)

    def _print(self, line: str, *, news: str) -> None:
        is_due = self._clock() - self._printed_at >= _PLAIN_LINE_SECONDS
        if is_due or news != self._printed:
            self._printed_at, self._printed = self._clock(), news
            self.console.print(Text(printable(line)), soft_wrap=True)

    def _line(self, width: int) -> Text:
        if self._progress is None:
            line = Text(self._doing)
        else:
            line = fitted_line(self._progress, self._pace, width)
        if printable(line.plain) != line.plain:
            line = Text(printable(line.plain))
        line.truncate(width)
        return line


class _Moving:
    """Draws a line anew for every frame, as wide as the terminal is by then."""

    def __init__(self, line: Callable[[int], Text]) -> None:
        self._line = line
        self._spinner = Spinner("dots")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        frame = self._spinner.render(console.get_time())
        assert isinstance(frame, Text), "a spinner without words"
        # The last column stays free: a terminal may wrap a line that fills it.
        yield Text.assemble(frame, " ", self._line(options.max_width - 3))


_open_lines: list[ProgressLine] = []  # the one that is drawn now, if there is any


def settle() -> None:
    """End the line that moves, if there is one: what comes next is to stand."""
    while _open_lines:
        _open_lines[-1].stop()


@contextmanager
def settled() -> Iterator[None]:
    """Whatever happens within, no line moves afterwards."""
    try:
        yield
    finally:
        settle()


def _is_redrawn(console: Console) -> bool:
    return console.is_terminal and not console.is_dumb_terminal


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
    typed = str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else url
    return quoted(f"./{typed}" if typed.startswith("-") else typed)


def printable(text: str) -> str:
    """One line that cannot move the cursor, hide, or reorder what is around it."""
    return "".join(f"\\u{ord(char):04x}" if is_hostile(char) else char for char in spelt(text))


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
