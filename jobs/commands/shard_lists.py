"""Shards as people write them: `3,7-9`."""

import re
from collections.abc import Iterable

from schemas.errors import InputError

_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+))?")


def parse_shards(text: str) -> tuple[int, ...]:
    """The shards that a text like `3,7-9` names, in order, each once. Raises InputError."""
    shards: set[int] = set()
    for piece in text.replace(" ", "").split(","):
        match = _RANGE.fullmatch(piece)
        if match is None or int(match[1]) > int(match[2] or match[1]):
            raise InputError(f"expected shards such as 3,7-9; found {piece!r}")
        shards.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(sorted(shards))


def as_shards(shards: Iterable[int]) -> str:
    """The text that `parse_shards` takes for these shards."""
    ranges: list[list[int]] = []
    for shard in sorted(set(shards)):
        if ranges and ranges[-1][-1] == shard - 1:
            ranges[-1][1:] = [shard]
        else:
            ranges.append([shard])
    return ",".join("-".join(map(str, ends)) for ends in ranges)
