"""What may go through a model together: things of one size, so that nothing is padded."""

from collections.abc import Hashable, Iterator, Sequence


def grouped(keys: Sequence[Hashable], at_most: int | None = None) -> Iterator[list[int]]:
    """Indices of equal keys, in the order in which the keys first come, so many at most."""
    groups: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    for indices in groups.values():
        size = at_most or len(indices)
        for start in range(0, len(indices), size):
            yield indices[start : start + size]
