"""Reads the prompts of a plan, and refuses what cannot be planned before anything is written.

A source is a path, a local glob, or an s3:// URL whose last part may be a glob. A `.txt` file holds
a prompt a line; `.jsonl` and `.parquet` have a `prompt` column and carry every other column as
metadata. Prompts are hostile input, so messages show them escaped and cut. What fits a model is not
known here: the caller brings the limit.
"""

import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import partial
from glob import glob, has_magic
from pathlib import PurePosixPath
from typing import BinaryIO, TypeAlias
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.store.objects import open_object
from pipeline.store.open import open_store
from schemas.errors import InputError, ObjectMissing
from schemas.ids import normalise
from schemas.json_values import JsonObject, JsonValue
from schemas.prompts import Prompt, Reject

Limit: TypeAlias = Callable[[str], str | None]  # why a prompt is too long for the model, or None
_Scalar: TypeAlias = (
    bool | int | float | str | bytes | date | time | timedelta | Decimal | UUID | None
)
# What a column may hold: JSON's values, and those of Arrow's other types.
_Cell: TypeAlias = "_Scalar | list[_Cell] | tuple[_Cell, ...] | dict[str, _Cell]"
_Raw: TypeAlias = bytes | dict[str, _Cell]  # a line of a text file, or a row of a Parquet file

_BATCH_ROWS = 1024
_LISTED_REJECTS = 10
_SHOWN_CHARACTERS = 60
_SUFFIXES = (".txt", ".jsonl", ".parquet")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")  # all but the tab
_SURROGATE = re.compile(r"[\ud800-\udfff]")  # JSON can name half a pair; UTF-8 cannot store it


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptSet:
    """What the sources hold: each prompt once, in the order of the sources."""

    prompts: list[Prompt]
    num_duplicates: int  # exact duplicates dropped; the first and its metadata stay
    rejects: list[Reject]  # empty unless bad rows were to be skipped


def read_prompts(
    sources: Sequence[str], *, limit: Limit | None = None, skip_bad: bool = False
) -> PromptSet:
    """Every prompt of the sources, or one `InputError` that counts the bad rows and lists some.

    With `skip_bad` the bad rows are returned beside the good ones. A file that is bad as a whole
    (not found, another format, unreadable, no `prompt` column) is refused even so.
    """
    rows, rejects = read_rows(sources, limit=limit, skip_bad=skip_bad)
    kept: dict[str, Prompt] = {}
    for row in rows:
        kept.setdefault(row.text, row)
    num_duplicates = len(rows) - len(kept)
    return PromptSet(prompts=list(kept.values()), num_duplicates=num_duplicates, rejects=rejects)


def read_rows(
    sources: Sequence[str], *, limit: Limit | None = None, skip_bad: bool = False
) -> tuple[list[Prompt], list[Reject]]:
    """As `read_prompts`, duplicates included: the good rows, at least one, and the bad ones."""
    rows: list[Prompt] = []
    rejects: list[Reject] = []
    for file in [file for source in sources for file in _find(source)]:
        for row in _read(file, limit):
            if isinstance(row, Reject):
                rejects.append(row)
            else:
                rows.append(row)
    if rejects and not skip_bad:
        raise InputError(_refusal(rejects))
    if not rows:
        raise InputError(
            f"expected at least one prompt in {list(sources)}, found none and {len(rejects)} bad "
            "lines; mend these files or give others"
        )
    return rows, rejects


class _BadRow(Exception):
    """One row cannot be planned; the message is the reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    name: str
    open: Callable[[], BinaryIO]

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix.lower()


def _find(source: str) -> list[_File]:
    files = _find_objects(source) if source.startswith("s3://") else _find_paths(source)
    if not files:
        raise InputError(
            f"nothing matches {source!r}; give a file, a glob such as 'prompts/*.txt', "
            "or s3://bucket/key"
        )
    for file in files:
        if file.suffix not in _SUFFIXES:
            raise InputError(f"{file.name}: expected one of {', '.join(_SUFFIXES)}; convert it")
    return files


def _find_paths(source: str) -> list[_File]:
    paths = [source] if os.path.exists(source) else sorted(glob(source, recursive=True))
    return [
        _File(name=path, open=partial(_open_path, path)) for path in paths if os.path.isfile(path)
    ]


def _open_path(path: str) -> BinaryIO:
    return open(path, "rb")


def _find_objects(source: str) -> list[_File]:
    folder, _, name = source.rpartition("/")
    if folder == "s3:/" or not name:  # a bucket or a folder is no object
        return []
    store = open_store(folder)
    keys = [name]
    if has_magic(name):
        keys = sorted(entry.key for entry in store.list_folder("") if fnmatchcase(entry.key, name))
    return [_File(name=f"{folder}/{key}", open=partial(open_object, store, key)) for key in keys]


def _read(file: _File, limit: Limit | None) -> Iterator[Prompt | Reject]:
    columns: set[str] = set()
    for line, raw in _rows(file):
        try:
            fields = _fields(raw, file.suffix)
            columns |= fields.keys()
            text, metadata = _text(fields, limit), _metadata(fields)
        except _BadRow as bad:
            yield Reject(source=file.name, line=line, reason=str(bad), text=_as_found(raw))
        else:
            yield Prompt(text=text, metadata=metadata, source=file.name, line=line)
    if columns:
        _require_prompt_column(columns, file.name)


def _rows(file: _File) -> Iterator[tuple[int, _Raw]]:
    try:
        stream = file.open()
    except (OSError, ValueError, ObjectMissing) as error:  # ValueError: no key of a store
        raise InputError(f"{file.name} cannot be read: {error}") from error
    with stream:
        yield from _parquet_rows(stream, file.name) if file.suffix == ".parquet" else _lines(stream)


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The lines and their numbers. Blank lines count, save those at the very end."""
    last = 0
    for number, line in enumerate(stream, start=1):
        if line.strip():
            yield from ((blank, b"") for blank in range(last + 1, number))
            yield number, line.rstrip(b"\r\n")
            last = number


