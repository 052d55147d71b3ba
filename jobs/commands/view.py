"""A gallery of a run, of a set, or of two runs side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.commands.live.line import Progress
from jobs.commands.status import say_damage
from jobs.commands.terminal import Terminal, as_typed, counted
from pipeline.store.layout import object_name
from pipeline.store.open import open_store
from pipeline.view.gallery.places import PAGE
from pipeline.view.gallery.write import Gallery, write_gallery
from pipeline.view.runs import ViewedRun, choose, columns_of, view_run
from pipeline.view.sets import ViewedSet, view
from pipeline.view.where import Choice
from schemas.errors import ExitCode, InputError

_FOLDER = "view"


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewRequest:
    """What a command was asked for."""

    source: str  # the URL of a run or a set
    out: str | None  # None: a folder in the source
    beside: str | None
    runs: Sequence[str]  # of a set
    choice: Choice
    number: int | None  # of traces by lot; None: all


def write_view(request: ViewRequest, terminal: Terminal) -> ExitCode:
    """Write the gallery of what can be read, and say where it is, and what cannot."""
    gallery = _gallery_of(request)
    damages = [run.damage for run in gallery.runs if run.damage]
    if gallery.chosen or not damages:
        _write(gallery, request, terminal)
        damages = [run.damage for run in gallery.runs if run.damage]  # more may have come to light
    for damage in damages:
        say_damage(damage, terminal)
    return ExitCode.DAMAGED if damages else ExitCode.COMPLETE


def _write(gallery: Gallery, request: ViewRequest, terminal: Terminal) -> None:
    out = open_store(request.out or f"{request.source.rstrip('/')}/{_FOLDER}")
    num_shown = 0
    with terminal.progress("reading traces") as line:

        def tell(num_done: int) -> None:
            nonlocal num_shown
            num_shown = num_done
            num_all = len(gallery.chosen)
            line.show(Progress(noun="traces", num_done=num_done, num_all=num_all))

        notes = write_gallery(gallery, out, tell)
    terminal.say(*(f"Note: {note}" for note in notes))
    terminal.say(f"Gallery: {as_typed(f'{out.url}/{PAGE}')}, {counted(num_shown, 'trace')}")


def _gallery_of(request: ViewRequest) -> Gallery:
    """What is to be shown. Raises InputError for what cannot be had."""
    viewed = view(request.source, request.runs, is_around_damage=True)
    is_set = isinstance(viewed, ViewedSet)
    runs = list(viewed.runs) if isinstance(viewed, ViewedSet) else [viewed]
    if request.beside is not None:
        if is_set:
            raise InputError("a set is looked at alone; give two runs to have them side by side")
        runs.append(view_run(request.beside, is_around_damage=True))
    where, sort = request.choice.read(columns_of(runs))
    name = object_name(open_store(request.source).url)
    names = [object_name(run.store.url) for run in runs]
    if len(set(names)) < len(names):
        names = [run.source.run_id for run in runs]
    return Gallery(
        title=" and ".join(names) if request.beside is not None else name,
        about=_about(viewed, runs),
        runs=tuple(runs),
        names=tuple(names),
        chosen=choose(runs, where=where, sort=sort, number=request.number),
        are_beside=request.beside is not None,
        is_set=is_set,
    )


def _about(viewed: ViewedRun | ViewedSet, runs: Sequence[ViewedRun]) -> str:
    if isinstance(viewed, ViewedSet):
        recipe = viewed.manifest.inputs.recipe
        return f"Training set, version {viewed.manifest.version}, by the recipe {recipe.name}"
    models = {run.source.manifest.config.method.model.name for run in runs}
    return f"{counted(len(runs), 'run')} of {', '.join(sorted(models))}"
