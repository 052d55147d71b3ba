"""What `coppice curate` does: a training set of scored runs, by a recipe.

The work is spread over processes of one machine; it takes no Ray.
"""

from dataclasses import dataclass

from jobs.commands.terminal import Terminal, as_typed, counted
from pipeline.select.funnel import lines_of
from pipeline.select.recipes import load_recipe
from pipeline.select.selection import open_curation
from pipeline.sets.exports import check_exports
from pipeline.sets.write import write_set
from pipeline.store.open import open_store
from pipeline.store.runs import open_run


@dataclass(frozen=True, kw_only=True, slots=True)
class CurateRequest:
    """What the user asked for, unchecked."""

    runs: list[str]  # URLs
    out: str  # the URL of the set
    recipe: str  # a shipped name or a TOML file
    evaluation: list[str]  # prompt files
    exports: list[str]
    packs: list[str]  # template packs, names or TOML files
    num_workers: int
    dry_run: bool


def curate_runs(request: CurateRequest, terminal: Terminal) -> None:
    """Decide, print the funnel, and write the set. Raises InputError before any work starts."""
    recipe, folder = load_recipe(request.recipe)
    exports = tuple(dict.fromkeys([*recipe.exports, *request.exports]))
    check_exports(exports, recipe.kind)
    recipe = recipe.model_copy(update={"exports": exports})
    curation = open_curation(
        [open_run(url) for url in request.runs],
        recipe,
        folder,
        evaluation=request.evaluation,
        num_workers=request.num_workers,
    )
    terminal.say(*lines_of(curation.funnel))
    if request.dry_run:
        terminal.say("Nothing was written.")
        return
    out = open_store(request.out)
    manifest = write_set(
        curation, out, packs=request.packs, num_workers=request.num_workers, say=terminal.say
    )
    num_files = sum(len(stream.files) for stream in manifest.files.values())
    terminal.say(f"Set {manifest.version}: {as_typed(out.url)}, {counted(num_files, 'file')}.")
