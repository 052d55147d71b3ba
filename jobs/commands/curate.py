"""What `coppice curate` does: a training set of scored runs, by a recipe.

`ray job submit --working-dir . -- python -m jobs.commands.curate RUN... OUT --recipe NAME` runs it
on a cluster's node; the work is spread over processes of that one machine.
"""

import sys
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from jobs.commands.terminal import as_typed, counted
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

    runs: list[str]
    out: str
    recipe: str
    evaluation: list[str]
    exports: list[str]
    packs: list[str]
    num_workers: int
    dry_run: bool


def curate_runs(request: CurateRequest, console: Console) -> None:
    """Decide, print the funnel, and write the set."""

    def say(line: str) -> None:
        console.print(Text(line), soft_wrap=True)

    recipe, folder = load_recipe(request.recipe)
    exports = tuple(dict.fromkeys([*recipe.exports, *request.exports]))
    check_exports(exports)
    recipe = recipe.model_copy(update={"exports": exports})
    curation = open_curation(
        [open_run(url) for url in request.runs],
        recipe,
        folder,
        evaluation=request.evaluation,
        num_workers=request.num_workers,
    )
    for line in lines_of(curation.funnel):
        say(line)
    if request.dry_run:
        say("Nothing was written.")
        return
    out = open_store(request.out)
    manifest = write_set(
        curation, out, packs=request.packs, num_workers=request.num_workers, say=say
    )
    num_files = sum(len(stream.files) for stream in manifest.files.values())
    say(f"Set {manifest.version}: {as_typed(out.url)}, {counted(num_files, 'file')}.")


if __name__ == "__main__":
    from jobs.cli import main

    sys.argv[1:1] = ["curate"]
    main()
