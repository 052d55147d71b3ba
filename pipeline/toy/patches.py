"""The codebook of the toy world: every distinct 8 x 8 patch that its pictures are tiled from.

Codes are numbered in the order of `codebook()`. Code 0 is blank paper, which no finished picture
shows: a canvas has it where nothing has been drawn. Patches that repeat side by side are flat, or
two that alternate: a decoder of upsampling and convolutions cannot put texture into a field of
equal codes.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.pictures import Pixels
from pipeline.twig.requests import Codes

SIDE = 8  # pixels of a patch
ROWS = COLUMNS = 6
IMAGE_SIZE = SIDE * ROWS

Code: TypeAlias = tuple[str | int, ...]
"""What a patch shows: ("paper",), ("wall",), ("object", colour, shape, corner), ("sky", colour),
("sky", colour, thing, corner), ("ground", kind, variant) or ("ground", kind, thing). Corners are 0
to 3, row by row, of what is 2 x 2 patches large."""

_Mask: TypeAlias = npt.NDArray[np.float64]  # [side, side], 1 where the ink is, and between
_FINE = 8  # samples a pixel's side

_INK = {
    "red": (214, 40, 40),
    "orange": (244, 132, 20),
    "yellow": (250, 214, 30),
    "green": (40, 150, 60),
    "blue": (40, 90, 210),
    "purple": (130, 50, 170),
    "brown": (125, 78, 40),
    "black": (25, 25, 30),
}
_SKY = {
    "pink": (250, 190, 210),
    "blue": (150, 205, 250),
    "orange": (252, 190, 120),
    "grey": (175, 178, 184),
    "purple": (190, 160, 225),
    "green": (160, 225, 180),
}
_SKY_THING = {"sun": (255, 236, 60), "moon": (250, 250, 225), "cloud": (255, 255, 255)}
_GROUND = {  # base, speck
    "grass": ((88, 160, 62), (52, 120, 40)),
    "sand": ((228, 200, 130), (200, 165, 90)),
    "snow": ((232, 240, 250), (170, 195, 228)),
    "soil": ((128, 92, 62), (95, 65, 42)),
}
_GROUND_THING = {"flower": (235, 50, 130), "rock": (110, 115, 125), "mushroom": (200, 30, 30)}
_STEM_INK = (245, 235, 220)
_PAPER = (255, 255, 255)
_WALL = (240, 230, 208)


@cache
def codebook() -> dict[Code, Pixels]:
    """Every patch, uint8 [8, 8, 3], by what it shows. Its place in the order is its code."""
    book = dict(_all_patches())
    assert len({patch.tobytes() for patch in book.values()}) == len(book)
    return book


@cache
def _numbers() -> dict[Code, int]:
    return {meaning: code for code, meaning in enumerate(codebook())}


@cache
def meanings() -> tuple[Code, ...]:
    """What each code shows."""
    return tuple(codebook())


@cache
def patches() -> Pixels:
    """The patches in the order of their codes, uint8 [num_codes, 8, 8, 3]."""
    return np.stack(list(codebook().values()))


def code_of(meaning: Code) -> int:
    """The token that shows it. Raises KeyError for what is not in the codebook."""
    return _numbers()[meaning]


def tile(codes: Codes) -> Pixels:
    """The picture of these tokens, uint8 [48, 48, 3]; tokens that are missing are paper."""
    padded = [*codes, *[0] * (ROWS * COLUMNS - len(codes))]
    return tile_all(np.array([padded]))[0]


def tile_all(codes: npt.NDArray[np.int64]) -> Pixels:
    """The pictures of whole canvases [pictures, 36], uint8 [pictures, 48, 48, 3]."""
    grid = patches()[codes].reshape(-1, ROWS, COLUMNS, SIDE, SIDE, 3)
    return grid.transpose(0, 1, 3, 2, 4, 5).reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 3)


def cut(pixels: Pixels) -> Pixels:
    """The patches of pictures [pictures, 48, 48, 3] in drawing order, [pictures, 36, 8, 8, 3]."""
    grid = pixels.reshape(-1, ROWS, SIDE, COLUMNS, SIDE, 3).transpose(0, 1, 3, 2, 4, 5)
    return grid.reshape(-1, ROWS * COLUMNS, SIDE, SIDE, 3)


def nearest_codes(
    pixels: Pixels,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The code of the nearest patch for every token of pictures [pictures, 48, 48, 3].

    Returns codes [pictures, 36] and distances [pictures, 36]: root mean squares over the pixels and
    channels of a patch, in levels of 255.
    """
    seen = cut(pixels).astype(np.float64).reshape(len(pixels), ROWS * COLUMNS, -1)
    known = patches().astype(np.float64).reshape(len(patches()), -1)
    squares = (seen**2).sum(-1)[..., None] - 2 * seen @ known.T + (known**2).sum(-1)
    best = squares.argmin(-1)
    least = np.take_along_axis(squares, best[..., None], -1)[..., 0]
    return best, np.sqrt(np.maximum(least, 0) / known.shape[1])


def _all_patches() -> Iterator[tuple[Code, Pixels]]:
    yield ("paper",), _flat(_PAPER)
    yield ("wall",), _flat(_WALL)
    for colour, ink in _INK.items():
        for shape, mask in _SHAPES.items():
            for corner, patch in enumerate(_quarters(_inked(_WALL, (ink, mask)))):
                yield ("object", colour, shape, corner), patch
    for sky, base in _SKY.items():
        yield from _sky_patches(sky, base)
    for ground, (base, speck) in _GROUND.items():
        yield from _ground_patches(ground, base, speck)


