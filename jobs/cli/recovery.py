"""Commands for when something fails, or is doubted: rerun, verify, why, repair, gc."""

from typing import Annotated

import typer

from jobs.cli.options import (
    ActorResources,
    Actors,
    Address,
    Apply,
    DamagedShards,
    Deep,
    LostPlans,
    LostRun,
    MinActors,
    RunUrl,
    Settings,
    execution_flags,
)
from jobs.commands.terminal import Terminal

app = typer.Typer()
_PANEL = "When something fails"


@app.command(rich_help_panel=_PANEL)
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
    terminal = Terminal()
    terminal.doing("reading the run")
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
    code = rerun_dead(run, manifest, selection, terminal, address=address, is_dry=dry_run)
    raise typer.Exit(code)


@app.command(rich_help_panel=_PANEL)
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
    terminal = Terminal()
    terminal.doing("reading the run", is_logged=False)
    from jobs.commands.verify import verify_run

    raise typer.Exit(verify_run(run, terminal, is_deep=deep, as_json=as_json))


@app.command(rich_help_panel=_PANEL)
def why(
    run: RunUrl,
    record: Annotated[str, typer.Argument(help="A record id or the start of one.")],
    rollout: Annotated[
        int | None, typer.Option(min=0, help="One rollout of the record; without it, all.")
    ] = None,
) -> None:
    """Tell a record's whole story: where it is planned, what came of it, what went wrong.

    Every attempt that failed is told, and what to do now.

        coppice why runs/first 3f2a
    """
    from jobs.commands.why import tell_why

    tell_why(run, record, rollout, Terminal())


@app.command(rich_help_panel=_PANEL)
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


@app.command(rich_help_panel=_PANEL)
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
