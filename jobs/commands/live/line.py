"""Progress as one line: for a terminal of so many columns, or whole for a log."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.text import Text

WINDOW_SECONDS = 180.0
"""A rate is of the last so many seconds."""

_SAMPLE_SECONDS = 1.0  # between two samples of it
_FULL_BAR, _LEAST_BAR = 20, 5
_DONE, _LEFT = "\u2501", "\u254c"
_ROUNDED_FROM = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """Something beside the count, in full and as short as it can be said."""

    text: str
    brief: str = ""  # empty: the text
    style: str = ""  # of rich
    is_extra: bool = False  # for it, no other is said in brief


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far some work is."""

    noun: str  # of what is counted, plural
    num_done: int
    num_all: int  # 0: nobody knows
    facts: Sequence[Fact] = ()  # those that matter most come first
    waiting: str = ""  # for what, in words: told at once


@dataclass(slots=True)
class Pace:
    """How fast a count grows, over the last minutes; and the most that it ever was."""

    most: int = 0
    _samples: deque[tuple[float, int]] = field(default_factory=deque)  # seconds, count

    def note(self, now: float, count: int) -> None:
        """`now` is in seconds and never goes back."""
        self.most = max(self.most, count)
        if len(self._samples) > 1 and now - self._samples[-2][0] < _SAMPLE_SECONDS:
            self._samples.pop()
        self._samples.append((now, self.most))
        while len(self._samples) > 2 and now - self._samples[1][0] >= WINDOW_SECONDS:
            self._samples.popleft()

    @property
    def per_second(self) -> float:
        """0 where nothing can be said yet."""
        if len(self._samples) < 2:
            return 0.0
        (began, before), (now, count) = self._samples[0], self._samples[-1]
        return (count - before) / (now - began) if now > began else 0.0


def whole_line(progress: Progress, pace: Pace) -> str:
    """`18 of 24 rollouts, 2.0/s, 3 s left, 1 dead (timeout), 2 of 3 shards`."""
    of_all = f" of {progress.num_all:,}" if progress.num_all else ""
    parts = [f"{pace.most:,}{of_all} {progress.noun}"]
    parts += _speed(progress, pace)
    return ", ".join([*parts, *(fact.text for fact in _facts(progress, pace))])


def fitted_line(progress: Progress, pace: Pace, width: int) -> Text:
    """A bar and as much of the rest as fits on so many columns."""
    share = min(1.0, pace.most / progress.num_all) if progress.num_all else 0.0
    head = [f"{int(100 * share)}%", f"{brief(pace.most)}/{brief(progress.num_all)}"]
    if not progress.num_all:
        head = [brief(pace.most)]
    if progress.noun != "rollouts":  # of which everything else here speaks
        head.append(progress.noun)
    head += _speed(progress, pace)
    left = width - _LEAST_BAR - len(" ".join(head)) - 1
    tail = list(_fitting(_facts(progress, pace), left))
    used = len(" ".join([*head, ", ".join(fact.text for fact in tail)])) + 1
    line = _bar(share, min(_FULL_BAR, width - used)) if width - used >= _LEAST_BAR else Text()
    line.append(" ".join(head))
    for number, fact in enumerate(tail):
        line.append(", " if number else " ")
        line.append(fact.text, style=fact.style)
    return line


def _fitting(facts: Sequence[Fact], columns: int) -> Iterator[Fact]:
    """Those that fit: each in full if all that come after it still fit, else as short as can be."""
    left = columns
    least = [0 if fact.is_extra else len(fact.brief or fact.text) + 2 for fact in facts]
    for number, fact in enumerate(facts):
        is_whole = len(fact.text) + 2 + sum(least[number + 1 :]) <= left
        text = fact.text if is_whole else fact.brief or fact.text
        if len(text) + 2 <= left:
            left -= len(text) + 2
            yield Fact(text=text, style=fact.style)


def _facts(progress: Progress, pace: Pace) -> list[Fact]:
    """What is told beside the count: what it lacks of the most that it was comes first."""
    waits = Fact(text=progress.waiting, brief="waiting", style="yellow")
    facts = [waits] if progress.waiting else []
    if progress.num_done < pace.most:
        facts.append(Fact(text=f"{pace.most - progress.num_done:,} again", style="yellow"))
    return [*facts, *progress.facts]


def _speed(progress: Progress, pace: Pace) -> list[str]:
    rate = pace.per_second
    if not rate:
        return []
    speed = [f"{rate:.1f}/s" if rate >= 1 else f"{rate:.2g}/s"]
    left = (progress.num_all - pace.most) / rate
    return [*speed, f"{about(left)} left"] if progress.num_all else speed


def _bar(share: float, columns: int) -> Text:
    done = int(share * columns)
    bar = Text(_DONE * done, style="green")
    return bar.append(_LEFT * (columns - done), style="dim").append(" ")


def about(seconds: float) -> str:
    """`42 s`, `4 min`, `5.2 h`, `3.1 days`: what is left, no closer than it can be known."""
    if seconds < 60:
        return f"{int(seconds)} s"
    if seconds < 3600:
        return f"{int(seconds / 60)} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def brief(number: int) -> str:
    """`12,345`, `123k`, `1.23M`."""
    if number < _ROUNDED_FROM:
        return f"{number:,}"
    return f"{number // 1000}k" if number < 10**6 else f"{number / 10**6:.2f}M"
