"""Small files that people and processes leave beside the data. Each may hold anything at all.

One bound, one error: whatever bytes stand where some JSON or TOML of ours belongs, reading them
takes little memory and ends, and says what is wrong on one line.
"""

import os
import stat
import tomllib
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from schemas.errors import InputError
from schemas.json_values import JsonObject

MAX_BYTES = 4 * 2**20
"""Of a small file. None of ours comes near it."""

Model = TypeVar("Model", bound=BaseModel)


class UnreadableFile(ValueError):
    """What stands there is not what belongs there. The message says why, on one line."""


class _Readable(Protocol):
    """As much of a store as is needed here."""

    def read_range(self, key: str, start: int, length: int) -> bytes: ...


def read_small(
    store: _Readable, key: str, kind: type[Model], *, max_bytes: int = MAX_BYTES
) -> Model:
    """The small JSON object at a key, as a model. Raises UnreadableFile, and what a store does."""
    return parse_small(kind, read_bounded(store, key, max_bytes=max_bytes))


def read_bounded(store: _Readable, key: str, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a small object. Raises UnreadableFile, and what a store does."""
    body = store.read_range(key, 0, max_bytes + 1)
    if len(body) > max_bytes:
        raise UnreadableFile(f"it is larger than {max_bytes:,} bytes")
    return body


def parse_small(kind: type[Model], body: bytes) -> Model:
    """A JSON object as a model. Raises UnreadableFile."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise UnreadableFile(why_invalid(error)) from error


def why_invalid(error: ValidationError) -> str:
    """What pydantic found first, on one line."""
    problem = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in problem["loc"])
    return " ".join(f"{name}: {problem['msg']}".removeprefix(": ").split())[:300]


def read_toml_file(path: str | Path, what: str) -> JsonObject:
    """The tables of a TOML file. Raises InputError, which says `what` it was to be."""
    try:
        return parse_toml(read_text_file(path))
    except (OSError, ValueError) as error:
        raise InputError(f"{what} {path} cannot be read: {error}") from error


def parse_toml(text: str) -> JsonObject:
    """The tables of a TOML text. Raises ValueError."""
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise UnreadableFile("its brackets are nested too deep") from error


def read_text_file(path: str | Path) -> str:
    """The text of a small file. Raises OSError, and ValueError for what is none."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise UnreadableFile("it is not a file")
        body = file.read(MAX_BYTES + 1)
    if len(body) > MAX_BYTES:
        raise UnreadableFile(f"it is larger than {MAX_BYTES:,} bytes")
    return body.decode("utf-8-sig")  # editors of Windows put a mark first
