"""The lines of a text file: prompts by themselves, JSON Lines, or what a table is made of."""

import json
from collections.abc import Iterator
from itertools import count
from typing import BinaryIO

from pipeline.plan.prompt_rows import Cell, Content, ReadOptions, Row, choose_prompt_column
from pipeline.plan.prompt_sources import OpenFile
from schemas.errors import InputError
from schemas.json_values import unique_keys

MAX_LINE_BYTES = 64 * 2**20
"""Of one line, and of one record of a table. A file with a longer one is no list of prompts."""

MAX_ARRAY_BYTES = 256 * 2**20
"""Of a JSON array, which is read whole. JSON Lines may be as long as they like."""


def numbered_lines(stream: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """Each line with its end, and its number from 1. Raises InputError for one without an end."""
    for number in count(1):
        line = stream.readline(MAX_LINE_BYTES + 1)
        if not line:
            return
        if len(line) > MAX_LINE_BYTES:
            raise InputError(
                f"{name}:{number}: expected a line of at most {MAX_LINE_BYTES // 2**20} MiB, "
                "found a longer one; give a file with one row a line"
            )
        yield number, line


def read_lines(file: OpenFile) -> Content:
    """A prompt a line. Line breaks are not folded: there are none within a line."""
    return Content(rows=_text_rows(file), is_folded=False)


def _text_rows(file: OpenFile) -> Iterator[Row]:
    for line, original in _filled_lines(file):
        try:
            yield Row(line=line, original=original, text=_decoded(original))
        except ValueError as error:
            yield Row(line=line, original=original, fault=str(error))


def read_json_lines(file: OpenFile, options: ReadOptions) -> Content:
    """A JSON object a line, or a string, which is a prompt by itself.

    Raises InputError if the file is one object over several lines, or no row has a prompt.
    """
    first = next((row for row in _json_rows(file) if row.original), None)
    if first and first.fault and _is_one_object(file):
        raise InputError(
            f"{file.name}: expected a JSON array of objects or strings, or an object a line; found "
            "one object over several lines; write its rows as one of these"
        )
    return Content(
        rows=_json_rows(file), prompt_column=json_prompt_column(_json_rows(file), options, file)
    )


def json_prompt_column(rows: Iterator[Row], options: ReadOptions, file: OpenFile) -> str:
    """The prompt column of rows of which each has its own columns. Reads on until that is clear.

    Raises InputError if there are columns and none of them is it.
    """
    exact = options.prompt_column or "prompt"
    columns: dict[str, None] = {}  # in the order of the file
    for row in rows:
        if row.fields and exact in row.fields:
            columns = {exact: None}
            break
        columns |= dict.fromkeys(row.fields or ())
    return choose_prompt_column(list(columns), options, file.name) if columns else exact


def object_or_string(value: Cell) -> "tuple[dict[str, Cell] | None, str | None, str | None]":
    """What an item of JSON says: its columns, a bare prompt, or a fault."""
    match value:
        case dict():
            return value, None, None
        case str():
            return None, value, None
    return None, None, f"expected a JSON object, found {type(value).__name__}"


def _json_rows(file: OpenFile) -> Iterator[Row]:
    for line, original in _filled_lines(file):
        try:
            fields, text, fault = object_or_string(_parsed(_decoded(original)))
        except ValueError as error:
            fields, text, fault = None, None, str(error)
        yield Row(line=line, original=original, fields=fields, text=text, fault=fault)


def _parsed(line: str) -> Cell:
    """Raises ValueError with the reason. Not where a blank line has nothing to parse."""
    try:
        value: Cell = json.loads(line, object_pairs_hook=unique_keys)
    except json.JSONDecodeError as error:
        raise ValueError(f"malformed JSON at column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number too long, brackets too deep
        raise ValueError(f"malformed JSON: {error}") from error
    return value


def _is_one_object(file: OpenFile) -> bool:
    body = file.start().read(MAX_ARRAY_BYTES)
    try:
        return b"\n" in body.strip() and isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False


def _filled_lines(file: OpenFile) -> Iterator[tuple[int, bytes]]:
    """The lines and their numbers. Blank lines count, save those at the very end."""
    last = 0
    for number, line in numbered_lines(file.start(), file.name):
        if line.strip():
            yield from ((blank, b"") for blank in range(last + 1, number))
            yield number, line.rstrip(b"\r\n")
            last = number


def _decoded(line: bytes) -> str:
    """Raises ValueError with the reason."""
    try:
        return line.decode("utf-8-sig")  # some editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1}: {error.reason}") from error