def _parquet_rows(stream: BinaryIO, name: str) -> Iterator[tuple[int, dict[str, _Cell]]]:
    row = 0
    try:
        parquet = pq.ParquetFile(stream)
        _require_prompt_column(parquet.schema_arrow.names, name)
        for batch in parquet.iter_batches(batch_size=_BATCH_ROWS):
            for fields in batch.to_pylist():
                row += 1
                yield row, fields
    # A value that Python cannot hold is a ValueError (text that is not UTF-8) or an OverflowError.
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise InputError(f"{name}: unreadable Parquet after row {row}: {error}") from error


def _require_prompt_column(columns: Collection[str], name: str) -> None:
    if list(columns).count("prompt") != 1:
        names = _shown(", ".join(sorted(columns)))
        raise InputError(f"{name}: expected one `prompt` column, found {names}; rename yours")


def _fields(raw: _Raw, suffix: str) -> dict[str, _Cell]:
    if isinstance(raw, dict):
        return raw
    try:
        text = raw.decode("utf-8-sig")  # some editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        raise _BadRow(f"not UTF-8 at byte {error.start + 1}: {error.reason}") from error
    return _parsed(text) if suffix == ".jsonl" else {"prompt": text}


def _parsed(line: str) -> dict[str, _Cell]:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise _BadRow(f"malformed JSON at column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number too long, brackets too deep
        raise _BadRow(f"malformed JSON: {error}") from error
    if not isinstance(fields, dict):
        raise _BadRow(f"expected a JSON object, found {type(fields).__name__}")
    return fields


def _text(fields: dict[str, _Cell], limit: Limit | None) -> str:
    if "prompt" not in fields:
        raise _BadRow("no `prompt`")
    prompt = fields["prompt"]
    if not isinstance(prompt, str):
        raise _BadRow(f"the prompt is no string but {type(prompt).__name__}")
    if bad := _CONTROL.search(prompt) or _SURROGATE.search(prompt):
        raise _BadRow(f"U+{ord(bad[0]):04X} in the prompt; only text and tabs are allowed")
    text = normalise(prompt)
    if not text:
        raise _BadRow("the prompt is empty")
    if limit and (reason := limit(text)):
        raise _BadRow(reason)
    return text


def _metadata(fields: dict[str, _Cell]) -> JsonObject:
    metadata: JsonObject = {}
    for column, value in fields.items():
        if column != "prompt":
            try:
                metadata[_storable(column)] = _json(value)
            except (_BadRow, RecursionError) as error:
                raise _BadRow(f"column {_shown(column)} holds what JSON cannot: {error}") from error
    return metadata


def _json(value: _Cell) -> JsonValue:
    match value:
        case None | bool() | int():
            return value
        case float() if math.isfinite(value):
            return value
        case str():
            return _storable(value)
        case list() | tuple():
            return [_json(item) for item in value]
        case dict():
            return {_storable(key): _json(item) for key, item in value.items()}
        case date() | time():
            return value.isoformat()
        case Decimal() | timedelta() | UUID():
            return str(value)
    raise _BadRow(str(value) if isinstance(value, float) else type(value).__name__)


def _storable(text: str) -> str:
    if _SURROGATE.search(text):
        raise _BadRow("half of a surrogate pair")
    return text


def _as_found(raw: _Raw) -> str:
    if isinstance(raw, bytes):
        return raw.decode("utf-8", "backslashreplace")
    return raw["prompt"] if isinstance(raw["prompt"], str) else repr(raw["prompt"])


def _refusal(rejects: Sequence[Reject]) -> str:
    lines = [f"lines that cannot be planned: {len(rejects)}"]
    for reject in rejects[:_LISTED_REJECTS]:
        lines.append(f"  {reject.source}:{reject.line}: {reject.reason}: {_shown(reject.text)}")
    if len(rejects) > _LISTED_REJECTS:
        lines.append(f"  and {len(rejects) - _LISTED_REJECTS} more")
    lines.append(
        "mend them, or pass --skip-bad to leave them out and record them in a rejects file"
    )
    return "\n".join(lines)


def _shown(text: str) -> str:
    """Safe to print: what does not print is escaped, and nothing is longer than the limit."""
    escaped = repr(text[:_SHOWN_CHARACTERS])
    if len(escaped) <= _SHOWN_CHARACTERS:
        return escaped
    return escaped[: _SHOWN_CHARACTERS - 3] + "..."
