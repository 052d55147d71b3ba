"""Options of the command line that say how prompt files are read."""

import csv
from io import StringIO
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.plan.prompt_rows import ReadOptions

PromptColumn = Annotated[
    str | None,
    typer.Option(
        "--prompt-column",
        metavar="NAME",
        help="The column of prompts, if it is not the only one called prompt or prompts.",
    ),
]
EvaluationColumn = Annotated[
    str | None,
    typer.Option(
        "--evaluation-column",
        metavar="NAME",
        help="The column of prompts in evaluation files; those without it may have one called "
        "prompt.",
    ),
]
DropColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--drop-columns",
        metavar="A,B",
        help="Columns that do not travel as metadata, as a row of CSV. Repeatable.",
    ),
]
FoldNewlines = Annotated[
    bool,
    typer.Option("--fold-newlines", help="Make one line of a prompt that has several."),
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit",
        metavar="N",
        min=1,
        help="A trial: the first N records, counted when duplicates and unusable prompts are out.",
    ),
]


def read_options(
    prompt_column: str | None, drop_columns: list[str] | None, fold_newlines: bool
) -> "ReadOptions":
    """How the files are to be read."""
    from pipeline.plan.prompt_rows import ReadOptions

    names = [name for text in drop_columns or () for name in _names(text)]
    return ReadOptions(
        prompt_column=prompt_column,
        dropped_columns=frozenset(names),
        fold_newlines=fold_newlines,
    )


def _names(text: str) -> list[str]:
    """The names in a row of CSV; what is in quotes stays as it is. Raises BadParameter."""
    try:
        rows = list(csv.reader(StringIO(text, newline=""), skipinitialspace=True, strict=True))
    except csv.Error:
        rows = []
    has_quotes = '"' in text
    names = [name if has_quotes else name.strip() for row in rows for name in row]
    if len(rows) != 1 or ("" in names and '""' not in text):
        raise typer.BadParameter(
            "give names with commas between them, and in double quotes those that hold a comma "
            """or nothing: '"a,b",""'""",
            param_hint="--drop-columns",
        )
    return names
