"""Shards as people write them: `3,7-9`."""

import re
from collections.abc import Iterable

from schemas.errors import InputError

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def parse_shards(text: str, num_shards: int) -> list[int]:
    """The shards that a text like `3,7-9` names, in order, each once.

    Raises InputError for another text, and for a shard that a run of so many does not have.
    """
    shards: set[int] = set()
    for piece in text.replace(" ", "").split(","):
        match = _RANGE.fullmatch(piece)
        if match is None:
            raise InputError(f"{text!r} names no shards; write them as in 3,7-9")
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last or last >= num_shards:
            raise InputError(f"there are no shards {piece}; the run has 0 to {num_shards - 1}")
        shards.update(range(first, last + 1))
    return sorted(shards)


def as_shards(shards: Iterable[int]) -> str:
    """The text that `parse_shards` takes for these shards."""
    ranges: list[list[int]] = []
    for shard in sorted(set(shards)):
        if ranges and ranges[-1][-1] == shard - 1:
            ranges[-1][1:] = [shard]
        else:
            ranges.append([shard])
    return ",".join("-".join(map(str, ends)) for ends in ranges)
