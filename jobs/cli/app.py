"""The command line. Says what each command takes; what it does stands in `jobs.commands`, and is
imported late so that `coppice --help` answers at once.
"""

from typing import Annotated

import typer

from jobs.cli import endpoints, evaluation, looking, recovery, sets
from jobs.cli.options import (
    ActorResources,
    Actors,
    Address,
    Backend,
    ConfigFile,
    DtypeName,
    GpuHourPrice,
    MaxDeadFraction,
    MinActors,
    Model,
    Pack,
    PicturesKept,
    ProgramName,
    Prompts,
    Rollouts,
    RunUrl,
    Seed,
    Settings,
    ShardRollouts,
    SkipBad,
    Thoughts,
    execution_flags,
    method_flags,
)
from jobs.cli.prompt_options import (
    DropColumns,
    FoldNewlines,
    Limit,
    PromptColumn,
    read_options,
)
from jobs.cli.usage import HELP_NAMES, PrintableUsage
from jobs.commands.terminal import Terminal
from schemas import __version__

_PLAN_AND_GROW, _LOOK = "Plan and grow", "Look"

app = typer.Typer(
    cls=PrintableUsage,
    context_settings={"help_option_names": HELP_NAMES},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Grow Thinking-while-Generating traces at scale, on Ray, into Parquet.

A **run** is a folder, local or on S3. `coppice plan` freezes what is to be made, `coppice run`
makes what is missing, and the same command again goes on where it stopped.

Exit codes: 0 complete, 3 incomplete (the command to go on is printed), 4 complete with dead
rollouts, 5 the run was planned with another method, 6 another driver is at work, 7 the store
refused or is away, 8 too many dead, 9 damage was found, 2 unusable input, 1 a bug of ours.
""",
)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if show:
        Terminal().say(f"coppice {__version__}")
        raise typer.Exit


@app.command(rich_help_panel=_PLAN_AND_GROW)
def plan(
    prompts: Prompts,
    model: Model = None,
    dtype: DtypeName = None,
    backend: Backend = None,
    program: ProgramName = None,
    thoughts: Thoughts = False,
    pack: Pack = None,
    seed: Seed = None,
    pictures: PicturesKept = None,
    config: ConfigFile = None,
    settings: Settings = None,
    rollouts: Rollouts = 1,
    shard_rollouts: ShardRollouts = None,
    skip_bad: SkipBad = False,
    prompt_column: PromptColumn = None,
    drop_columns: DropColumns = None,
    fold_newlines: FoldNewlines = False,
    limit: Limit = None,
    extend: Annotated[
        bool,
        typer.Option(
            "--extend",
            help="Add to a run: prompts, or without prompts more rollouts of each record.",
        ),
    ] = False,
) -> None:
    """Freeze what a run is to make: its prompts, its config, its shards.

    Nothing is written unless every prompt can be used. Planning the same again changes nothing.
    An extension adds what is missing to so many rollouts of each prompt, in shards of its own.

        coppice plan prompts.txt runs/first --model deepseek-ai/Janus-Pro-7B
        coppice plan --extend more-prompts.txt runs/first --rollouts 8
        coppice plan --extend runs/first --rollouts 16
    """
    if len(prompts) < 2 and not extend:
        raise typer.BadParameter("give at least one prompt file, and last the run")
    terminal = Terminal()
    terminal.doing("reading prompts")
    from jobs.commands.plan import PlanRequest, extend_run, plan_run

    flags = method_flags(model, dtype, backend, program, pack, seed, pictures, thoughts)
    request = PlanRequest(
        sources=prompts[:-1],
        url=prompts[-1],
        rollouts_per_record=rollouts,
        rollouts_per_shard=shard_rollouts,
        skip_bad=skip_bad,
        reading=read_options(prompt_column, drop_columns, fold_newlines),
        num_records=limit,
        config_file=config,
        settings=[*flags, *(settings or [])],
    )
    (extend_run if extend else plan_run)(request, terminal)


@app.command(rich_help_panel=_PLAN_AND_GROW)
def run(
    prompts: Prompts,
    model: Model = None,
    dtype: DtypeName = None,
    backend: Backend = None,
    program: ProgramName = None,
    thoughts: Thoughts = False,
    pack: Pack = None,
    seed: Seed = None,
    pictures: PicturesKept = None,
    config: ConfigFile = None,
    settings: Settings = None,
    rollouts: Rollouts = 1,
    shard_rollouts: ShardRollouts = None,
    skip_bad: SkipBad = False,
    prompt_column: PromptColumn = None,
    drop_columns: DropColumns = None,
    fold_newlines: FoldNewlines = False,
    limit: Limit = None,
    actors: Actors = None,
    min_actors: MinActors = None,
    resources: ActorResources = None,
    max_dead_fraction: MaxDeadFraction = None,
    address: Address = None,
    gpu_hour_price: GpuHourPrice = None,
) -> None:
    """Make what is missing of a run; with prompts, plan it first.

    The same command again resumes: what is committed stays, the rest is made. Press Ctrl-C once to
    commit what is nearly done and stop, twice to stop at once.

        coppice run prompts.txt runs/first
        coppice run runs/first --actors 8
    """
    terminal = Terminal()
    terminal.doing("reading prompts" if len(prompts) > 1 else "reading the run")
    from jobs.commands.plan import PlanRequest, load_run, plan_run
    from jobs.commands.runs import grow_run

    flags = method_flags(model, dtype, backend, program, pack, seed, pictures, thoughts)
    flags += execution_flags(actors, min_actors, resources, max_dead_fraction)
    request = PlanRequest(
        sources=prompts[:-1],
        url=prompts[-1],
        rollouts_per_record=rollouts,
        rollouts_per_shard=shard_rollouts,
        skip_bad=skip_bad,
        reading=read_options(prompt_column, drop_columns, fold_newlines),
        num_records=limit,
        config_file=config,
        settings=[*flags, *(settings or [])],
    )
    if not request.sources and (rollouts != 1 or shard_rollouts):
        raise typer.BadParameter(
            "RUN is planned already; to add to it: coppice plan --extend RUN --rollouts N"
        )
    manifest = plan_run(request, terminal) if request.sources else load_run(request)
    code = grow_run(request.url, manifest, terminal, address=address, gpu_hour_price=gpu_hour_price)
    raise typer.Exit(code)


@app.command(rich_help_panel=_LOOK)
def status(
    run: RunUrl,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow the run until it ends, or its driver does.")
    ] = False,
    gpu_hour_price: GpuHourPrice = None,
) -> None:
    """Say how far a run is, what the dead died of, and what to do next.

    Reads the store alone; the run may be at work. Ends with the exit code of `coppice run`.

        coppice status runs/first
        coppice status runs/first --watch
    """
    terminal = Terminal()
    terminal.doing("reading the run", is_logged=False)
    from jobs.commands.status import show_status, watch_status

    if watch and as_json:
        raise typer.BadParameter("--watch shows a line that moves, and --json prints one object")
    if watch:
        raise typer.Exit(watch_status(run, terminal, gpu_hour_price=gpu_hour_price))
    code = show_status(run, terminal, as_json=as_json, gpu_hour_price=gpu_hour_price)
    raise typer.Exit(code)


@app.command(rich_help_panel=_PLAN_AND_GROW)
def config() -> None:
    """Print every setting of a run with its default and what it means, as a config file.

    What stands under \\[method] decides what is made, and is frozen with the plan; \\[execution] is
    how fast and where. What is printed is taken by --config.

        coppice config > settings.toml
        coppice run prompts.txt runs/first --config settings.toml
    """
    from pipeline.plan.configs import DEFAULTS

    Terminal().say(*DEFAULTS.read_text().splitlines())


app.add_typer(recovery.app)
app.add_typer(looking.app)
app.add_typer(sets.app)
app.add_typer(evaluation.app)
app.add_typer(endpoints.app)
