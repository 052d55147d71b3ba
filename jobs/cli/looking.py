"""The command that makes a page to look at."""

from typing import Annotated

import typer

from jobs.cli.options import OnlyDead, OnlyRevised, SortText, WhereText
from jobs.commands.terminal import Terminal

app = typer.Typer()


@app.command(rich_help_panel="Look")
def view(
    source: Annotated[
        str, typer.Argument(metavar="RUN|SET", help="A run or a training set; s3:// too.")
    ],
    out: Annotated[
        str | None,
        typer.Argument(metavar="[OUT]", help="Where the page goes; by default view/ in it."),
    ] = None,
    beside: Annotated[
        str | None,
        typer.Option(metavar="RUN2", help="Another run of the same prompts, side by side."),
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN", help="Where a set's run lies, if not near it. Repeatable."),
    ] = None,
    where: WhereText = "",
    sort: SortText = "",
    dead: OnlyDead = False,
    revised: OnlyRevised = False,
    number: Annotated[
        int | None, typer.Option(min=1, help="A sample of so many traces, by lot.")
    ] = None,
) -> None:
    """Write a gallery: a page with all traces, their canvases, critiques and scores.

    Plain files that open from disk or bucket, without a server. Pictures that a run did not keep
    are painted from their tokens. Written again, it takes the place of the old one.

        coppice view runs/first
        coppice view sets/first s3://bucket/gallery --number 2000
        coppice view runs/first --beside runs/second --where 'toy.value < 1' --sort score
    """
    terminal = Terminal()
    terminal.doing("reading traces")
    from jobs.commands.view import ViewRequest, write_view
    from pipeline.view.where import Choice

    request = ViewRequest(
        source=source,
        out=out,
        beside=beside,
        runs=run or [],
        choice=Choice(where=where, sort=sort, is_dead=dead, is_revised=revised),
        number=number,
    )
    write_view(request, terminal)
