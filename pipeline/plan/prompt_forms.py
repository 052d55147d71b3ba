"""Tells the form of a prompt file by what is in it. Its name only decides where that could be two.

Most prompts hold commas, and some hold tabs or begin with a bracket; so lines of `.txt` are prompts
unless they cannot be: a table, or JSON, under that name is read as what it is.
"""

import csv
import io
import json
import re
from collections.abc import Sequence

from pipeline.plan.prompt_arrays import read_json_array
from pipeline.plan.prompt_lines import read_json_lines, read_lines
from pipeline.plan.prompt_parquet import read_parquet
from pipeline.plan.prompt_rows import OBVIOUS_COLUMNS, Content, ReadOptions
from pipeline.plan.prompt_sources import OpenFile
from pipeline.plan.prompt_tables import DELIMITERS, TAB, choose_delimiter, header_of, read_table
from schemas.errors import InputError

_HEAD_BYTES = 256 * 1024  # what a form is told by
_MAX_LINES = 200
_PARQUET = b"PAR1"  # at both ends
_FOREIGN = {
    b"\xff\xfe": "UTF-16; save it as UTF-8",
    b"\xfe\xff": "UTF-16; save it as UTF-8",
    b"PK\x03\x04": "a spreadsheet or a zip archive; save it as CSV, or unpack it",
    b"\xfd7zXZ": "an xz archive; unpack it",
    b"ARROW1": "an Arrow file; convert it to Parquet",
    b"\x1f\x8b": "packed twice; unpack it",
    b"\x28\xb5\x2f\xfd": "packed twice; unpack it",
}
_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
_STRING = r'"(?:[^"\\]|\\.)*"'
_OBJECT = re.compile(rf"\s*\{{\s*{_STRING}\s*:")  # the begin of no prompt
_ARRAY = re.compile(rf"\s*\[\s*(?:\{{\s*{_STRING}\s*:|{_STRING}\s*(?:,\s*\"|\]\s*\Z))")
# What columns of prompts are called as well: no sign of a table alone.
_CAPTIONS = frozenset({"caption", "captions", "text", "texts", "sentence", "description"})
_RULER = re.compile(r"\|[\s|:-]*-[\s|:-]*")  # below the header of a table in Markdown
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")


def read_content(file: OpenFile, options: ReadOptions) -> Content:
    """What a file holds. Raises InputError if that is no form of prompts, or has no prompt column.

    What it raises while the rows are read: see `pipeline.plan.prompt_files`.
    """
    if file.suffix == ".parquet" or _is_parquet(file):
        return read_parquet(file, options)
    head = file.start().read(_HEAD_BYTES)
    foreign = _FOREIGN | ({_PARQUET: "packed Parquet; unpack it"} if file.codec else {})
    for magic, description in foreign.items():
        if head.startswith(magic):
            raise InputError(f"{file.name}: expected prompts, found {description}")
    text = head.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    is_whole = len(head) < _HEAD_BYTES
    if _is_array(text, file.suffix, is_whole=is_whole):
        return read_json_array(file, options)
    if file.suffix in _JSON_SUFFIXES or _OBJECT.match(text):
        return read_json_lines(file, options)
    if file.suffix in (".csv", ".tsv"):
        preferred = TAB if file.suffix == ".tsv" else ","
        return read_table(file, options, choose_delimiter(text.lstrip("\r\n"), preferred, options))
    if delimiter := _delimiter_of(text, options, is_whole=is_whole):
        return read_table(
            file,
            options,
            delimiter,
            advice=f"; its lines are rows of a table, parted by {delimiter!r}: if each is one "
            "prompt all the same, put spaces for these",
        )
    _refuse_others(text, file.name)
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


def _delimiter_of(text: str, options: ReadOptions, *, is_whole: bool) -> str | None:
    """What parts the columns if these lines are a table beyond doubt, else None."""
    lines = [line for line in text.split("\n") if line.strip()][:_MAX_LINES]
    if not is_whole and len(lines) > 1:
        lines.pop()  # it may be cut
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
    rows = _parsed(lines, delimiter)
    header = rows[0] if rows else []
    if len(header) < 2:
        return False
    is_even = len(rows) > 1 and all(len(row) == len(header) for row in rows)
    is_tight = all(cell == cell.strip() for cell in header)  # in prose a space follows a comma
    if _is_header(header, options):
        return is_even or is_tight
    if not (is_even and is_tight):
        return False
    names = {cell.casefold() for cell in header}
    return not names.isdisjoint(_CAPTIONS) or _has_numbers(rows[1:])


def _parsed(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    """Rows, as far as they can be read as such."""
    rows: list[list[str]] = []
    try:
        for row in csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, strict=True):
            rows.append(row)
    except csv.Error:
        return rows
    return rows


def _is_header(cells: Sequence[str], options: ReadOptions) -> bool:
    names = {cell.strip().casefold() for cell in cells}
    return not names.isdisjoint(OBVIOUS_COLUMNS) or options.prompt_column in cells


def _has_numbers(rows: Sequence[Sequence[str]]) -> bool:
    """Whether a column holds nothing but numbers, as ids and scores do. It takes two rows."""
    return len(rows) > 1 and any(
        all(_NUMBER.fullmatch(cell) for cell in column) for column in zip(*rows, strict=True)
    )


def _refuse_others(text: str, name: str) -> None:
    """What is no table that is read, and no list of prompts: a column with a header, or Markdown.

    A first line that says `prompt` and no more heads a column.
    """
    first, second, *_ = (*(line.strip() for line in text.lstrip().split("\n", 2)), "")
    if first.removeprefix('"').removesuffix('"').casefold() in OBVIOUS_COLUMNS:
        raise InputError(
            f"{name}:1: expected a prompt, found the header {first!r}; take it away, or call the "
            "file .csv"
        )
    if first.startswith("|") and _RULER.fullmatch(second):
        raise InputError(f"{name}:2: expected prompts, found a Markdown table; write it as CSV")
