"""Tables as text: comma-separated, tab-separated, and what spreadsheets make of these."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from operator import ne

from pipeline.plan.prompt_lines import MAX_LINE_BYTES, numbered_lines
from pipeline.plan.prompt_rows import (
    Cell,
    Content,
    ReadOptions,
    Row,
    check_unique,
    choose_prompt_column,
    has_prompt_column,
    shown,
)
from pipeline.plan.prompt_sources import OpenFile
from schemas.errors import InputError

TAB = "\t"
DELIMITERS = (",", ";", TAB, "|")
_UNREADABLE = re.compile(r"[\0\ud800-\udfff]")  # halves of pairs stand for bytes, see `_Lines`
_MAX_QUOTED_CHARACTERS = 64 * 1024  # of a field over several lines where quotes may be plain text


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """What parts the columns of a table, and whether a space follows it that is of no column."""

    delimiter: str
    is_spaced: bool = False


def read_table(
    file: OpenFile, options: ReadOptions, dialect: Dialect, *, advice: str = ""
) -> Content:
    """The rows below a header. All values are strings.

    Where tabs part the columns, a quote that closes nothing is text, as such files are published.
    Elsewhere it makes an InputError, as do a header that is no header and one without a prompt.
    `advice` is said beside that a column can be named.
    """
    csv.field_size_limit(MAX_LINE_BYTES)  # of this process, where nothing else reads CSV
    header, _ = _opened(file, dialect)
    if header is None:
        return Content(rows=iter(()))
    if fault := _unreadable(header.cells):
        raise InputError(
            f"{file.name}:{header.line}: the header holds {fault}; save the table as UTF-8"
        )
    ignored = _empty_columns(file, dialect, header.cells)
    columns = [cell for index, cell in enumerate(header.cells) if index not in ignored]
    check_unique(columns, options, f"{file.name}:{header.line}")
    _, lines = _opened(file, dialect)
    return Content(
        rows=_rows(lines, dialect, header.cells, ignored, file.name),
        prompt_column=choose_prompt_column(columns, options, file.name, advice=advice),
        columns=header.cells,
    )


def _opened(file: OpenFile, dialect: Dialect) -> tuple["_Record | None", "_Lines"]:
    """The header, and the lines below it."""
    lines = _Lines(numbered_lines(file.start(), file.name))
    header = _record(lines, dialect, file.name, width=None)
    while header and header.is_blank:
        header = _record(lines, dialect, file.name, width=None)
    return header, lines


def _empty_columns(file: OpenFile, dialect: Dialect, header: Sequence[str]) -> Set[int]:
    """Which columns have neither a name nor a value, as spreadsheets leave them at the end."""
    nameless = {index for index, cell in enumerate(header) if not cell.strip()}
    _, lines = _opened(file, dialect)
    while nameless and (record := _record(lines, dialect, file.name, width=len(header))):
        nameless -= {index for index, cell in enumerate(record.cells) if cell.strip()}
    return nameless


def dialect_of(lines: Sequence[str], delimiter: str) -> Dialect:
    """How the first lines of a table are written: `id, prompt`, or a quote behind a space, which no
    value begins with that was written without one.
    """
    if delimiter == TAB:
        return Dialect(delimiter=delimiter)
    spaced = Dialect(delimiter=delimiter, is_spaced=True)
    rows, without = (parsed(lines, each) for each in (Dialect(delimiter=delimiter), spaced))
    has_spaced_header = len(rows) > 0 < len(rows[0]) - 1 and all(
        cell.startswith(" ") for cell in rows[0][1:]
    )
    bare = [[cell.lstrip(" ") for cell in row] for row in rows]
    has_spaced_quotes = any(map(ne, bare, without))
    return spaced if has_spaced_header or has_spaced_quotes else Dialect(delimiter=delimiter)


def parsed(lines: Sequence[str], dialect: Dialect) -> list[list[str]]:
    """Rows, as far as they can be read as such."""
    rows: list[list[str]] = []
    with suppress(csv.Error):
        for row in _reader((f"{line}\n" for line in lines), dialect):
            rows.append(row)
    return rows


def _reader(lines: Iterable[str], dialect: Dialect) -> Iterator[list[str]]:
    return csv.reader(
        lines, delimiter=dialect.delimiter, skipinitialspace=dialect.is_spaced, strict=True
    )


def header_of(head: str, delimiter: str) -> list[str]:
    """The cells of the first line, under a delimiter that may be the wrong one."""
    dialect = Dialect(delimiter=delimiter, is_spaced=delimiter != TAB)
    try:
        return next(_reader(io.StringIO(head, newline="\n"), dialect))
    except StopIteration:
        return []
    except csv.Error:
        return head.partition("\n")[0].rstrip("\r").split(delimiter)


def choose_delimiter(head: str, preferred: str, options: ReadOptions) -> str:
    """What parts the columns: what makes a prompt column of the header, else most columns."""
    candidates = sorted(DELIMITERS, key=lambda delimiter: delimiter != preferred)
    headers = {delimiter: header_of(head, delimiter) for delimiter in candidates}
    for delimiter, header in headers.items():
        if has_prompt_column(header, options):
            return delimiter
    return max(headers, key=lambda delimiter: len(headers[delimiter]))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Record:
    """The lines of a record, and its cells."""

    line: int  # its first
    original: str
    cells: list[str]

    @property
    def is_blank(self) -> bool:
        return not any(cell.strip() for cell in self.cells)


@dataclass(kw_only=True, slots=True)
class _Taken:
    """Lines that were taken for one record, and may be given back."""

    lines: list[tuple[int, str]] = field(default_factory=list)
    num_characters: int = 0


class _Lines:
    """Lines as text. A byte that is not UTF-8 is half a surrogate pair, which no text holds."""

    def __init__(self, lines: Iterator[tuple[int, bytes]]) -> None:
        self._lines = lines
        self._given_back: list[tuple[int, str]] = []

    def take(self, taken: _Taken, most: int) -> Iterator[str]:
        """The next lines, as long as a record needs more and has no more characters than that."""
        while taken.num_characters <= most:
            if self._given_back:
                number, text = self._given_back.pop()
            elif line := next(self._lines, None):
                number, text = line[0], line[1].decode("utf-8", "surrogateescape")
                text = text.removeprefix("\ufeff") if number == 1 else text
            else:
                return
            taken.lines.append((number, text))
            taken.num_characters += len(text)
            yield text

    def give_back(self, lines: Sequence[tuple[int, str]]) -> None:
        self._given_back.extend(reversed(lines))


def _record(lines: _Lines, dialect: Dialect, name: str, *, width: int | None) -> _Record | None:
    """The next record; None at the end. `width`: how many columns it should have, if known."""
    taken, is_lenient = _Taken(), dialect.delimiter == TAB
    most = _MAX_QUOTED_CHARACTERS if is_lenient else MAX_LINE_BYTES
    try:
        cells = next(_reader(lines.take(taken, most), dialect), None)
    except csv.Error as error:
        if not is_lenient:
            raise _malformed(taken, str(error), name) from error
        cells = _first_line_alone(lines, taken)
    else:
        if cells is None:
            return None
        if is_lenient and width and not _is_one_row(taken, cells, width):
            cells = _first_line_alone(lines, taken)
    original = "".join(text for _, text in taken.lines).rstrip("\r\n")
    return _Record(line=taken.lines[0][0], original=original, cells=cells)


def _is_one_row(taken: _Taken, cells: Sequence[str], width: int) -> bool:
    """Whether quotes made a row of these lines, and not of rows that begin or end with a quote."""
    if len(cells) != width:
        return False
    if len(taken.lines) == 1 or width == 1:
        return True
    return any(text.count(TAB) != width - 1 for _, text in taken.lines)


def _first_line_alone(lines: _Lines, taken: _Taken) -> list[str]:
    lines.give_back(taken.lines[1:])
    del taken.lines[1:]
    return taken.lines[0][1].rstrip("\r\n").split(TAB)


def _malformed(taken: _Taken, reason: str, name: str) -> InputError:
    (line, first), (last, text) = taken.lines[0], taken.lines[-1]
    if reason == "unexpected end of data":
        reason = "a quote opens a field and nothing closes it"
    elif "\r" in text.rstrip("\r\n"):
        reason = "a carriage return by itself; lines end with a line feed, or with both"
    until = f" (up to line {last})" if last > line else ""
    return InputError(
        f"{name}:{line}: malformed CSV: {reason}{until}: {shown(first)}; quote the whole field, "
        "and double each quote in it"
    )


def _rows(
    lines: _Lines, dialect: Dialect, columns: list[str], ignored: Set[int], name: str
) -> Iterator[Row]:
    """Blank rows are at fault, save those at the very end."""
    blanks: list[_Record] = []
    while record := _record(lines, dialect, name, width=len(columns)):
        if record.is_blank:
            blanks.append(record)
            continue
        for blank in blanks:
            yield Row(line=blank.line, original=blank.original, fault="the row is empty")
        blanks.clear()
        yield _row(record, dialect.delimiter, columns, ignored)


def _row(record: _Record, delimiter: str, columns: list[str], ignored: Set[int]) -> Row:
    fault = _unreadable(record.cells)
    if not fault and len(record.cells) != len(columns):
        fault = f"fields: {len(record.cells)}, where the header has {len(columns)}"
        if len(record.cells) > len(columns):
            fault += f"; a field that holds {delimiter!r} has to be quoted"
    if record.cells == columns:
        fault = "the header again, as where tables were put together: take this line away"
    original = record.original.encode("utf-8", "surrogateescape")
    if fault:
        return Row(line=record.line, original=original, fault=fault)
    fields: dict[str, Cell] = {
        column: cell
        for index, (column, cell) in enumerate(zip(columns, record.cells, strict=True))
        if index not in ignored
    }
    return Row(line=record.line, original=original, fields=fields)


def _unreadable(cells: Sequence[str]) -> str | None:
    bad = _UNREADABLE.search("".join(cells))
    if bad is None:
        return None
    return "a NUL byte" if bad[0] == "\0" else "bytes that are not UTF-8"
