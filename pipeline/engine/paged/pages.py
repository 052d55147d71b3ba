"""Who owns which page of the key-value cache. Knows numbers of pages, and nothing of tensors.

A page is `PAGE_TOKENS` token slots. Everything that a request may ever need is taken at admission
and given back at its end, so a request that runs never waits for memory, and none is ever evicted.
A page may have several owners (a prefix that requests share); it is free again after the last.
"""

from collections.abc import Sequence

PAGE_TOKENS = 16

SCRATCH_PAGE = 0
"""Never handed out: where rows that are only padding read and write."""


def num_pages_for(num_tokens: int) -> int:
    """The fewest pages that hold so many tokens of one sequence."""
    return -(-num_tokens // PAGE_TOKENS)


class Pages:
    """The pages of one cache."""

    def __init__(self, num_pages: int) -> None:
        """`num_pages` with the scratch page. Raises ValueError for fewer than 2."""
        if num_pages < 2:
            raise ValueError(f"a cache of {num_pages} pages, where 2 is the least")
        self.capacity = num_pages - 1
        self._free = list(range(num_pages - 1, SCRATCH_PAGE, -1))
        self._num_owners = [0] * num_pages

    @property
    def num_free(self) -> int:
        return len(self._free)

    def can_take(self, num_pages: int) -> bool:
        return num_pages <= len(self._free)

    def take(self, num_pages: int) -> list[int]:
        """Pages with one owner, the caller, who gives them back. Ask `can_take` first."""
        assert self.can_take(num_pages), f"{num_pages} pages of {len(self._free)}"
        taken = [self._free.pop() for _ in range(num_pages)]
        for page in taken:
            self._num_owners[page] = 1
        return taken

    def share(self, pages: Sequence[int]) -> None:
        """One more owner for pages that have one."""
        for page in pages:
            assert self._num_owners[page], f"page {page} is free"
            self._num_owners[page] += 1

    def give_back(self, pages: Sequence[int]) -> None:
        """One owner less; pages without one are free."""
        for page in pages:
            assert self._num_owners[page], f"page {page} is free already"
            self._num_owners[page] -= 1
            if not self._num_owners[page]:
                self._free.append(page)
