"""How two things stand to each other: the degree from 0 to 1 to which a spatial word holds.

The right degree asks in units of the things' sizes which axis separates them. The published one is
that of T2I-CompBench (`determine_position`), in pixels between centres.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.scoring.formulae.boxes import (
    Box,
    area_of,
    centre_of,
    clipped,
    height_of,
    intersection_of,
    iou,
    share_of_smaller,
    width_of,
)

Depth: TypeAlias = npt.NDArray[np.float64]
"""[height, width], larger is nearer, as MiDaS and DPT have it."""

Words: TypeAlias = frozenset[str]

_MOST_COVERED = 0.75  # of the smaller box, beyond which neither stands beside the other
_LEAST_NEARER = 0.05  # of the depth map's range
_NEAR_PIXELS = 150.0  # T2I-CompBench: closer than that is next to
_LEAST_IOU = 0.1  # T2I-CompBench: a direction is soft from here

DEPTH_RELATIONS = frozenset({"in front of", "behind", "hidden", "hidden by"})


@dataclass(frozen=True)
class _Layout:
    """Two clipped boxes in a picture; `a` is the subject."""

    a: Box
    b: Box
    width: float
    height: float
    depth: Depth | None

    @cached_property
    def u(self) -> float:
        """Offset of the centres in x, in half the sum of widths: 1 is where the boxes part."""
        (a, _), (b, _) = centre_of(self.a), centre_of(self.b)
        return (a - b) / ((width_of(self.a) + width_of(self.b)) / 2)

    @cached_property
    def v(self) -> float:
        """The same in y."""
        (_, a), (_, b) = centre_of(self.a), centre_of(self.b)
        return (a - b) / ((height_of(self.a) + height_of(self.b)) / 2)

    @cached_property
    def shared_pixels(self) -> float:
        """Overlap in x, 0 or more."""
        return max(min(self.a[2], self.b[2]) - max(self.a[0], self.b[0]), 0.0)

    @cached_property
    def shared(self) -> float:
        """Overlap in x, as a share of the smaller width."""
        return self.shared_pixels / min(width_of(self.a), width_of(self.b))

    @cached_property
    def covered(self) -> float:
        return share_of_smaller(self.a, self.b)

    @cached_property
    def reach(self) -> float:
        """How far apart two things may be to be near each other, in pixels."""
        size = math.sqrt((area_of(self.a) + area_of(self.b)) / 2)
        return max(size, 0.2 * min(self.width, self.height))

    @cached_property
    def gap(self) -> float:
        """Distance of the boxes in pixels, 0 if they touch."""
        return math.hypot(
            max(self.b[0] - self.a[2], self.a[0] - self.b[2], 0.0),
            max(self.b[1] - self.a[3], self.a[1] - self.b[3], 0.0),
        )


def degree(
    relation: str, a: Box, b: Box, *, width: float, height: float, depth: Depth | None = None
) -> float | None:
    """The degree, 0 to 1, to which `a` stands in a relation to `b` in a picture of this size.

    None for a word that is no spatial relation, and for one of depth without a depth map, which
    has the pixels of the boxes.
    """
    holds = _DEGREES.get(relation)
    if holds is None or (relation in DEPTH_RELATIONS and depth is None):
        return None
    inner_a, inner_b = clipped(a, width, height), clipped(b, width, height)
    if inner_a is None or inner_b is None:
        return 0.0
    return holds(_Layout(inner_a, inner_b, width, height, depth))


def verdict(
    relation: str, a: Box, b: Box, *, width: float, height: float, depth: Depth | None = None
) -> bool | None:
    """Whether the relation holds in full; None where `degree` is."""
    held = degree(relation, a, b, width=width, height=height, depth=depth)
    return None if held is None else held == 1


def boxes_can_tell(relation: str | None) -> bool:
    """Whether a relation can be judged from boxes alone."""
    return relation in _DEGREES and relation not in DEPTH_RELATIONS


def _way(layout: _Layout, p: float, q: float) -> float:
    """A direction: `p` is the offset in it, `q` the one across."""
    if layout.covered > _MOST_COVERED or p <= 0:
        return 0.0
    if p >= abs(q):
        return min(1.0, p / 0.5)
    return float(p >= 1 and p >= 0.6 * abs(q))


def _above(layout: _Layout) -> float:
    return _way(layout, -layout.v, layout.u)


def _below(layout: _Layout) -> float:
    return _way(layout, layout.v, layout.u)


def _rests(layout: _Layout) -> float:
    """On top of: contact, not height."""
    a, b = layout.a, layout.b
    is_close = b[1] - a[3] <= 0.25 * min(height_of(a), height_of(b))
    return float(layout.v < 0 and layout.shared >= 0.5 and is_close and a[3] <= b[3])


def _under(layout: _Layout) -> float:
    if layout.shared < 0.5:
        return 0.0
    a, b = layout.a, layout.b
    is_at_foot = (
        layout.shared_pixels >= 0.75 * width_of(a)
        and layout.v >= 0.25
        and a[3] >= b[3] - 0.1 * height_of(b)
    )
    return max(_below(layout), float(is_at_foot))


def _beside(layout: _Layout) -> float:
    is_stacked = abs(layout.v) >= 1 and abs(layout.u) < 0.5
    if layout.covered > _MOST_COVERED or is_stacked:
        return 0.0
    return _within(layout, layout.reach / 2)


def _near(layout: _Layout) -> float:
    return 0.0 if layout.covered > 0.9 else _within(layout, layout.reach)


def _within(layout: _Layout, tolerance: float) -> float:
    return 1.0 if layout.gap <= tolerance else tolerance / layout.gap


def _inside(layout: _Layout) -> float:
    area = area_of(layout.a)
    is_covered = intersection_of(layout.a, layout.b) >= 0.9 * area
    return float(is_covered and area <= 0.8 * area_of(layout.b))


def _in_front(layout: _Layout) -> float:
    assert layout.depth is not None  # or there was no degree
    return float(layout.shared >= 0.3 and _nearer(layout) > _margin(layout.depth))


def _behind(layout: _Layout) -> float:
    assert layout.depth is not None  # or there was no degree
    return float(layout.shared >= 0.3 and _nearer(layout) < -_margin(layout.depth))


def _margin(depth: Depth) -> float:
    return _LEAST_NEARER * float(depth.max() - depth.min())


def _nearer(layout: _Layout) -> float:
    """By how much `a` is nearer. The front one must not be averaged into the one behind it."""
    depth = layout.depth
    assert depth is not None
    in_a, in_b = (_pixels_of(box, depth.shape) for box in (layout.a, layout.b))
    return _mean_depth(depth, in_a, in_b) - _mean_depth(depth, in_b, in_a)


def _pixels_of(box: Box, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    covered = np.zeros(shape, np.bool_)
    columns = slice(math.floor(box[0]), math.ceil(box[2]))
    covered[math.floor(box[1]) : math.ceil(box[3]), columns] = True
    return covered


def _mean_depth(depth: Depth, own: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    free = own & ~other
    is_enough = 10 * int(free.sum()) >= int(own.sum())
    return float(depth[free if is_enough else own].mean())


_LEFT = ("left of", "on the left of", "to the left of")
_RIGHT = ("right of", "on the right of", "to the right of")
_DEGREES: Mapping[str, Callable[[_Layout], float]] = {
    **dict.fromkeys(_LEFT, lambda layout: _way(layout, -layout.u, layout.v)),
    **dict.fromkeys(_RIGHT, lambda layout: _way(layout, layout.u, layout.v)),
    **dict.fromkeys(("above", "over"), _above),
    **dict.fromkeys(("below", "on the bottom of", "bottom of"), _below),
    "on top of": _rests,
    **dict.fromkeys(
        ("on the top of", "top of"), lambda layout: max(_above(layout), _rests(layout))
    ),
    **dict.fromkeys(("under", "beneath", "underneath"), _under),
    **dict.fromkeys(("next to", "on side of", "beside"), _beside),
    "near": _near,
    **dict.fromkeys(("inside", "in"), _inside),
    "in front of": _in_front,
    **dict.fromkeys(("behind", "hidden", "hidden by"), _behind),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedWords:
    """The relations for which a copy of `determine_position` has a branch; any other is 0."""

    near: Words = frozenset({"next to", "on side of", "near"})
    right: Words
    left: Words
    bottom: Words
    top: Words


COMPBENCH_WORDS = PublishedWords(
    right=frozenset({"on the right of"}),
    left=frozenset({"on the left of"}),
    bottom=frozenset({"on the bottom of"}),
    top=frozenset({"on the top of"}),
)
T2I_R1_WORDS = PublishedWords(
    right=frozenset({"right of", "on the right of"}),
    left=frozenset({"left of", "on the left of"}),
    bottom=frozenset({"below", "on the bottom of"}),
    top=frozenset({"top of", "on the top of"}),
)


def published_position(
    relation: str | None, a: Box, b: Box, words: PublishedWords = COMPBENCH_WORDS
) -> float:
    """T2I-CompBench's `determine_position`, 0 to 1, on boxes as they are, unclipped.

    Things in one row or column are near each other however far apart they are.
    """
    (ax, ay), (bx, by) = centre_of(a), centre_of(b)
    dx, dy = bx - ax, by - ay
    if relation in words.near:
        if abs(dx) < _NEAR_PIXELS or abs(dy) < _NEAR_PIXELS:
            return 1.0
        return _NEAR_PIXELS / max(abs(dx), abs(dy))
    is_aside, is_upright = abs(dx) > abs(dy), abs(dy) > abs(dx)
    is_there = (
        (relation in words.right and dx < 0 and is_aside)
        or (relation in words.left and dx > 0 and is_aside)
        or (relation in words.bottom and dy < 0 and is_upright)
        or (relation in words.top and dy > 0 and is_upright)
    )
    overlap = iou(a, b)
    if not is_there or math.isnan(overlap):
        return 0.0
    return 1.0 if overlap < _LEAST_IOU else _LEAST_IOU / overlap


def published_depth_position(relation: str | None, a: Box, b: Box, depth: Depth) -> float:
    """What T2I-CompBench's 3D script adds, 0 to 1: the depth map is cut by rows of x and columns of
    y, and an IoU of 0 or of exactly a half is no relation.
    """
    if relation not in ("in front of", "behind", "hidden"):
        return published_position(relation, a, b)
    crop_a, crop_b = (depth[int(box[0]) : int(box[2]), int(box[1]) : int(box[3])] for box in (a, b))
    if not crop_a.size or not crop_b.size:
        return 0.0
    nearer = float(crop_a.mean() - crop_b.mean())
    if not (nearer > 0 if relation == "in front of" else nearer < 0):
        return 0.0
    overlap = iou(a, b)
    if overlap > 0.5:
        return 1.0
    return overlap / 0.5 if 0 < overlap < 0.5 else 0.0
