"""Where one region ends and the next begins: whole rows of image tokens, top to bottom."""

import re
from collections.abc import Sequence
from itertools import pairwise

from schemas.config import can_divide_by
from schemas.errors import InputError
from schemas.geometry import Geometry
from schemas.trace import Region, Schedule

_BANDS = re.compile(r"BANDS\s*:(?P<list>[^\n]*)", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])")


def equal_bands(geometry: Geometry, num_regions: int, *, source: str = "equal") -> Schedule:
    """`num_regions` bands whose heights differ by at most one row."""
    rows = geometry.rows
    if num_regions > rows:
        raise InputError(
            f"{num_regions} regions do not fit a canvas of {rows} token rows; ask for fewer"
        )
    edges = [index * rows // num_regions for index in range(num_regions + 1)]
    return _schedule(edges, geometry, source)


def bands_by_ratio(
    geometry: Geometry, ratios: Sequence[float], *, source: str = "ratios"
) -> Schedule:
    """Bands as near to `ratios` (any positive scale) as whole rows allow, each at least one row."""
    rows = geometry.rows
    if len(ratios) > rows:
        raise InputError(
            f"{len(ratios)} regions do not fit a canvas of {rows} token rows; give {rows} or fewer"
        )
    scale = (rows - len(ratios)) / sum(ratios)
    spare = [ratio * scale for ratio in ratios]  # beyond the one row that each band has
    heights = [1 + int(share) for share in spare]
    by_remainder = sorted(range(len(ratios)), key=lambda i: (int(spare[i]) - spare[i], i))
    for index in by_remainder[: rows - sum(heights)]:
        heights[index] += 1
    edges = [sum(heights[:index]) for index in range(len(heights) + 1)]
    return _schedule(edges, geometry, source)


def read_schedule(answer: str, geometry: Geometry, num_regions: int) -> Schedule:
    """The bands that a model proposed as `BANDS: 30 40 30`; equal bands if it cannot be used.

    Usable are exactly `num_regions` numbers above 0 after the label. Their scale does not matter,
    as long as a number can be divided by their sum.
    """
    match = _BANDS.search(answer)
    ratios = [float(number) for number in _NUMBER.findall(match["list"])] if match else []
    if len(ratios) == num_regions and min(ratios) > 0 and can_divide_by(ratios):
        return bands_by_ratio(geometry, ratios, source="adaptive")
    return equal_bands(geometry, num_regions, source="fallback")


def _schedule(edges: Sequence[int], geometry: Geometry, source: str) -> Schedule:
    regions = [
        Region(index=index, start=top * geometry.columns, stop=bottom * geometry.columns)
        for index, (top, bottom) in enumerate(pairwise(edges))
    ]
    return Schedule(regions=tuple(regions), source=source)
