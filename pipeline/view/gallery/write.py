"""From traces to a gallery: a static, self-contained folder that opens from disk or bucket.

Rows are read, painted and written a few at a time, in the order in which they are stored; the order
that was asked for stands in the grid. What is known of each trace is in memory, as is one sheet of
pictures a run.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby, islice

from pipeline.pictures import Pixels
from pipeline.scoring.painting import Pictures, RunPainter, all_pictures_of
from pipeline.store.objects import Store
from pipeline.twig.requests import Codes
from pipeline.view.gallery import chunks, places
from pipeline.view.gallery.sheets import LOSSLESS_BELOW, SheetWriter
from pipeline.view.runs import ListedTrace, ViewedRun, columns_of
from pipeline.view.strips import Strip, strip_of
from pipeline.view.text import visible
from schemas import __version__
from schemas.config import Pictures as PicturesKept
from schemas.errors import InputError
from schemas.json_values import JsonObject, JsonValue

MOST_TRACES = 100_000
"""What one page can hold, and the memory of who writes it."""

_PAGE = files("pipeline.view.gallery") / "page"
_ASSETS = ("gallery.css", "gallery.js", "icon.svg")
_ROWS_AT_ONCE = 16
_LARGEST, _LARGEST_THUMB = 512, 128  # pixels a side, of pictures in strips and of thumbnails
_THUMB_COLUMNS = 4  # of a sheet, and as many rows: a page of the grid shows thumbnails of many
_SHEET_COLUMNS = 8
_SHEET_PIXELS = 2**20  # about, of the pictures of strips

Chosen = Sequence[tuple[ViewedRun, ListedTrace]]
"""Traces in the order that was asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gallery:
    """What a gallery shows."""

    title: str
    runs: tuple[ViewedRun, ...]
    chosen: Chosen
    names: tuple[str, ...]  # of the runs
    are_beside: bool = False  # two runs of the same prompts, to be compared
    is_set: bool = False
    about: str = ""


def write_gallery(
    gallery: Gallery, out: Store, say: Callable[[int], None] = lambda num_done: None
) -> list[str]:
    """Write a gallery, in the place of an earlier one. `say` hears how many traces are done.

    Returns what should be known, such as pictures that could not be painted here. Raises InputError
    for a place that holds anything else, for no traces, and for more than MOST_TRACES.
    """
    num_traces = len(gallery.chosen)
    if not num_traces:
        raise InputError("no trace holds what was asked for, so there is nothing to show")
    if num_traces > MOST_TRACES:
        raise InputError(
            f"{num_traces:,} traces are more than the {MOST_TRACES:,} that a page can hold; take "
            "some by lot (--number 20000), or fewer with --where"
        )
    places.check_place(out)
    folder = places.folder_of(_digest(gallery))
    with places.writing(out) as writer:

        def put(name: str, body: bytes) -> None:
            writer.put(f"{folder}/{name}", body)

        for name in _ASSETS:
            put(name, (_PAGE / name).read_bytes())
        shown, judges, notes = _put_traces(gallery, put, say)
        numbers = chunks.number_columns(columns_of(gallery.runs), shown)
        facts = _facts(gallery, num_grids=chunks.put_grid(put, shown, numbers)) | {
            "numbers": list(numbers),
            "judges": [name for name in numbers if name in judges],
            "notes": [visible(note) for note in notes],
        }
        put("view.js", chunks.script("view", facts))
    page = (_PAGE / places.PAGE).read_bytes().replace(b"view-folder", folder.encode())
    places.commit_page(out, page, folder)
    return notes


def _put_traces(
    gallery: Gallery, put: chunks.Put, say: Callable[[int], None]
) -> tuple[list[chunks.ShownTrace], set[str], list[str]]:
    """Put strips and pictures of all traces. Returns them as the grid has them, the columns by
    which scorers judge whole traces, and the notes.
    """
    shown: list[chunks.ShownTrace] = []
    judges: set[str] = set()
    notes: list[str] = []
    details = chunks.DetailsWriter(put)
    ranked = [(rank, run, trace) for rank, (run, trace) in enumerate(gallery.chosen)]
    for index, run in enumerate(gallery.runs):
        ours = sorted(
            ((trace, rank) for rank, owner, trace in ranked if owner is run),
            key=lambda pair: _stored_at(pair[0]),
        )
        painter, problem = _painter_of(run)
        notes += [problem] if problem else []
        pictures = _RunPictures(run, index, put)
        ranks = {_stored_at(trace): rank for trace, rank in ours}
        for painted in _painted(run, [trace for trace, _ in ours], painter):
            thumb = pictures.thumb_of(painted)
            details.add(painted.strip, painted.pictures, pictures.sheets)
            judges |= {name for name, _ in painted.strip.chips}
            shown.append(
                chunks.ShownTrace(
                    run=index,
                    rank=ranks[_stored_at(painted.trace)],
                    thumb=thumb,
                    facts=painted.trace.facts,
                )
            )
            say(len(shown))
        pictures.finish()
        if run.damage:
            noun = "shard is" if len(run.damage) == 1 else "shards are"
            of_run = f" of {gallery.names[index]}" if len(gallery.runs) > 1 else ""
            notes.append(f"{len(run.damage)} damaged {noun} not shown{of_run}")
    details.finish()
    return shown, judges, notes


