"""The command line. Says what each command takes; what it does stands in `jobs.commands`, and is
imported late so that `coppice --help` answers at once.
"""

from typing import Annotated

import typer

from jobs.cli import endpoints, evaluation, looking, sets
from jobs.cli.options import (
    ActorResources,
    Actors,
    Address,
    Apply,
    Backend,
    ConfigFile,
    DamagedShards,
    Deep,
    DtypeName,
    LostPlans,
    LostRun,
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
from jobs.cli.usage import PrintableUsage
from jobs.commands.terminal import Terminal
from schemas import __version__

app = typer.Typer(
    cls=PrintableUsage,
    add_completion=False,
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


@app.command()
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

        coppice plan prompts.txt runs/first --model deepseek-ai/Janus-Pro-7B --rollouts 8
        coppice plan --extend more-prompts.txt runs/first --rollouts 8
        coppice plan --extend runs/first --rollouts 16
    """
    from jobs.commands.plan import PlanRequest, extend_run, plan_run

    if len(prompts) < 2 and not extend:
        raise typer.BadParameter("give at least one prompt file, and last the run")
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
    (extend_run if extend else plan_run)(request, Terminal())


@app.command()
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
) -> None:
    """Make what is missing of a run; with prompts, plan it first.

    The same command again resumes: what is committed stays, the rest is made. Press Ctrl-C once to
    commit what is nearly done and stop, twice to stop at once.

        coppice run prompts.txt runs/first
        coppice run runs/first --actors 8
    """
    from jobs.commands.plan import PlanRequest, load_run, plan_run
    from jobs.commands.runs import grow_run

    terminal = Terminal()
    flags = method_flags(model, dtype, backend, program, pack, seed, pictures, thoughts)
    flags += execution_flags(actors, min_actors, resources)
    if max_dead_fraction is not None:
        flags.append(f"execution.max_dead_fraction={max_dead_fraction}")
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
    raise typer.Exit(grow_run(request.url, manifest, terminal, address=address))


@app.command()
def rerun(
    run: RunUrl,
    reason: Annotated[
        list[str] | None,
        typer.Option(help="Only those dead for this reason, such as timeout. Repeatable."),
    ] = None,
    shards: Annotated[
        str | None, typer.Option(metavar="3,7-9", help="Only those of these shards.")
    ] = None,
    record: Annotated[
        list[str] | None,
        typer.Option(help="Only this record's: its id or the start of it. Repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be tried again, and end.")
    ] = False,
    settings: Settings = None,
    actors: Actors = None,
    min_actors: MinActors = None,
    resources: ActorResources = None,
    address: Address = None,
) -> None:
    """Try dead rollouts of a run again, and keep those that come out well.

    What is ok is never touched. The same command again goes on where it stopped; once it is
    complete, it tries what is still dead once more.

        coppice rerun runs/first --reason timeout
        coppice rerun runs/first --shards 3,7-9 --dry-run
    """
    from jobs.commands.plan import PlanRequest, load_run
    from jobs.commands.runs import rerun_dead
    from jobs.commands.shard_lists import parse_shards
    from pipeline.plan.reruns import RerunSelection

    flags = execution_flags(actors, min_actors, resources)
    request = PlanRequest(sources=[], url=run, settings=[*flags, *(settings or [])])
    manifest = load_run(request)
    selection = RerunSelection(
        reasons=tuple(sorted(reason or ())),
        shards=parse_shards(shards, manifest.num_shards) if shards else (),
        records=tuple(sorted(record or ())),
    )
    code = rerun_dead(run, manifest, selection, Terminal(), address=address, is_dry=dry_run)
    raise typer.Exit(code)


@app.command()
def status(
    run: RunUrl,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say how far a run is. Reads the store alone; the run may be at work.

    coppice status runs/first
    """
    from jobs.commands.status import show_status

    raise typer.Exit(show_status(run, Terminal(), as_json=as_json))


@app.command()
def verify(
    run: RunUrl,
    deep: Deep = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Prove that a run is whole: each planned key once, as ok, dead or missing; or that a set is.

    Reads the store alone and changes nothing; the run may be at work. Ends with 0 if it is whole,
    else with 9 and what is wrong, what was expected, and what to do. What is missing is no damage.

        coppice verify runs/first --deep
        coppice verify sets/first
    """
    from jobs.commands.verify import verify_run

    raise typer.Exit(verify_run(run, Terminal(), is_deep=deep, as_json=as_json))


@app.command()
def why(
    run: RunUrl,
    record: Annotated[str, typer.Argument(help="A record id or the start of one.")],
    rollout: Annotated[
        int | None, typer.Option(min=0, help="One rollout of the record; without it, all.")
    ] = None,
) -> None:
    """Tell a record's whole story: where it is planned, what came of it, what went wrong.

    coppice why runs/first 3f2a
    """
    from jobs.commands.why import tell_why

    tell_why(run, record, rollout, Terminal())


@app.command()
def repair(
    run: RunUrl,
    shards: DamagedShards = None,
    plan: LostPlans = False,
    lost_run: LostRun = False,
    apply: Apply = False,
) -> None:
    """Mend what `coppice verify` found: damaged shards, plan files, or a lost run.json.

    `--shards` moves base and supplements to `_quarantine/`, and the next run makes them again.
    Stop runs and reruns of the shards first. `--plan` and `--run` make anew what traces still say.

        coppice repair runs/first --shards 3,7-9
        coppice repair runs/first --plan --apply
    """
    from jobs.commands.repair import repair_lost_run, repair_plan, repair_run

    if (shards is not None) + plan + lost_run != 1:
        raise typer.BadParameter("give one of --shards, --plan and --run")
    if shards is not None:
        repair_run(run, shards, Terminal())
    elif plan:
        raise typer.Exit(repair_plan(run, Terminal(), is_dry=not apply))
    else:
        repair_lost_run(run, Terminal(), is_dry=not apply)


@app.command()
def gc(
    run: RunUrl,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list it.")] = False,
    settle_seconds: Annotated[
        float, typer.Option(min=0, max=1e9, help="How long temporary ones must stand unchanged.")
    ] = 10.0,
) -> None:
    """Remove what killed commands left behind: plans not committed, temporary files, old drivers.

    Safe beside a live run: only what cannot come to be needed is removed, and no trace ever.

        coppice gc runs/first --dry-run
    """
    from jobs.commands.gc import collect_garbage

    collect_garbage(run, Terminal(), is_dry=dry_run, settle_seconds=settle_seconds)


app.add_typer(looking.app)
app.add_typer(sets.app)
app.add_typer(evaluation.app)
app.add_typer(endpoints.app)
