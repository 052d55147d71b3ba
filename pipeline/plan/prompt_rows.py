"""What every form of a prompt file comes to: rows with columns, one of which holds the prompt.

Knows how that column is found and which others travel; knows no form.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from typing import TypeAlias
from uuid import UUID

from pipeline.file_names import quoted
from schemas.errors import InputError

_Scalar: TypeAlias = (
    bool | int | float | str | bytes | date | time | timedelta | Decimal | UUID | None
)
# What a column may hold: JSON's values, and those of Arrow's other types.
Cell: TypeAlias = "_Scalar | list[Cell] | tuple[Cell, ...] | dict[str, Cell]"

OBVIOUS_COLUMNS = ("prompt", "prompts")
"""What a column of prompts is called in published sets, in any case. Others have to be named."""

_SUGGESTED = ("caption", "captions", "text", "sentence", "description", "question")
_SHOWN_CHARACTERS = 60
_SHOWN_COLUMN_CHARACTERS = 400


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOptions:
    """How prompt files are to be read."""

    prompt_column: str | None = None  # None: the obvious one
    or_obvious: bool = False  # a file that lacks the column named may have the obvious one
    option: str = "--prompt-column"  # that names the column; empty: this command has none
    dropped_columns: frozenset[str] = frozenset()  # they do not travel
    fold_newlines: bool = False  # a prompt of several lines becomes one
    is_text_only: bool = False  # no metadata: it is neither read nor checked


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row as its form reads it: with columns, or a bare prompt, or at fault."""

    line: int  # from 1; the row in Parquet, the item in a JSON array
    original: str | bytes | None = None  # as it stands in the file; None: only its prompt does
    fields: dict[str, Cell] | None = None
    text: str | None = None  # a prompt without columns
    fault: str | None = None  # why it cannot be read


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """What a file holds, before its rows are read."""

    rows: Iterator[Row]
    prompt_column: str | None = None  # None: its rows are bare prompts
    columns: Collection[str] = ()  # those known before the rows are read
    left_behind: Sequence[str] = ()  # columns that hold bytes
    is_folded: bool = True  # whether a prompt can hold a line break that is to be folded


def choose_prompt_column(
    columns: Sequence[str], options: ReadOptions, name: str, *, advice: str = ""
) -> str:
    """The column that holds the prompts of a file called `name`.

    That is the one named, or `prompt`, or the only one called so (or `prompts`) in any case. Raises
    InputError, with the columns there are, and `advice` if it is not about a name alone.
    """
    chosen = _try_choose(columns, options)
    if chosen is None:
        obvious, *_ = OBVIOUS_COLUMNS
        wanted = options.prompt_column or obvious
        other = f" or `{obvious}`" if options.or_obvious and wanted != obvious else ""
        listed = shown(", ".join(sorted(columns)), most=_SHOWN_COLUMN_CHARACTERS)
        fits = [column for column in columns if column.strip().casefold() in _SUGGESTED]
        example = _typed(fits[0]) if len(fits) == 1 else "NAME"
        naming = (
            f"name the one that holds the prompts with {options.option} {example}"
            if options.option
            else f"call the one that holds the prompts `{wanted}`"
        )
        raise InputError(
            f"{name}: expected one `{wanted}`{other} column, found {listed}; {naming}{advice}"
        )
    if chosen in options.dropped_columns:
        raise InputError(
            f"{name}: --drop-columns names {shown(chosen)}, which holds the prompts; "
            f"drop others, or name another with {options.option}"
        )
    return chosen


def has_prompt_column(columns: Sequence[str], options: ReadOptions) -> bool:
    """Whether `choose_prompt_column` finds one."""
    return _try_choose(columns, options) is not None


def _try_choose(columns: Sequence[str], options: ReadOptions) -> str | None:
    if options.prompt_column is not None:
        num_named = columns.count(options.prompt_column)
        if num_named or not options.or_obvious:
            return options.prompt_column if num_named == 1 else None
    exact, *_ = OBVIOUS_COLUMNS
    if exact in columns:
        return exact if columns.count(exact) == 1 else None
    for word in OBVIOUS_COLUMNS:
        if fits := [column for column in columns if column.strip().casefold() == word]:
            return fits[0] if len(fits) == 1 else None
    return None


def check_unique(columns: Sequence[str], options: ReadOptions, where: str) -> None:
    """Raises InputError if two columns that travel have one name."""
    counts = Counter(column for column in columns if column not in options.dropped_columns)
    for column, number in counts.items():
        if number > 1:
            raise InputError(
                f"{where}: expected columns that differ, found {number} called "
                f"{shown(column)}; rename them, or leave them out with {dropping(column)}"
            )


def dropping(column: str) -> str:
    """The option that leaves a column out, as one types it."""
    is_plain = column == column.strip() != "" and not set(column) & set(',"\r\n')
    row = column if is_plain else '"' + column.replace('"', '""') + '"'
    return f"--drop-columns {_typed(row)}"


def _typed(text: str) -> str:
    """As one word for a shell, in quotes even where it needs none."""
    word = quoted(text)
    return word if word != text else f"'{text}'"


def shown(text: str, *, most: int = _SHOWN_CHARACTERS) -> str:
    """Safe to print: what does not print is escaped, and nothing is longer than the limit."""
    escaped = repr(text[:most])
    return escaped if len(escaped) <= most else escaped[: most - 3] + "..."
