"""What `coppice curate` does: a training set of scored runs, by a recipe; and `coppice export`.

The work is spread over processes of one machine, or over a Ray cluster that is joined.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jobs.commands.job_folder import check_outlives_job
from jobs.commands.live.line import Progress
from jobs.commands.terminal import ProgressLine, Terminal, as_typed, counted
from pipeline.plan.evaluation_files import COLUMN_OPTION
from pipeline.select.funnel import lines_of
from pipeline.select.guard_lines import guard_lines_of
from pipeline.select.judge import with_judge
from pipeline.select.parallel import Result, Spread, Work, in_processes
from pipeline.select.recipes import load_recipe, with_evaluation_column
from pipeline.select.selection import Curation, open_curation
from pipeline.sets.adding import add_exports, read_set
from pipeline.sets.export_notes import export_lines
from pipeline.sets.exports import check_exports
from pipeline.sets.write import write_set
from pipeline.store.open import open_store
from pipeline.store.runs import open_run
from schemas.errors import InputError
from schemas.recipes import Recipe

_LISTED = 3  # of traces with broken numbers


@dataclass(frozen=True, kw_only=True, slots=True)
class CurateRequest:
    """What the user asked for, unchecked."""

    runs: list[str]  # URLs
    out: str  # the URL of the set
    recipe: str  # a shipped name or a TOML file
    judges: list[str]  # who fills the role of the judge; none: as the recipe says
    held_out: list[str]  # judges that are not gone by
    evaluation: list[str]  # prompt files
    evaluation_column: str | None  # of prompts in them; None: the obvious one, or the recipe's
    exports: list[str]
    packs: list[str]  # template packs, names or TOML files
    num_workers: int
    address: str | None  # of a Ray cluster; None: processes of this machine
    dry_run: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportRequest:
    """What the user asked for, unchecked."""

    out: str  # the URL of a set that stands
    exports: list[str]
    runs: list[str]  # URLs of those that the set was made of, as far as they are needed
    packs: list[str]


def export_set(request: ExportRequest, terminal: Terminal) -> None:
    """Add forms of a set that stands. Raises InputError before any work starts."""
    out = open_store(request.out)
    read_set(out, request.exports)
    runs = [open_run(url) for url in request.runs]
    manifest = add_exports(out, request.exports, runs, request.packs)
    terminal.say(*export_lines(manifest))
    terminal.say(f"Set {manifest.version}: {as_typed(out.url)}.")


def curate_runs(request: CurateRequest, terminal: Terminal) -> None:
    """Decide, print the funnel, and write the set. Raises InputError before any work starts."""
    if not request.dry_run:
        check_outlives_job(request.out)
    recipe, folder = load_recipe(request.recipe)
    exports = tuple(dict.fromkeys([*recipe.exports, *request.exports]))
    check_exports(exports, recipe.kind)
    recipe = with_judge(recipe, request.judges, request.held_out)
    if request.evaluation_column and not (request.evaluation or recipe.decontamination.files):
        raise InputError(f"{COLUMN_OPTION} is about evaluation files: name some, --evaluation")
    recipe = with_evaluation_column(recipe, request.evaluation_column)
    recipe = recipe.model_copy(update={"exports": exports})
    with (
        terminal.progress("judging traces", is_logged=False) as line,
        _spread_of(request) as spread,
    ):
        _curate(request, recipe, folder, spread, terminal, line)


def _curate(
    request: CurateRequest,
    recipe: Recipe,
    folder: Path,
    spread: Spread,
    terminal: Terminal,
    line: ProgressLine,
) -> None:
    runs = [open_run(url) for url in request.runs]
    spread = _shown(spread, line, num_objects=sum(len(run.objects) for run in runs))
    curation = open_curation(
        runs,
        recipe,
        folder,
        evaluation=request.evaluation,
        spread=spread,
    )
    terminal.say(*lines_of(curation.funnel), *_describe_broken(curation, request.runs))
    if curation.guards is not None:
        terminal.say(*guard_lines_of(curation.guards))
    if request.dry_run:
        terminal.say("Nothing was written.")
        return
    out = open_store(request.out)
    manifest = write_set(curation, out, packs=request.packs, spread=spread, say=terminal.say)
    terminal.say(*export_lines(manifest))
    num_files = sum(len(stream.files) for stream in manifest.files.values())
    terminal.say(f"Set {manifest.version}: {as_typed(out.url)}, {counted(num_files, 'file')}.")


@contextmanager
def _spread_of(request: CurateRequest) -> Iterator[Spread]:
    """Where the work is done, while it is."""
    if request.address is None:
        yield in_processes(request.num_workers)
        return
    from jobs.cluster.connect import on_ray
    from jobs.cluster.spread import on_cluster

    with on_ray(request.address):
        yield on_cluster(request.num_workers)


def _shown(spread: Spread, line: ProgressLine, *, num_objects: int) -> Spread:
    """The same, each result a step of the line: the trace objects judged, then units of rows."""
    passes = iter((("shards judged", num_objects), ("units written", 0)))

    def shown(function: Callable[[Work], Result], work: Iterable[Work]) -> Iterator[Result]:
        noun, num_all = next(passes)
        for number, result in enumerate(spread(function, work), start=1):
            line.show(Progress(noun=noun, num_done=number, num_all=num_all))
            yield result

    return shown


def _describe_broken(curation: Curation, runs: Sequence[str]) -> Iterator[str]:
    """Where there are numbers that are none, which no row is made of."""
    broken = [trace for shard in curation.shards for trace in shard.broken]
    for trace in broken[:_LISTED]:
        yield f"Not finite: {trace}"
    if broken:
        commands = " and ".join(f"coppice verify {as_typed(run)} --deep" for run in runs)
        yield f"Not finite: {counted(len(broken), 'trace')} in all; see what to do with: {commands}"
