"""Commands that show traces: in the terminal, as one picture, as a page."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.options import OnlyDead, OnlyRevised, RunUrl, SortText, WhereText
from jobs.commands.terminal import Terminal

app = typer.Typer()


@app.command(rich_help_panel="Look")
def show(
    run: RunUrl,
    record: Annotated[
        str | None, typer.Argument(help="A record id or the start of one; none lists some.")
    ] = None,
    rollout: Annotated[int, typer.Option(min=0, help="Which rollout of the record.")] = 0,
    png: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the trace's pictures here.")
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write telling traces of the run as one PNG instead."),
    ] = None,
    where: WhereText = "",
    sort: SortText = "",
    dead: OnlyDead = False,
    revised: OnlyRevised = False,
) -> None:
    """Show a trace: what was thought, drawn, judged and drawn again.

    A contact sheet shows several at a glance: each drawing, what the critic said of it, and what
    the exact scorer says where there is one. Canvases that were not kept are painted from tokens.

        coppice show runs/first 3f2a --png pictures
        coppice show runs/first --sheet contact-sheet.png
        coppice show runs/first --where 'score < 60 and revised' --sort score
    """
    from jobs.commands.show import list_records, show_trace, write_sheet
    from pipeline.view.where import Choice

    choice = Choice(where=where, sort=sort, is_dead=dead, is_revised=revised)
    if record is not None and not choice.is_of_all:
        raise typer.BadParameter("a record is chosen by its id alone")
    if sheet is not None and (record or png):
        raise typer.BadParameter("--sheet shows the first traces: leave RECORD and --png out")
    if record is None and (rollout or png):
        raise typer.BadParameter("--rollout and --png are of one RECORD: name it")
    if sheet is not None:
        raise typer.Exit(write_sheet(run, sheet, Terminal(), choice))
    if record is None:
        raise typer.Exit(list_records(run, Terminal(), choice))
    show_trace(run, record, rollout, Terminal(), png)


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
        coppice view runs/first --beside runs/second --where 'toy.value < 1'
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
    raise typer.Exit(write_view(request, terminal))
