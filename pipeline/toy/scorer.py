"""The exact judge of the toy world: reads the pixels of a picture against a spec.

It is no network and never guesses: an attribute is right or wrong, and one that the spec leaves
open has no score.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from pipeline.scoring.scorers import TRACE, Score, ScoringInput
from pipeline.toy.patches import IMAGE_SIZE
from pipeline.toy.scenes import Spec
from pipeline.toy.views import Spot, View, views_of_pixels
from schemas.errors import InputError
from schemas.scores import ColumnType
from schemas.trace import Role

BANDS = ("sky", "objects", "ground")
_ATTRIBUTES = (
    "sky",
    "sky_thing",
    "number",
    *(f"{name} {index}" for index in (1, 2, 3) for name in ("colour", "shape", "place")),
    "ground",
    "ground_thing",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Marks:
    """Attributes by name, a dict for each band from the top: right, wrong, or None (not asked)."""

    bands: tuple[Mapping[str, bool | None], ...]

    @property
    def all(self) -> dict[str, bool | None]:
        return {name: mark for band in self.bands for name, mark in band.items()}


def mark(view: View, spec: Spec) -> Marks:
    """Compare what a picture shows with what it was to show."""
    sky = {
        "sky": _same(view.sky, spec.sky),
        "sky_thing": _same(view.sky_thing, spec.sky_thing),
    }
    ground = {
        "ground": _same(view.ground, spec.ground),
        "ground_thing": _same(view.ground_thing, spec.ground_thing),
    }
    return Marks(bands=(sky, _mark_objects(view, spec), ground))


def share_right(marks: Iterable[bool | None]) -> float | None:
    """The share of the attributes asked for that are right; None if none was."""
    asked = [mark for mark in marks if mark is not None]
    return sum(asked) / len(asked) if asked else None


class ToyScorer:
    """Scores pictures whose records carry a toy spec in their metadata, under `spec`.

    A finished picture gets the share of attributes right, and each attribute and band. A drawing
    of one of three equal regions gets the share of its band.
    """

    name = "toy"
    version = "1"
    subjects = frozenset({TRACE, Role.DRAW.value})
    needs_pictures = True
    columns: Mapping[str, ColumnType] = dict.fromkeys(
        ("value", *_ATTRIBUTES, *(f"band: {band}" for band in BANDS)), "float32"
    )

    def score(self, batch: Sequence[ScoringInput]) -> list[Score]:
        """One score a sample.

        None for a sample without a spec, and for a picture of another size. Raises InputError for a
        spec that cannot be read.
        """
        specs = [_spec_of(sample) for sample in batch]
        pictures = [
            sample.pixels
            for sample, spec in zip(batch, specs, strict=True)
            if spec is not None and sample.pixels is not None
        ]
        views = iter(views_of_pixels(np.stack(pictures)) if pictures else [])
        return [
            Score(value=None) if spec is None else _score_of(mark(next(views), spec), sample)
            for sample, spec in zip(batch, specs, strict=True)
        ]


def _spec_of(sample: ScoringInput) -> Spec | None:
    """What a picture was to show; None for what is not of this world."""
    table = sample.metadata.get("spec")
    shape = None if sample.pixels is None else sample.pixels.shape
    if table is None or shape != (IMAGE_SIZE, IMAGE_SIZE, 3):
        return None
    try:
        if not isinstance(table, dict):
            raise TypeError("expected a JSON object")
        return Spec.from_json(table)
    except (TypeError, KeyError) as error:
        raise InputError(
            f"the spec of {sample.prompt!r} is no spec of the toy world ({error!r}); "
            "take prompts that pipeline.toy.prompts wrote"
        ) from error


def _score_of(marks: Marks, sample: ScoringInput) -> Score:
    if sample.region is not None:
        is_band = sample.num_regions == len(BANDS)
        return Score(value=share_right(marks.bands[sample.region].values()) if is_band else None)
    parts: dict[str, float | int | None] = {
        name: None if right is None else float(right) for name, right in marks.all.items()
    }
    for name, band in zip(BANDS, marks.bands, strict=True):
        parts[f"band: {name}"] = share_right(band.values())
    return Score(value=share_right(marks.all.values()), parts=parts)


def _same(seen: str | None, said: str | None) -> bool | None:
    return None if said is None else seen == said


def _mark_objects(view: View, spec: Spec) -> dict[str, bool | None]:
    """The marks of the best way to take the objects seen for the objects said."""
    seen = [(slot, spot) for slot, spot in enumerate(view.spots) if spot is not None]
    slots: list[tuple[int, Spot] | None] = [*seen, *[None] * len(spec.objects)]
    takes = (_marks_of(take, spec) for take in permutations(slots, len(spec.objects)))
    best = max(takes, key=lambda marks: sum(bool(mark) for mark in marks.values()))
    return {"number": len(seen) == len(spec.objects), **best}


def _marks_of(take: Sequence[tuple[int, Spot] | None], spec: Spec) -> dict[str, bool | None]:
    """The marks if `take` are the objects of the spec, each with its slot; None is missing."""
    marks: dict[str, bool | None] = {}
    for index, (taken, said) in enumerate(zip(take, spec.objects, strict=True)):
        spot = taken[1] if taken else None
        marks[f"colour {index + 1}"] = spot is not None and spot.colour == said.colour
        marks[f"shape {index + 1}"] = spot is not None and spot.shape == said.shape
        marks[f"place {index + 1}"] = _in_place(index, take, spec)
    return marks


def _in_place(index: int, take: Sequence[tuple[int, Spot] | None], spec: Spec) -> bool | None:
    """Whether an object stands where it was said to: in its slot, or in order with all others."""
    own = take[index]
    if spec.slot is not None:
        return own is not None and own[0] == spec.slot
    if not spec.has_order:
        return None
    if own is None:
        return False
    others = [(number, other) for number, other in enumerate(take) if number != index]
    return all(
        other is not None and (other[0] < own[0]) == (number < index) for number, other in others
    )
