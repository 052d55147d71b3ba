"""Options of the command line that several commands share, and those of `coppice prompts`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from schemas.config import BackendName, ExecutionConfig, MethodConfig, Pictures, Program
from schemas.errors import InputError
from schemas.json_values import read_json_object

_METHOD, _EXECUTION = MethodConfig.model_fields, ExecutionConfig.model_fields

RunUrl = Annotated[str, typer.Argument(metavar="RUN", help="The run: a folder, or s3://...")]
Prompts = Annotated[
    list[str],
    typer.Argument(
        metavar="PROMPTS... RUN",
        help="Prompt files (.txt, .csv, .tsv, .json, .jsonl, .parquet; globs and s3:// too), "
        "and last the run.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        show_default="toy",
        help="A bundled name (tiny), a folder, a hub id such as deepseek-ai/Janus-Pro-7B, or "
        "s3://bucket/folder.",
    ),
]
DtypeName = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        show_default="the model's own",
        help="bfloat16 or float32. The bundled toy and tiny are computed in float32.",
    ),
]
Backend = Annotated[
    BackendName | None,
    typer.Option(
        show_default=_METHOD["backend"].default,
        help="What answers. The fake needs no model, for trying out.",
    ),
]
ProgramName = Annotated[
    Program | None,
    typer.Option(
        show_default=_METHOD["program"].default.value,
        help="The paper's method, or one of its baselines.",
    ),
]
Thoughts = Annotated[
    bool,
    typer.Option(
        "--thoughts",
        help="Draw from the thoughts in the prompt files' column thoughts, one a region.",
    ),
]
Pack = Annotated[
    str | None,
    typer.Option(
        show_default="the model's own, or default",
        help="The wording of the questions: a bundled name or a TOML file.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        show_default=str(_METHOD["seed"].default), help="Everything drawn by lot follows from it."
    ),
]
PicturesKept = Annotated[
    Pictures | None,
    typer.Option(
        show_default=_METHOD["pictures"].default.value,
        help="Which pictures to keep beside the tokens.",
    ),
]
ConfigFile = Annotated[
    str | None,
    typer.Option(
        "--config",
        show_default="none",
        help="A TOML file with \\[method] and \\[execution] tables; coppice config prints one.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any setting by its dotted name, such as method.sampling.cfg_weight=4. Repeatable.",
    ),
]
Rollouts = Annotated[int, typer.Option(min=1, help="Rollouts per record.")]
ShardRollouts = Annotated[
    int | None,
    typer.Option(
        min=1,
        show_default="256, or fewer of large or slow ones",
        help="Rollouts per shard, the unit of commit.",
    ),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Record unusable prompts in a rejects file and go on.")
]
MaxDeadFraction = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        show_default=str(_EXECUTION["max_dead_fraction"].default),
        help="Stop (exit 8) when more than this share is dead.",
    ),
]
Actors = Annotated[
    int | None,
    typer.Option(
        min=1,
        show_default="one for each GPU there is or can be, or CPU",
        help="At most so many actors.",
    ),
]
MinActors = Annotated[
    int | None,
    typer.Option(
        min=1,
        show_default="none",
        help="Ask Ray for so many actors, though it has no room for them yet.",
    ),
]
ActorResources = Annotated[
    str | None,
    typer.Option(
        "--resources",
        metavar="JSON",
        help="What else an actor takes of its node, to choose among nodes: '{\"drawer\": 1}'.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        envvar="RAY_ADDRESS",
        show_default="a Ray that starts here and ends",
        help="A Ray cluster to join.",
    ),
]
GpuHourPrice = Annotated[
    float | None,
    typer.Option(
        "--gpu-hour-price",
        min=0,
        show_default="none",
        help="What an hour of a GPU costs: say what a thousand ok traces cost, too.",
    ),
]
WhereText = Annotated[
    str,
    typer.Option(
        "--where",
        metavar="CONDITION",
        help="Only such traces: 'score < 60 and revised and toy.value < 1'. See docs/gallery.md.",
    ),
]
SortText = Annotated[
    str,
    typer.Option(
        "--sort", metavar="COLUMN", help="In this order; with a minus the highest first: -score."
    ),
]
OnlyDead = Annotated[bool, typer.Option("--dead", help="Only those given up on.")]
OnlyRevised = Annotated[bool, typer.Option("--revised", help="Only those drawn again.")]
DamagedShards = Annotated[
    str | None, typer.Option(metavar="3,7-9", help="Move these damaged shards aside.")
]
LostPlans = Annotated[bool, typer.Option("--plan", help="Have lost plan files back from traces.")]
LostRun = Annotated[bool, typer.Option("--run", help="Have a lost run.json back from traces.")]
Apply = Annotated[
    bool, typer.Option("--apply", help="Do what --plan or --run found; else they only say it.")
]
Deep = Annotated[
    bool,
    typer.Option("--deep", help="Read every page, picture, footer and digest of a run."),
]
Judges = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SCORER.COLUMN",
        help="Who judges, in the place of those that the recipe names. Repeatable.",
    ),
]

HeldOutJudges = Annotated[
    list[str] | None,
    typer.Option(metavar="SCORER.COLUMN", help="With --judge: who is scored and not gone by."),
]

CurateAddress = Annotated[
    str | None,
    typer.Option(
        envvar="RAY_ADDRESS",
        show_default="processes of this machine",
        help="A Ray cluster to join.",
    ),
]

PromptSources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCES...",
        help="Prompt files (.txt, .csv, .tsv, .json, .jsonl, .parquet; globs and s3:// too).",
    ),
]
PromptsOut = Annotated[Path, typer.Option(metavar="FILE", help="Where to write; ends in .jsonl.")]
EvaluationFiles = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE", help="An evaluation set, or a glob of some. Repeatable."),
]
KeepLeaks = Annotated[
    str,
    typer.Option(
        metavar="LEVELS", help="Which leaks to keep and tag; the others are dropped. Or none."
    ),
]
HitsFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The list of leaks. By default beside --out."),
]
ReportFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="All counts, and what could not be read, as JSON."),
]
LeaveOutBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave unusable lines out, and report them.")
]
OriginName = Annotated[
    str | None, typer.Option("--origin", metavar="NAME", help="Where the prompts come from.")
]
OriginRevision = Annotated[
    str | None, typer.Option("--revision", metavar="TEXT", help="Which version.")
]
OriginLicence = Annotated[
    str | None, typer.Option("--licence", metavar="NAME", help="Their licence, for data cards.")
]


def method_flags(
    model: str | None,
    dtype: str | None,
    backend: BackendName | None,
    program: Program | None,
    pack: str | None,
    seed: int | None,
    pictures: Pictures | None,
    has_thoughts: bool = False,
) -> list[str]:
    """The options that have a name of their own, as `--set` would have them."""
    words = {
        "model": model,
        "dtype": dtype,
        "backend": backend,
        "program": program,
        "pack": pack,
        "pictures": pictures,
        "thoughts": "given" if has_thoughts else None,
    }
    flags = [
        f"method.{name}={_toml_string(str(word))}"
        for name, word in words.items()
        if word is not None
    ]
    return flags if seed is None else [*flags, f"method.seed={seed}"]


def execution_flags(
    actors: int | None,
    min_actors: int | None = None,
    resources: str | None = None,
    max_dead_fraction: float | None = None,
) -> list[str]:
    """The options of a run's actors, as `--set` would have them. Raises InputError."""
    flags = [] if actors is None else [f"execution.num_actors={actors}"]
    if min_actors is not None:
        flags.append(f"execution.min_actors={min_actors}")
    if max_dead_fraction is not None:
        flags.append(f"execution.max_dead_fraction={max_dead_fraction}")
    if resources is not None:
        flags.append(f"execution.resources={_as_toml(resources)}")
    return flags


def _as_toml(resources: str) -> str:
    """An inline table of TOML."""
    try:
        amounts = read_json_object(resources, is_typed=True)
    except ValueError as error:
        raise InputError(
            f"--resources {resources!r:.80} is no JSON object ({error}); expected names and "
            """numbers, such as: --resources '{"drawer": 1}'"""
        ) from error
    for name, amount in amounts.items():
        if isinstance(amount, bool) or not isinstance(amount, int | float):
            raise InputError(
                f"--resources: {name!r:.80} is {amount!r:.40}; expected a number, such as 1"
            )
    pairs = (f"{_toml_string(name)} = {json.dumps(amount)}" for name, amount in amounts.items())
    return "{" + ", ".join(pairs) + "}"


def _toml_string(text: str) -> str:
    """As JSON has it, but that TOML knows no halves of pairs, and no DEL as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
