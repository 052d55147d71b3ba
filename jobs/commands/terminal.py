"""What the terminal shows while a run grows, and when it ends. Prompts are hostile here too."""

import shlex
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.status import Status
from rich.text import Text

if TYPE_CHECKING:
    from jobs.cluster.snapshot import Snapshot

_PLAIN_LINE_SECONDS = 10.0  # between two lines where there is no terminal to redraw one


class ProgressLine:
    """One line that moves: redrawn on a terminal, printed now and then elsewhere."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._printed_at = clock() - _PLAIN_LINE_SECONDS
        self._status: Status | None = None

    def __enter__(self) -> "ProgressLine":
        if self._console.is_terminal:
            self._status = self._console.status(Text("starting Ray and loading models"))
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def show(self, snapshot: "Snapshot") -> None:
        """Show how far the run is."""
        line = Text(describe(snapshot))
        if self._status:
            self._status.update(line)
        elif self._clock() - self._printed_at >= _PLAIN_LINE_SECONDS:
            self._printed_at = self._clock()
            self._console.print(line, soft_wrap=True)


def describe(snapshot: "Snapshot") -> str:
    """`18 of 24 rollouts, 2 of 3 shards committed (16 ok, 0 dead), 2 actors, 1.9/s, 3 s left`."""
    if not snapshot.num_actors:
        return "starting actors and loading models"
    parts = [
        f"{snapshot.num_finished:,} of {snapshot.num_planned:,} rollouts",
        f"{snapshot.num_committed:,} of {snapshot.num_shards:,} shards committed "
        f"({snapshot.num_ok:,} ok, {snapshot.num_dead:,} dead)",
        counted(snapshot.num_actors, "actor"),
    ]
    if snapshot.is_store_away:
        parts.append("waiting for the store")
    if rate := snapshot.rollouts_per_second:
        left = (snapshot.num_planned - snapshot.num_finished) / rate
        parts += [f"{rate:.1f} rollouts/s", f"{duration(left)} left"]
    return ", ".join(parts)


def say(console: Console, text: str) -> None:
    """Print lines as they are, whatever they quote: no markup, no wrapping, nothing that hides."""
    console.print(Text("\n".join(printable(line) for line in text.split("\n"))), soft_wrap=True)


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
    """Text that cannot move the cursor, hide, or reorder what is around it."""
    hostile = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    return "".join(
        f"\\u{ord(char):04x}" if unicodedata.category(char) in hostile else char for char in text
    )
