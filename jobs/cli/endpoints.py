"""Commands around endpoints: thoughts by a thinker alone, and servers apart from a run."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.options import (
    Backend,
    ConfigFile,
    DtypeName,
    Model,
    Pack,
    Seed,
    Settings,
    SkipBad,
    method_flags,
)
from jobs.cli.prompt_options import (
    DropColumns,
    FoldNewlines,
    Limit,
    PromptColumn,
    read_options,
)
from jobs.commands.terminal import Terminal

app = typer.Typer()


CaptionFiles = Annotated[
    list[str],
    typer.Argument(
        metavar="PROMPTS... OUT.jsonl",
        help="Prompt files (.txt, .csv, .tsv, .json, .jsonl, .parquet; globs and s3:// too), "
        "and last the file to write.",
    ),
]
Thinker = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="An endpoint of --config that thinks; else --model does."),
]
EndpointOrInstall = Annotated[
    str, typer.Argument(metavar="NAME", help="An endpoint of --config; or the word install.")
]
InstallFolder = Annotated[
    Path | None, typer.Argument(metavar="DIR", help="With install: where to make the environment.")
]
Host = Annotated[str, typer.Option(help="The address to listen at. Others than this need a key.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="The port; 0: any that is free.")]


@app.command(rich_help_panel="Endpoints")
def caption(
    files: CaptionFiles,
    endpoint: Thinker = None,
    config: ConfigFile = None,
    model: Model = None,
    dtype: DtypeName = None,
    backend: Backend = None,
    pack: Pack = None,
    seed: Seed = None,
    settings: Settings = None,
    skip_bad: SkipBad = False,
    prompt_column: PromptColumn = None,
    drop_columns: DropColumns = None,
    fold_newlines: FoldNewlines = False,
    limit: Limit = None,
) -> None:
    """Write down stepwise thoughts for prompts, one a region, by a thinker alone.

    A line has the prompt, its thoughts, who thought them, and what the prompt file had; `coppice
    run OUT.jsonl RUN --thoughts` draws from them. The same command again adds what is missing.

        coppice caption prompts.txt thoughts.jsonl --config teacher.toml
        coppice run thoughts.jsonl runs/drawn --thoughts
    """
    if len(files) < 2:
        raise typer.BadParameter("give at least one prompt file, and last the file to write")
    terminal = Terminal()
    terminal.doing("reading prompts")
    from jobs.commands.endpoints.caption import CaptionRequest
    from jobs.commands.endpoints.caption import caption as caption_files

    flags = method_flags(model, dtype, backend, None, None, seed, None)
    request = CaptionRequest(
        sources=files[:-1],
        out=Path(files[-1]),
        endpoint=endpoint,
        config_file=config,
        settings=[*flags, *(settings or [])],
        pack=pack,
        skip_bad=skip_bad,
        num_records=limit,
        reading=read_options(prompt_column, drop_columns, fold_newlines),
    )
    raise typer.Exit(caption_files(request, terminal))


@app.command(rich_help_panel="Endpoints")
def serve(
    name: EndpointOrInstall,
    folder: InstallFolder = None,
    config: ConfigFile = None,
    settings: Settings = None,
    host: Host = "127.0.0.1",
    port: Port = 0,
) -> None:
    """Start the server of one endpoint, apart from any run; or install what serves.

    It runs until Ctrl-C, which ends all that it started. A run starts its own servers by itself,
    on its cluster, where its config says `serve` and no `url`.

        coppice serve install /opt/vllm
        coppice serve critic --config teacher.toml
    """
    from jobs.cluster.serving.install import install_server
    from jobs.commands.endpoints.serve import serve_endpoint

    terminal = Terminal()
    if name == "install":
        if folder is None or config is not None:
            raise typer.BadParameter("expected one folder: coppice serve install DIR")
        program = install_server(folder, terminal.say)
        terminal.say(f'In a config: command = ["{program}", "serve"]')
        return
    if folder is not None or config is None:
        raise typer.BadParameter("expected: coppice serve NAME --config FILE")
    serve_endpoint(name, config, settings or [], terminal, host=host, port=port)
