"""Reading a picture of the toy world back: what stands where, and the words for it.

Knows the codebook, and nothing of prompts, specs or right and wrong.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.pictures import Pixels
from pipeline.toy.patches import COLUMNS, Code, meanings, nearest_codes
from pipeline.toy.scenes import SLOTS, with_article
from pipeline.twig.requests import Codes

UNKNOWN = -1  # for a patch that is like none
_FURTHEST = 30.0  # root mean square in levels; a decoder's blur stays far below
_BAND = 2 * COLUMNS


@dataclass(frozen=True, kw_only=True, slots=True)
class Spot:
    """What stands in one of the three slots of the middle band. None: of no single kind."""

    colour: str | None
    shape: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What a picture shows. None: it is of no single kind, or broken; an empty thing is none."""

    sky: str | None
    sky_thing: str | None
    spots: tuple[Spot | None, Spot | None, Spot | None]  # None: nothing stands there
    ground: str | None
    ground_thing: str | None


def views_of_pixels(pictures: Pixels) -> list[View]:
    """What each of these pictures, uint8 [pictures, 48, 48, 3], shows.

    A patch that is near to none of the codebook's is unknown.
    """
    codes, distances = nearest_codes(pictures)
    known: npt.NDArray[np.int64] = np.where(distances > _FURTHEST, UNKNOWN, codes)
    return [view_of_codes(row) for row in known.tolist()]


def view_of_codes(codes: Sequence[int] | Codes) -> View:
    """What the picture of these 36 tokens shows; a token may be `UNKNOWN`."""
    shown = [("unknown",) if code == UNKNOWN else meanings()[code] for code in codes]
    sky, middle, ground = shown[:_BAND], shown[_BAND : 2 * _BAND], shown[2 * _BAND :]
    left, centre, right = (_spot(_block(middle, slot)) for slot in range(3))
    return View(
        sky=_kind(sky, "sky"),
        sky_thing=_sky_thing(sky),
        spots=(left, centre, right),
        ground=_kind(ground, "ground"),
        ground_thing=_ground_thing(ground),
    )


def words_of(view: View, band: int) -> str:
    """One sentence for a band of what is seen, as a thought would say it where nothing is amiss."""
    if band == 0:
        return _with_thing(with_article(f"{view.sky or 'broken'} sky"), view.sky_thing)
    if band == 2:
        return _with_thing(view.ground or "broken ground", view.ground_thing)
    names = [_spot_words(spot) for spot in view.spots]
    standing = [name for name in names if name != "nothing"]
    if not standing:
        return "nothing."
    if len(standing) == 1:
        slot = next(slot for slot, name in enumerate(names) if name != "nothing")
        return f"{standing[0]} {SLOTS[slot]}."
    if names[1] == "nothing":
        return f"{names[0]} left of {names[2]}."
    return f"{', '.join(names)}."


def _block(band: Sequence[Code], slot: int) -> list[Code]:
    """The four patches of a slot, row by row."""
    first = 2 * slot
    return [band[row * COLUMNS + first + side] for row in (0, 1) for side in (0, 1)]


def _kind(band: Sequence[Code], family: str) -> str | None:
    """The one sky or ground of a band."""
    kinds = {patch[1] if patch[0] == family else None for patch in band}
    kind = kinds.pop() if len(kinds) == 1 else None
    return None if kind is None else str(kind)


def _spot(block: Sequence[Code]) -> Spot | None:
    inked = [patch for patch in block if patch[0] != "wall"]
    if not inked:
        return None
    objects = [patch for patch in inked if patch[0] == "object"]
    colours = {patch[1] for patch in objects}
    outline = [(patch[2], patch[3]) if patch[0] == "object" else None for patch in block]
    shape = next((patch[2] for patch in objects), None)
    return Spot(
        colour=str(colours.pop()) if len(colours) == 1 and objects == inked else None,
        shape=str(shape) if outline == [(shape, corner) for corner in range(4)] else None,
    )


def _sky_thing(band: Sequence[Code]) -> str | None:
    """The one whole thing in the sky."""
    parts = [patch for patch in band if patch[0] == "sky" and len(patch) == 4]
    if not parts:
        return ""
    for slot in range(3):
        block = _block(band, slot)
        corners = [(patch[2], patch[3]) if patch in parts else None for patch in block]
        name = parts[0][2]
        if len(parts) == 4 and corners == [(name, corner) for corner in range(4)]:
            return str(name)
    return None


def _ground_thing(band: Sequence[Code]) -> str | None:
    counts = Counter(patch[2] for patch in band if patch[0] == "ground" and patch[2] not in (0, 1))
    if not counts:
        return ""
    name, count = next(iter(counts.items()))
    return str(name) if len(counts) == count == 1 else None


def _with_thing(words: str, name: str | None) -> str:
    if name == "":
        return f"{words}."
    return f"{words} with {with_article(name or 'broken thing')}."


def _spot_words(spot: Spot | None) -> str:
    if spot is None:
        return "nothing"
    if spot.colour is None:
        return with_article(f"broken {spot.shape or 'thing'}")
    return with_article(f"{spot.colour} {spot.shape or 'thing'}")
