"""Shards as people write them: `3,7-9`."""

import re
from collections.abc import Iterable

from schemas.errors import InputError

_DIGITS = 18  # of a number that anyone means
_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+))?")


def parse_shards(text: str, num_shards: int) -> tuple[int, ...]:
    """The shards that a text like `3,7-9` names, in order, each once.

    Raises InputError for another text, and for shards that a run of so many does not have.
    """
    shards: set[int] = set()
    for piece in text.replace(" ", "").split(","):
        match = _RANGE.fullmatch(piece)
        start, stop = (match[1], match[2] or match[1]) if match else ("1", "0")
        first, last = _number(start), _number(stop)
        if first > last:
            raise InputError(f"expected shards such as 3,7-9; found {piece!r}")
        if last >= num_shards:
            raise InputError(
                f"there is no shard {stop[:_DIGITS]}: the run has shards 0 to {num_shards - 1}"
            )
        shards.update(range(first, last + 1))
    return tuple(sorted(shards))


def _number(digits: str) -> int:
    """What digits say; of too many, that it is more than any run has."""
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) < _DIGITS else 10**_DIGITS


def as_shards(shards: Iterable[int]) -> str:
    """The text that `parse_shards` takes for these shards."""
    ranges: list[list[int]] = []
    for shard in sorted(set(shards)):
        if ranges and ranges[-1][-1] == shard - 1:
            ranges[-1][1:] = [shard]
        else:
            ranges.append([shard])
    return ",".join("-".join(map(str, ends)) for ends in ranges)