@dataclass(frozen=True, kw_only=True, slots=True)
class _Painted:
    """A trace with all that is shown of it."""

    trace: ListedTrace
    strip: Strip
    pictures: Pictures


def _painted(
    run: ViewedRun, traces: Sequence[ListedTrace], painter: RunPainter
) -> Iterator[_Painted]:
    """These traces, which stand as they are stored, some of them in memory at a time."""
    for source, of_object in groupby(traces, key=lambda trace: trace.source):
        scores = run.scores_at(source)
        rows = run.read_rows(list(of_object))
        while batch := list(islice(rows, _ROWS_AT_ONCE)):
            decisions = run.decisions_on([trace for trace, _ in batch])
            pictures = all_pictures_of([row for _, row in batch], painter)
            for (trace, row), of_row in zip(batch, pictures, strict=True):
                trace_id = row["trace_id"]
                strip = strip_of(row, scores.get(trace_id, {}), decisions.get(trace_id, []))
                yield _Painted(trace=trace, strip=strip, pictures=of_row)


class _RunPictures:
    """The sheets of one run: of its strips, and of its thumbnails."""

    def __init__(self, run: ViewedRun, index: int, put: chunks.Put) -> None:
        cell, thumb = cells_of(run)
        self.sheets = SheetWriter(
            put,
            f"pictures-{index}",
            cell=cell,
            columns=_SHEET_COLUMNS,
            rows=max(1, _SHEET_PIXELS // (_SHEET_COLUMNS * cell * cell)),
        )
        self._thumbs = SheetWriter(
            put, f"thumbs-{index}", cell=thumb, columns=_THUMB_COLUMNS, rows=_THUMB_COLUMNS
        )
        self._num_thumbs = 0

    def thumb_of(self, painted: _Painted) -> int:
        """The number of a trace's thumbnail; -1: it has no picture.

        It is of the finished picture, or of the last canvas of a trace that was given up on.
        """
        pixels = painted.pictures.get(None)
        if pixels is None:
            canvases = [painted.pictures.get(frame.event) for frame in painted.strip.frames]
            pixels = next((canvas for canvas in reversed(canvases) if canvas is not None), None)
        if pixels is None:
            return -1
        self._thumbs.add(pixels)
        self._num_thumbs += 1
        return self._num_thumbs - 1

    def finish(self) -> None:
        """Put what is not put yet."""
        self.sheets.finish()
        self._thumbs.finish()


def cells_of(run: ViewedRun) -> tuple[int, int]:
    """Pixels a side of a run's pictures in strips, and of its thumbnails."""
    side = run.source.manifest.geometry.image_size
    return min(side, _LARGEST), min(side, _LARGEST_THUMB)


class _PaintsNothing(RunPainter):
    """For a run whose model is not to be had here: its strips show what its traces kept."""

    def paint(self, canvases: Sequence[Codes]) -> dict[Codes, Pixels]:
        return {}


def _painter_of(run: ViewedRun) -> tuple[RunPainter, str]:
    """What paints the pictures that the traces did not keep, or why they cannot be painted."""
    painter = RunPainter(run.source.manifest)
    if run.source.manifest.config.method.pictures is PicturesKept.ALL:
        return painter, ""
    try:
        painter.paint([(0,)])
    except InputError as error:
        problem = f"pictures that run {run.source.run_id} did not keep are not shown: {error}"
        return _PaintsNothing(run.source.manifest), problem
    return painter, ""


def _stored_at(trace: ListedTrace) -> tuple[int, int, int]:
    return trace.source.shard, trace.source.supplement, trace.position


def _facts(gallery: Gallery, *, num_grids: int) -> JsonObject:
    """What the page has to know before any trace."""
    runs: list[JsonValue] = []
    for run, name in zip(gallery.runs, gallery.names, strict=True):
        cell, _ = cells_of(run)
        runs.append(
            {
                "name": visible(name),
                "run_id": visible(run.source.run_id),
                "columns": _SHEET_COLUMNS,
                "crisp": cell < LOSSLESS_BELOW,
            }
        )
    return {
        "title": visible(gallery.title),
        "about": visible(gallery.about),
        "runs": runs,
        "beside": gallery.are_beside,
        "set": gallery.is_set,
        "num_traces": len(gallery.chosen),
        "grids": num_grids,
        "traces_per_chunk": chunks.TRACES_PER_CHUNK,
        "thumb_columns": _THUMB_COLUMNS,
        "words": list(chunks.WORDS),
        "flags": list(chunks.FLAGS),
        "version": __version__,
    }


def _digest(gallery: Gallery) -> str:
    """16 hex digits over all that the gallery shows, but for pictures and what was said."""
    hasher = hashlib.sha256(f"{__version__}|{gallery.title}|{gallery.are_beside}".encode())
    for run in gallery.runs:
        hasher.update(repr([source.footer.digest for source in run.source.objects]).encode())
    for _, trace in gallery.chosen:
        facts = json.dumps(dict(trace.facts), sort_keys=True)
        hasher.update(facts.encode())
    return hasher.hexdigest()[:16]
