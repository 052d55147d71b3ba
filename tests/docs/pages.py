"""The commands of a page in the order in which it gives them, with the output that it shows, and
the files that it shows.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?<=\n\n)((?:    .*\n)+)")
_PROGRAMS = ("coppice", "python", "ray", "make")  # by which blocks of no language are known


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A command as it is typed, and what the page shows of its output."""

    page: str
    typed: str
    shown: tuple[str, ...] = ()  # lines; empty: the page shows none


def commands_of(page: str, text: str) -> list[Command]:
    """All commands of a page: of fenced blocks for a shell, and of indented ones."""
    blocks = [(match.start(), match[1], match[2]) for match in _FENCED.finditer(text)]
    outside = _FENCED.sub(lambda match: re.sub(".", "x", match[0]), text)  # places stay
    blocks += [
        (match.start(), "", re.sub("^    ", "", match[1], flags=re.MULTILINE))
        for match in _INDENTED.finditer(outside)
    ]
    commands: list[Command] = []
    for _, language, body in sorted(blocks):
        if language == "text" and commands:  # what the last one prints
            commands[-1] = replace(commands[-1], shown=tuple(body.splitlines()))
        elif language in ("", "sh", "bash", "console"):
            commands += _commands_in(page, language, body)
    return commands


def tables_of(text: str) -> list[str]:
    """The TOML files that a page shows."""
    return [body for language, body in _FENCED.findall(text) if language == "toml"]


def _commands_in(page: str, language: str, body: str) -> Iterator[Command]:
    lines = body.replace("\\\n", " ").splitlines()
    if language == "console":
        starts = [index for index, line in enumerate(lines) if line.startswith("$ ")]
        for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
            shown = tuple(lines[start + 1 : stop])
            yield Command(page=page, typed=lines[start].removeprefix("$ "), shown=shown)
        return
    for line in lines:
        words = line.split(" #")[0].split()
        if words and (language or words[0] in _PROGRAMS):
            yield Command(page=page, typed=" ".join(words))


_NUMBER = re.compile(r"\b\d[\d,]*\.?\d*\b")
_ID = re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{12,16}\b")
_TIMED = re.compile(r"^(Grew|Device seconds|Driver|Kept|Traces)\b")


def alike(shown: str, printed: str) -> bool:
    """Whether a line was printed as it is shown, but for ids, times and rates."""
    if _TIMED.match(shown):
        shown, printed = (_NUMBER.sub("N", line) for line in (shown, printed))
        if shown.startswith("Device seconds"):
            shown, printed = (line.partition(":")[0] for line in (shown, printed))
    shown, printed = (_ID.sub("ID", line) for line in (shown, printed))
    return shown == printed


def not_printed(shown: tuple[str, ...], printed: str) -> list[str]:
    """The lines of a page that a command did not print, in their order."""
    lines = iter(printed.splitlines())
    return [line for line in shown if not any(alike(line, other) for other in lines)]