def _sky_patches(sky: str, base: Sequence[int]) -> Iterator[tuple[Code, Pixels]]:
    yield ("sky", sky), _flat(base)
    for sky_thing, ink in _SKY_THING.items():
        for corner, patch in enumerate(_quarters(_inked(base, (ink, _SKY_SHAPES[sky_thing])))):
            yield ("sky", sky, sky_thing, corner), patch


def _ground_patches(
    ground: str, base: Sequence[int], speck: Sequence[int]
) -> Iterator[tuple[Code, Pixels]]:
    for variant in range(2):
        yield ("ground", ground, variant), _inked(base, (speck, _specks(variant)), side=SIDE)
    for ground_thing, ink in _GROUND_THING.items():
        stem = [(_STEM_INK, _stem)] if ground_thing == "mushroom" else []
        layers = [*stem, (ink, _GROUND_SHAPES[ground_thing])]
        yield ("ground", ground, ground_thing), _inked(base, *layers, side=SIDE)


def _flat(colour: Sequence[int]) -> Pixels:
    return np.full((SIDE, SIDE, 3), colour, dtype=np.uint8)


def _quarters(picture: Pixels) -> list[Pixels]:
    half = slice(SIDE), slice(SIDE, None)
    return [picture[rows, columns] for rows in half for columns in half]


Inside: TypeAlias = Callable[[_Mask, _Mask], npt.NDArray[np.bool_]]
"""Whether points (x, y) are inked; x to the right and y down, both from -1 to 1."""


def _inked(
    base: Sequence[int], *layers: tuple[Sequence[int], Inside], side: int = 2 * SIDE
) -> Pixels:
    """Shapes on a flat ground, with soft edges."""
    axis = (np.arange(side * _FINE) + 0.5) / (side * _FINE) * 2 - 1
    x, y = np.meshgrid(axis, axis)
    picture = np.broadcast_to(np.array(base, dtype=np.float64), (side, side, 3))
    for ink, inside in layers:
        share = inside(x, y).reshape(side, _FINE, side, _FINE).mean((1, 3))[..., None]
        picture = picture * (1 - share) + np.array(ink) * share
    return picture.round().astype(np.uint8)


def _disc(x: _Mask, y: _Mask, radius: float) -> npt.NDArray[np.bool_]:
    return x * x + y * y < radius * radius


def _star(x: _Mask, y: _Mask) -> npt.NDArray[np.bool_]:
    """Five points, one of them up: within the line from a tip to the notch beside it."""
    tip, notch, turn = 0.97, 0.44, np.pi / 5
    radius, angle = np.hypot(x, y - 0.08), np.arctan2(x, 0.08 - y)
    wedge = np.abs((angle + turn) % (2 * turn) - turn)  # from the nearest tip
    across = notch * np.sin(turn) * np.cos(wedge) + (tip - notch * np.cos(turn)) * np.sin(wedge)
    return radius * across < tip * notch * np.sin(turn)


_SHAPES: dict[str, Inside] = {
    "circle": lambda x, y: _disc(x, y, 0.84),
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) < 0.78,
    "triangle": lambda x, y: (np.abs(x) < (y + 0.9) * 0.52) & (y < 0.78),
    "star": _star,
    "cross": lambda x, y: (
        (np.minimum(np.abs(x), np.abs(y)) < 0.3) & (np.maximum(np.abs(x), np.abs(y)) < 0.88)
    ),
}
_SKY_SHAPES: dict[str, Inside] = {
    "sun": lambda x, y: (
        _disc(x, y, 0.5)
        | (_disc(x, y, 0.9) & (np.cos(8 * np.arctan2(y, x)) > 0.35) & ~_disc(x, y, 0.62))
    ),
    "moon": lambda x, y: _disc(x, y, 0.85) & ~_disc(x - 0.5, y + 0.1, 0.72),
    "cloud": lambda x, y: (
        _disc(x + 0.42, y - 0.18, 0.42)
        | _disc(x - 0.45, y - 0.2, 0.4)
        | _disc(x, y + 0.12, 0.52)
        | ((np.abs(x) < 0.5) & (np.abs(y - 0.35) < 0.25))
    ),
}
_GROUND_SHAPES: dict[str, Inside] = {
    "flower": lambda x, y: np.hypot(x, y) < 0.55 + 0.3 * np.cos(5 * np.arctan2(y, x)),
    "rock": lambda x, y: (np.hypot(x / 0.95, (y - 0.75) / 1.1) < 1) & (y < 0.75),
    "mushroom": lambda x, y: (np.hypot(x / 0.85, y - 0.05) < 0.85) & (y < 0.1),
}


def _stem(x: _Mask, y: _Mask) -> npt.NDArray[np.bool_]:
    return (np.abs(x) < 0.25) & (np.abs(y - 0.4) < 0.5)


def _specks(variant: int) -> Inside:
    """A few specks, elsewhere in the two variants."""
    centres = [[(-0.5, -0.45), (0.45, 0.5)], [(0.5, -0.5), (-0.4, 0.4)]][variant]
    return lambda x, y: np.any([np.hypot(x - a, y - b) < 0.3 for a, b in centres], axis=0)
