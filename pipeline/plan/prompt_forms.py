"""Tells the form of a prompt file by what is in it. Its name only decides where that could be two.

Most prompts hold commas, and some hold tabs or begin with a bracket; so lines of `.txt` are prompts
unless they cannot be: a table, or JSON, under that name is read as what it is.
"""

import io
import json
import re
from collections.abc import Sequence

from pipeline.plan.foreign_files import CAPTIONS, refuse_foreign, refuse_other_lines
from pipeline.plan.prompt_arrays import read_json_array
from pipeline.plan.prompt_lines import read_json_lines, read_lines
from pipeline.plan.prompt_parquet import read_parquet
from pipeline.plan.prompt_rows import OBVIOUS_COLUMNS, Content, ReadOptions
from pipeline.plan.prompt_sources import OpenFile
from pipeline.plan.prompt_tables import (
    DELIMITERS,
    TAB,
    choose_delimiter,
    dialect_of,
    header_of,
    parsed,
    read_table,
)

_HEAD_BYTES = 256 * 1024  # what a form is told by
_MAX_LINES = 200
_PARQUET = b"PAR1"  # at both ends
_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
_STRING = r'"(?:[^"\\]|\\.)*"'
_OBJECT = re.compile(rf"\s*\{{\s*{_STRING}\s*:")  # the begin of no prompt
_ARRAY = re.compile(rf"\s*\[\s*(?:\{{\s*{_STRING}\s*:|{_STRING}\s*(?:,\s*\"|\]\s*\Z))")
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")


def read_content(file: OpenFile, options: ReadOptions) -> Content:
    """What a file holds. Raises InputError if that is no form of prompts, or has no prompt column.

    What it raises while the rows are read: see `pipeline.plan.prompt_files`.
    """
    head = file.start().read(_HEAD_BYTES)
    text = head.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    refuse_foreign(head, text, file.name, is_packed=file.codec is not None)
    if file.suffix == ".parquet" or _is_parquet(file):
        return read_parquet(file, options)
    is_whole = len(head) < _HEAD_BYTES
    if _is_array(text, file.suffix, is_whole=is_whole):
        return read_json_array(file, options)
    if file.suffix in _JSON_SUFFIXES or _OBJECT.match(text):
        return read_json_lines(file, options)
    lines = _first_lines(text, is_whole=is_whole)
    if file.suffix in (".csv", ".tsv"):
        preferred = TAB if file.suffix == ".tsv" else ","
        chosen = choose_delimiter(text.lstrip("\r\n"), preferred, options)
        return read_table(file, options, dialect_of(lines, chosen))
    if delimiter := _delimiter_of(lines, options):
        return read_table(
            file,
            options,
            dialect_of(lines, delimiter),
            advice=f"; its lines are rows of a table, parted by {delimiter!r}: if each is one "
            "prompt all the same, put spaces for these",
        )
    refuse_other_lines(lines, file.name)
    return read_lines(file)


def _is_parquet(file: OpenFile) -> bool:
    """By both ends: a prompt may begin like that."""
    if file.codec is not None or file.start().read(len(_PARQUET)) != _PARQUET:
        return False
    file.raw.seek(-len(_PARQUET), io.SEEK_END)
    return file.raw.read() == _PARQUET


def _is_array(text: str, suffix: str, *, is_whole: bool) -> bool:
    """Whether it is one array: not prompts that begin with a bracket, and not an array a line."""
    if suffix not in _JSON_SUFFIXES:
        return _ARRAY.match(text) is not None
    first, end, rest = text.lstrip().partition("\n")
    first = first.rstrip()
    if not first.startswith("["):
        return False
    try:
        json.loads(first)
    except json.JSONDecodeError as error:  # of an array over several lines: only that it ends
        return error.pos >= len(first) or not (end or is_whole)
    except (ValueError, RecursionError):
        return False
    return not rest.strip()


def _first_lines(text: str, *, is_whole: bool) -> list[str]:
    lines = [line for line in text.split("\n") if line.strip()][:_MAX_LINES]
    if not is_whole and len(lines) > 1:
        lines.pop()  # it may be cut
    return lines


def _delimiter_of(lines: Sequence[str], options: ReadOptions) -> str | None:
    """What parts the columns if these lines are a table beyond doubt, else None."""
    if _are_tabbed(lines, options):
        return TAB
    return next(
        (sign for sign in DELIMITERS if sign != TAB and _is_table(lines, sign, options)), None
    )


def _are_tabbed(lines: Sequence[str], options: ReadOptions) -> bool:
    """Whether tabs part columns: the first line has some, and more than half of the others."""
    num_tabbed = sum(TAB in line.strip() for line in lines)
    if not num_tabbed or TAB not in lines[0].strip():
        return False
    return _is_header(header_of(lines[0], TAB), options) or 1 < num_tabbed > len(lines) / 2


def _is_table(lines: Sequence[str], delimiter: str, options: ReadOptions) -> bool:
    """Whether this sign, which prompts may hold as well, parts columns."""
    if not lines or delimiter not in lines[0] or lines[0].startswith(delimiter):
        return False
    rows = parsed(lines, dialect_of(lines, delimiter))
    header = rows[0] if rows else []
    if len(header) < 2:
        return False
    is_even = len(rows) > 1 and all(len(row) == len(header) for row in rows)
    # In prose a space follows a comma.
    is_tight = all(cell == cell.strip() for cell in lines[0].rstrip("\r").split(delimiter))
    if _is_header(header, options):
        return is_even or is_tight
    if not is_even or not (is_tight or delimiter == "|"):
        return False
    names = {cell.casefold() for cell in header}
    return (is_tight and not names.isdisjoint(CAPTIONS)) or _has_numbers(header, rows[1:], is_tight)


def _is_header(cells: Sequence[str], options: ReadOptions) -> bool:
    names = {cell.strip() for cell in cells}
    is_obvious = not {name.casefold() for name in names}.isdisjoint(OBVIOUS_COLUMNS)
    return is_obvious or options.prompt_column in {*cells, *names}


def _has_numbers(header: Sequence[str], rows: Sequence[Sequence[str]], is_tight: bool) -> bool:
    """Whether a column holds nothing but numbers, as ids and scores do. It takes two rows; and
    where spaces stand around the signs, a header that is none.
    """
    return len(rows) > 1 and any(
        all(_NUMBER.fullmatch(cell.strip()) for cell in column)
        and (is_tight or not _NUMBER.fullmatch(name.strip()))
        for name, *column in zip(header, *rows, strict=True)
    )
