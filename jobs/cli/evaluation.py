"""The command that tells what a model is worth."""

from typing import Annotated

import typer

from jobs.cli.options import (
    Actors,
    Address,
    Backend,
    DtypeName,
    Model,
    ProgramName,
    RunUrl,
    Seed,
    Settings,
    execution_flags,
    method_flags,
)
from jobs.cli.prompt_options import Limit
from jobs.commands.terminal import Terminal

app = typer.Typer()


SuiteName = Annotated[
    str, typer.Option(metavar="NAME", help="toy (bundled), t2i-compbench or geneval.")
]
SuiteFolder = Annotated[
    str | None, typer.Option(metavar="DIR", help="The folder with the suite's prompt files.")
]
ImagesPerPrompt = Annotated[
    int | None, typer.Option(min=1, help="By default as published, or as the run has them.")
]
SuiteJudges = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="A judge of the suite, with your settings: 'NAME\\[key=value,...]'. Repeatable.",
    ),
]
JudgesFile = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="A TOML file with \\[scorers.NAME] tables of settings."),
]
Against = Annotated[
    str | None,
    typer.Option(metavar="RUN2", help="An evaluated run to compare with, prompt by prompt."),
]


@app.command(name="eval", rich_help_panel="Training sets")
def evaluate(
    run: RunUrl,
    suite: SuiteName,
    prompts: SuiteFolder = None,
    limit: Limit = None,
    images_per_prompt: ImagesPerPrompt = None,
    model: Model = None,
    dtype: DtypeName = None,
    backend: Backend = None,
    program: ProgramName = None,
    seed: Seed = None,
    settings: Settings = None,
    scorer: SuiteJudges = None,
    config: JudgesFile = None,
    against: Against = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    actors: Actors = None,
    workers: Annotated[int, typer.Option(min=1, help="Scorers at work at once.")] = 1,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs that each of them takes.")] = 0.0,
    address: Address = None,
) -> None:
    """Plan, run and score what RUN lacks of a suite, and print its table.

    The same command again goes on where it stopped, and does nothing twice; what it does not say
    stays as planned. Intervals are over redrawn prompts. The table is kept in RUN/eval/SUITE.json.

        coppice eval runs/toy-eval --suite toy --model toy
        coppice eval runs/bench --suite t2i-compbench --prompts DIR --gpus 1
    """
    terminal = Terminal()
    terminal.doing("reading the suite", is_logged=not as_json)
    from jobs.commands.evaluate import EvaluateRequest, evaluate_run

    flags = method_flags(model, dtype, backend, program, None, seed, None)
    flags += execution_flags(actors)
    request = EvaluateRequest(
        run=run,
        suite=suite,
        prompts=prompts,
        num_prompts=limit,
        images_per_prompt=images_per_prompt,
        settings=[*flags, *(settings or [])],
        scorers=scorer or [],
        config=config,
        against=against,
        num_workers=workers,
        num_gpus=gpus,
        address=address,
        as_json=as_json,
    )
    raise typer.Exit(evaluate_run(request, terminal))
