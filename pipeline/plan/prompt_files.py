"""Reads the prompts of a plan, and refuses what cannot be planned before anything is written.

A file holds a prompt a line, or rows with a column of prompts; every other column is metadata.
Prompts are hostile input, so messages show them escaped and cut. What fits a model is not known
here: the caller brings the limit.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from decimal import Decimal
from typing import TypeAlias
from uuid import UUID

import pyarrow as pa

from pipeline.file_names import spelt
from pipeline.plan.prompt_forms import read_content
from pipeline.plan.prompt_rows import Cell, Content, ReadOptions, Row, dropping, shown
from pipeline.plan.prompt_sources import PromptFile, find_files
from schemas.errors import InputError
from schemas.ids import normalise
from schemas.json_values import JsonObject, JsonValue
from schemas.prompts import Prompt, Reject

Limit: TypeAlias = Callable[[str], str | None]  # why a prompt is too long for the model, or None
Check: TypeAlias = Callable[[JsonObject], str | None]  # why its other columns do not do, or None

_LISTED_REJECTS = 10
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")  # all but the tab
_LINE_BREAK = re.compile(r"[\n\v\f\r\x85]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")  # JSON can name half a pair; UTF-8 cannot store it
_AS_IT_IS = ReadOptions()


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptSet:
    """What the sources hold: each prompt once, in the order of the sources."""

    prompts: list[Prompt]
    num_duplicates: int  # exact duplicates dropped; the first and its metadata stay
    rejects: list[Reject]  # empty unless bad rows were to be skipped
    num_distinct: int | None = None  # of which the first were asked for; None: all were
    left_behind: tuple[str, ...] = ()  # columns that hold bytes, and do not travel


@dataclass(kw_only=True, slots=True)
class PromptRows:
    """All rows of the sources, duplicates included."""

    rows: list[Prompt] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    left_behind: dict[str, None] = field(default_factory=dict)  # columns that hold bytes, in order


def read_prompts(
    sources: Sequence[str],
    *,
    limit: Limit | None = None,
    skip_bad: bool = False,
    options: ReadOptions = _AS_IT_IS,
    first: int | None = None,
    check: Check | None = None,
) -> PromptSet:
    """Every prompt of the sources, or one `InputError` that counts the bad rows and lists some.

    With `skip_bad` the bad rows are returned beside the good ones. A file that is bad as a whole
    (not found, another format, unreadable, no column of prompts) is refused even so. `first`: so
    many distinct prompts, though all are read.
    """
    read = read_prompt_rows(sources, limit=limit, skip_bad=skip_bad, options=options, check=check)
    kept: dict[str, Prompt] = {}
    for row in read.rows:
        kept.setdefault(row.text, row)
    return PromptSet(
        prompts=list(kept.values())[:first],
        num_duplicates=len(read.rows) - len(kept),
        rejects=read.rejects,
        num_distinct=None if first is None else len(kept),
        left_behind=tuple(read.left_behind),
    )


def read_rows(
    sources: Sequence[str],
    *,
    limit: Limit | None = None,
    skip_bad: bool = False,
    options: ReadOptions = _AS_IT_IS,
) -> tuple[list[Prompt], list[Reject]]:
    """As `read_prompt_rows`: the good rows, at least one, and the bad ones."""
    read = read_prompt_rows(sources, limit=limit, skip_bad=skip_bad, options=options)
    return read.rows, read.rejects


def read_prompt_rows(
    sources: Sequence[str],
    *,
    limit: Limit | None = None,
    skip_bad: bool = False,
    options: ReadOptions = _AS_IT_IS,
    check: Check | None = None,
) -> PromptRows:
    """As `read_prompts`, duplicates included, and at least one."""
    read, columns = PromptRows(), set[str]()
    for file in [file for source in sources for file in find_files(source)]:
        columns |= _read(file, options, limit, check, read)
    if read.rejects and not skip_bad:
        raise InputError(_refusal(read.rejects))
    if not read.rows:
        raise InputError(
            f"expected at least one prompt in {list(map(spelt, sources))}, found none and "
            f"{len(read.rejects)} bad lines"
            + "".join(f", first {bad.source}:{bad.line}: {bad.reason}" for bad in read.rejects[:1])
            + "; mend these files or give others"
        )
    if unseen := sorted(options.dropped_columns - columns):
        raise InputError(
            f"--drop-columns names {shown(', '.join(unseen))}, and no file has such a column; "
            "correct the name, or leave it out"
        )
    return read


class _BadRow(Exception):
    """One row cannot be planned; the message is the reason."""


def _read(
    file: PromptFile,
    options: ReadOptions,
    limit: Limit | None,
    check: Check | None,
    read: PromptRows,
) -> set[str]:
    """Add what a file holds to what was read. Returns which columns to drop there were."""
    with file.open() as opened:
        try:
            content = read_content(opened, options)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{file.name} cannot be read: {error}") from error
        read.left_behind |= dict.fromkeys(content.left_behind)
        columns = set(content.columns) & options.dropped_columns
        for row in _readable(content.rows, file.name):
            columns |= options.dropped_columns & (row.fields or {}).keys()
            try:
                text, metadata = (
                    _text(row, content, options, limit),
                    _metadata(row, content, options),
                )
                if check and (reason := check(metadata)):
                    raise _BadRow(reason)
            except _BadRow as bad:
                original = _as_found(row, content)
                read.rejects.append(
                    Reject(source=file.name, line=row.line, reason=str(bad), text=original)
                )
            else:
                read.rows.append(
                    Prompt(text=text, metadata=metadata, source=file.name, line=row.line)
                )
    return columns


def _readable(rows: Iterator[Row], name: str) -> Iterator[Row]:
    line = 0
    try:
        for row in rows:
            line = row.line
            yield row
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{name} cannot be read after line {line}: {error}") from error


def _text(row: Row, content: Content, options: ReadOptions, limit: Limit | None) -> str:
    prompt = _prompt(row, content)
    if content.is_folded and options.fold_newlines:
        prompt = _LINE_BREAK.sub(" ", prompt)
    if bad := _CONTROL.search(prompt) or _SURROGATE.search(prompt):
        is_break = content.is_folded and _LINE_BREAK.match(bad[0])
        advice = ", and --fold-newlines makes one line of several" if is_break else ""
        raise _BadRow(f"U+{ord(bad[0]):04X} in the prompt; only text and tabs are allowed{advice}")
    text = normalise(prompt)
    if not text:
        raise _BadRow("the prompt is empty")
    if limit and (reason := limit(text)):
        raise _BadRow(reason)
    return text


def _prompt(row: Row, content: Content) -> str:
    if row.fault is not None:
        raise _BadRow(row.fault)
    if row.text is not None:
        return row.text
    if row.fields is None or content.prompt_column not in row.fields:
        raise _BadRow(f"no `{content.prompt_column}`")
    prompt = row.fields[content.prompt_column]
    if not isinstance(prompt, str):
        raise _BadRow(f"the prompt is no string but {type(prompt).__name__}")
    return prompt


def _metadata(row: Row, content: Content, options: ReadOptions) -> JsonObject:
    metadata: JsonObject = {}
    if options.is_text_only or row.fields is None:
        return metadata
    for column, value in row.fields.items():
        if column != content.prompt_column and column not in options.dropped_columns:
            try:
                metadata[_storable(column)] = _json(value)
            except (_BadRow, RecursionError) as error:
                name = shown(column)
                raise _BadRow(
                    f"column {name} holds what JSON cannot: {error}; leave it out with "
                    f"{dropping(column)}"
                ) from error
    return metadata


def _json(value: Cell) -> JsonValue:
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


def _as_found(row: Row, content: Content) -> str:
    match row.original:
        case bytes():
            return row.original.decode("utf-8", "backslashreplace")
        case str():
            return row.original
    prompt = (row.fields or {}).get(content.prompt_column or "")
    return prompt if isinstance(prompt, str) else repr(prompt)


def _refusal(rejects: Sequence[Reject]) -> str:
    lines = [f"lines that cannot be planned: {len(rejects)}"]
    for reject in rejects[:_LISTED_REJECTS]:
        lines.append(f"  {reject.source}:{reject.line}: {reject.reason}: {shown(reject.text)}")
    if len(rejects) > _LISTED_REJECTS:
        lines.append(f"  and {len(rejects) - _LISTED_REJECTS} more")
    lines.append(
        "mend them, or pass --skip-bad to leave them out and record them in a rejects file"
    )
    return "\n".join(lines)
