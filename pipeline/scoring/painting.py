"""The pictures that scorers look at: those that a trace kept, and all others painted from tokens.

Tokens are the truth. A run keeps the pictures that its config says, `final` by default; a scorer
gets the canvas after every drawing all the same.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from pipeline.pictures import Painter, Pixels, decode_picture
from pipeline.scoring.asking import is_out_of_memory
from pipeline.scoring.scorers import TRACE, Scorer, TorchDevice
from pipeline.twig.requests import Codes
from schemas.errors import InputError, RecordFailure
from schemas.geometry import Geometry
from schemas.rows import TraceRow
from schemas.runs import RunManifest
from schemas.trace import Role

Pictures = Mapping[int | None, Pixels]
"""Of one trace: the canvas after each drawing by the index of its event; None: the finished one.
Without those that are not wanted, and those whose pixels are not finite.
"""


class RunPainter:
    """Paints the canvases of a run. Its decoder is loaded when something is painted first."""

    def __init__(self, manifest: RunManifest, device: TorchDevice = "cpu") -> None:
        self.geometry: Geometry = manifest.geometry
        self._config, self._device = manifest.config, device
        self._painter: Painter | None = None

    def paint(self, canvases: Sequence[Codes]) -> dict[Codes, Pixels]:
        """The pictures of canvases, in batches; none of one whose pixels are not finite.

        Raises InputError for a model that cannot be had here, or is another than the run's.
        """
        if not canvases:
            return {}
        if self._painter is None:
            from pipeline.engine.backends import open_painter

            self._painter = open_painter(
                self._config, device="gpu" if self._device == "cuda" else "cpu"
            )
        distinct = list(dict.fromkeys(canvases))
        try:
            return dict(zip(distinct, self._painter.paint(distinct), strict=True))
        except RecordFailure:  # one is broken: the others are as good as ever
            if len(distinct) == 1:
                return {}
        except Exception as error:  # torch's for too little memory is no class of Python's
            if not is_out_of_memory(error) or len(distinct) == 1:
                raise
        middle = len(distinct) // 2
        return self.paint(distinct[:middle]) | self.paint(distinct[middle:])


def pictures_of(
    rows: Sequence[TraceRow], scorers: Sequence[Scorer], painter: RunPainter
) -> list[Pictures]:
    """What these scorers look at in each of the traces. A kept picture is decoded once.

    Raises InputError for a kept picture that cannot be read.
    """
    wanted = {subject for scorer in scorers if scorer.needs_pictures for subject in scorer.subjects}
    return _pictures_of(rows, wanted, painter)


def all_pictures_of(rows: Sequence[TraceRow], painter: RunPainter) -> list[Pictures]:
    """The canvas after every drawing of each of the traces, and its finished picture.

    Raises as `pictures_of` does.
    """
    return _pictures_of(rows, {TRACE, Role.DRAW.value}, painter)


def _pictures_of(rows: Sequence[TraceRow], wanted: set[str], painter: RunPainter) -> list[Pictures]:
    canvases = [_canvases(row, wanted) for row in rows]
    kept = [_kept(row, of_row) for row, of_row in zip(rows, canvases, strict=True)]
    painted = painter.paint(
        [
            codes
            for of_row, pictures in zip(canvases, kept, strict=True)
            for subject, codes in of_row.items()
            if subject not in pictures
        ]
    )
    return [
        pictures
        | {
            subject: painted[codes]
            for subject, codes in of_row.items()
            if subject not in pictures and codes in painted
        }
        for of_row, pictures in zip(canvases, kept, strict=True)
    ]


def bands_of(region_stops: Sequence[int], geometry: Geometry) -> list[tuple[int, int]]:
    """Of each region the rows of pixels from its top to below its bottom.

    `region_stops` are image tokens; regions are whole rows of them.
    """
    patch = geometry.image_size // geometry.rows
    edges = [stop // geometry.columns * patch for stop in (0, *region_stops)]
    return list(pairwise(edges))


def _canvases(row: TraceRow, wanted: set[str]) -> dict[int | None, Codes]:
    """The tokens of every canvas that is wanted: the regions kept so far, and the new one."""
    canvases: dict[int | None, Codes] = {}
    if TRACE in wanted and row["codes"]:
        canvases[None] = tuple(row["codes"])
    if Role.DRAW not in wanted:
        return canvases
    kept: dict[int, list[int]] = {}
    for event in row["events"]:
        if event["role"] == Role.DRAW:
            kept[event["region"]] = event["codes"]
            above = (kept[region] for region in range(event["region"] + 1))
            canvases[event["index"]] = tuple(code for codes in above for code in codes)
    return canvases


def _kept(row: TraceRow, canvases: Mapping[int | None, Codes]) -> dict[int | None, Pixels]:
    """The pictures of these canvases that the trace has."""
    if not canvases:  # the row may be without its pictures
        return {}
    indices: dict[int | None, int | None] = {None: row["final_picture"]}
    indices |= {event["index"]: event["picture"] for event in row["events"]}
    decoded: dict[int, Pixels] = {}
    pictures: dict[int | None, Pixels] = {}
    for subject in canvases:
        index = indices[subject]
        if index is not None:
            if index not in decoded:
                decoded[index] = _decoded(row, index)
            pictures[subject] = decoded[index]
    return pictures


def _decoded(row: TraceRow, index: int) -> Pixels:
    try:
        return decode_picture(row["images"][index]["bytes"])
    except (OSError, ValueError, SyntaxError, IndexError, TypeError) as error:  # as Pillow fails
        raise InputError(
            f"picture {index} of trace {row['trace_id']} cannot be read ({error!s:.200}); the "
            "object that holds the trace is damaged: see coppice verify RUN --deep"
        ) from error
