"""Commands that make training sets: prompts before a run, scores and sets after it."""

from typing import Annotated

import typer

from jobs.cli.options import (
    Address,
    CurateAddress,
    EvaluationFiles,
    HeldOutJudges,
    HitsFile,
    Judges,
    KeepLeaks,
    LeaveOutBad,
    OriginLicence,
    OriginName,
    OriginRevision,
    PromptSources,
    PromptsOut,
    ReportFile,
    RunUrl,
)
from jobs.cli.prompt_options import (
    DropColumns,
    EvaluationColumn,
    FoldNewlines,
    PromptColumn,
    read_options,
)
from jobs.commands.terminal import Terminal

app = typer.Typer()


@app.command(rich_help_panel="Training sets")
def prompts(
    sources: PromptSources,
    out: PromptsOut,
    against: EvaluationFiles = None,
    evaluation_column: EvaluationColumn = None,
    keep_leaks: KeepLeaks = "L2,L3",
    hits: HitsFile = None,
    report: ReportFile = None,
    skip_bad: LeaveOutBad = False,
    prompt_column: PromptColumn = None,
    drop_columns: DropColumns = None,
    fold_newlines: FoldNewlines = False,
    origin: OriginName = None,
    revision: OriginRevision = None,
    licence: OriginLicence = None,
    parse: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="An endpoint of the config file that reads what the parser cannot: long captions, "
            "other languages, negations.",
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A TOML file with \\[method.endpoints.NAME] and more."),
    ] = None,
) -> None:
    """Give prompts their specs, and drop those that evaluation sets hold.

    A spec says what to look for: objects, attributes, counts, relations. It comes from the file's
    annotations or from a parser for English; where neither can tell, it is null. Leaks: L0 equal,
    L1 but for articles and plurals, L2 the same words, L3 the same spec.

        coppice prompts 'train/*.txt' --out prompts.jsonl --against 'val/*.txt'
        coppice run prompts.jsonl runs/first
    """
    terminal = Terminal()
    terminal.doing("reading prompts")
    from jobs.commands.prompts import PromptsRequest, make_prompt_file
    from schemas.specs import PromptOrigin

    request = PromptsRequest(
        sources=sources,
        out=out,
        against=against or [],
        keep_leaks=keep_leaks,
        hits=hits,
        report=report,
        skip_bad=skip_bad,
        origin=PromptOrigin(name=origin, revision=revision, licence=licence),
        parse=parse,
        config=config,
        reading=read_options(prompt_column, drop_columns, fold_newlines),
        evaluation_column=evaluation_column,
    )
    make_prompt_file(request, terminal)


@app.command(rich_help_panel="Training sets")
def score(
    run: RunUrl,
    scorer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A bundled scorer, or module:object, perhaps with settings in brackets: "
            "'NAME\\[key=value,...]'. Repeatable.",
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A TOML file with \\[scorers.NAME] tables of settings. Without --scorer all of "
            "its scorers are at work.",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Scorers at work at once.")] = 1,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs that each of them takes.")] = 0.0,
    address: Address = None,
) -> None:
    """Score the traces of a run. What is scored already stays; the same command again resumes.

    Scores lie beside the traces, a file a scorer and shard. Pictures that a trace does not keep are
    painted from its tokens. The scorers of one command go over a shard together. Bundled: toy,
    thoughts, critiques, own_critic, tokens, phash, prompt_filter, picture_filter.

        coppice score runs/first --scorer toy --scorer thoughts --scorer critiques
        coppice score runs/first --config judges.toml --workers 4 --gpus 1
    """
    terminal = Terminal()
    terminal.doing("reading the run")
    from jobs.commands.score import ScoreRequest, score_run

    request = ScoreRequest(
        run=run,
        scorers=scorer or [],
        config=config,
        num_workers=workers,
        num_gpus=gpus,
        address=address,
    )
    score_run(request, terminal)


@app.command(rich_help_panel="Training sets")
def curate(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN... OUT", help="Runs, and last where the set goes.")
    ],
    recipe: Annotated[str, typer.Option(help="A shipped recipe's name, or a TOML file.")],
    judge: Judges = None,
    held_out: HeldOutJudges = None,
    evaluation: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Prompts to leave out, one a line. Repeatable."),
    ] = None,
    evaluation_column: EvaluationColumn = None,
    export: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Also in a trainer's form: trl, verl ... Repeatable."),
    ] = None,
    pack: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="The template pack of a run, if it is not bundled."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes, or CPUs of the cluster. The set is the same.")
    ] = 1,
    address: CurateAddress = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Decide and print the funnel; write nothing.")
    ] = False,
) -> None:
    """Make a training set of scored runs, by a recipe.

    Everything is checked before any work starts. Equal inputs make equal bytes, whatever the number
    of workers; a job that was killed goes on. Shipped, for real pictures: twig-50k,
    think-draw-equal, reflect-lite, natural, grpo and dpo go by an ensemble of judges, or by what
    --judge names; twig-50k-self needs none. For the toy's world: twig-50k-toy.

        coppice curate runs/first sets/first --recipe twig-50k-toy --export trl
        coppice curate runs/second sets/second --recipe twig-50k --judge hps.value
    """
    if len(runs) < 2:
        raise typer.BadParameter("give at least one run, and last the place of the set")
    terminal = Terminal()
    terminal.doing("reading the recipe", is_logged=False)
    from jobs.commands.curate import CurateRequest, curate_runs

    request = CurateRequest(
        runs=runs[:-1],
        out=runs[-1],
        recipe=recipe,
        judges=judge or [],
        held_out=held_out or [],
        evaluation=evaluation or [],
        evaluation_column=evaluation_column,
        exports=export or [],
        packs=pack or [],
        num_workers=workers,
        address=address,
        dry_run=dry_run,
    )
    curate_runs(request, terminal)


@app.command(rich_help_panel="Training sets")
def export(
    out: Annotated[str, typer.Argument(metavar="SET", help="A set that `curate` made.")],
    name: Annotated[
        list[str],
        typer.Option("--export", metavar="NAME", help="The form to add. Repeatable."),
    ],
    run: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN",
            help="A run that the set was made of, for forms that show more than its rows: "
            "pictures of drawings, how rollouts were sampled. Repeatable.",
        ),
    ] = None,
    pack: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="The template pack of a run, if it is not bundled."),
    ] = None,
) -> None:
    """Add trainers' forms to a set that stands. Its rows, their decisions and version stay.

    Of sets for SFT: trl, trl-messages, llama-factory, ms-swift, verl, veomni, unirl, imagefolder,
    webdataset, nemo-curator. Of groups: grpo, verl-grpo, unirl. Of pairs: trl-dpo, janus-dpo. What
    a trainer could not learn from is left out and counted.

        coppice export sets/first --export ms-swift
        coppice export sets/first --export imagefolder --run runs/first
    """
    from jobs.commands.curate import ExportRequest, export_set

    request = ExportRequest(out=out, exports=name, runs=run or [], packs=pack or [])
    export_set(request, Terminal())
