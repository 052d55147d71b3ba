"""Options of the command line that say how prompt files are read."""

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
        "--drop-columns", metavar="A,B", help="Columns that do not travel as metadata. Repeatable."
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

    names = [name.strip() for text in drop_columns or () for name in text.split(",")]
    if "" in names:
        raise typer.BadParameter("give names with commas between them", param_hint="--drop-columns")
    return ReadOptions(
        prompt_column=prompt_column,
        dropped_columns=frozenset(names),
        fold_newlines=fold_newlines,
    )
