"""A JSON array of prompts: objects or strings, item by item."""

import json
import re
from collections.abc import Iterator

from pipeline.plan.prompt_lines import MAX_ARRAY_BYTES, json_prompt_column, object_or_string
from pipeline.plan.prompt_rows import Cell, Content, ReadOptions, Row
from pipeline.plan.prompt_sources import OpenFile
from schemas.errors import InputError
from schemas.json_values import unique_keys

_SPACE = re.compile(r"[ \t\r\n]*")  # what JSON takes for white space
_DECODER = json.JSONDecoder(object_pairs_hook=unique_keys)


def read_json_array(file: OpenFile, options: ReadOptions) -> Content:
    """The items of an array. Its text is held whole, and is at most `MAX_ARRAY_BYTES`.

    Raises InputError if it is larger, if an item is malformed, or if no item has a prompt.
    """
    body = file.start().read(MAX_ARRAY_BYTES + 1)
    if len(body) > MAX_ARRAY_BYTES:
        raise InputError(
            f"{file.name}: expected a JSON array of at most {MAX_ARRAY_BYTES // 2**20} MiB, since "
            "it is read whole, found a larger one; write it as JSON Lines, an object a line"
        )
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{file.name}:{line}: not UTF-8 at byte {error.start + 1} of the file: {error.reason}"
        ) from error
    column = json_prompt_column(_items(text, file.name), options, file)
    return Content(rows=_items(text, file.name), prompt_column=column)


def _items(text: str, name: str) -> Iterator[Row]:
    at = _after_space(text, 0) + 1  # behind the bracket
    for number, (start, stop, value) in enumerate(_values(text, at, name), start=1):
        fields, prompt, fault = object_or_string(value)
        yield Row(line=number, original=text[start:stop], fields=fields, text=prompt, fault=fault)


def _values(text: str, at: int, name: str) -> Iterator[tuple[int, int, Cell]]:
    """Where each value begins and ends, and the value."""
    at = _after_space(text, at)
    if text[at : at + 1] == "]":
        _check_end(text, at, name)
        return
    while True:
        stop, value = _value(text, at, name)
        yield at, stop, value
        at = _after_space(text, stop)
        if text[at : at + 1] == "]":
            break
        if text[at : at + 1] != ",":
            raise _malformed(text, at, name, "expected ',' or ']'")
        at = _after_space(text, at + 1)
    _check_end(text, at, name)


def _value(text: str, at: int, name: str) -> tuple[int, Cell]:
    try:
        value, stop = _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise _malformed(text, error.pos, name, error.msg) from error
    except (
        ValueError,
        RecursionError,
    ) as error:  # too long, too deep, a key twice
        raise _malformed(text, at, name, str(error)) from error
    return stop, value


def _after_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _check_end(text: str, at: int, name: str) -> None:
    behind = _after_space(text, at + 1)
    if behind < len(text):
        raise _malformed(text, behind, name, "expected nothing behind the array")


def _malformed(text: str, at: int, name: str, reason: str) -> InputError:
    line = text.count("\n", 0, at) + 1
    column = at - (text.rfind("\n", 0, at) + 1) + 1
    return InputError(
        f"{name}:{line}: malformed JSON at column {column}: {reason}; mend the array there"
    )
