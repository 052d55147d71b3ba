"""Beginnings of sequences that stay in the cache, for whoever begins alike."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.engine.paged.pages import PAGE_TOKENS, Pages
from pipeline.twig.requests import Canvas, Picture

PrefixKey = tuple[tuple[int, ...], tuple[Canvas | Picture, ...]]
"""What a prefix says: its ids, and the pictures that stand in them."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning of a sequence, in the cache. It names pages, and holds no share of them."""

    pages: list[int]
    slots: Tensor  # int64 [num_tokens], on the CPU: where each position lives
    num_tokens: int


NOTHING = Prefix([], torch.zeros(0, dtype=torch.int64), 0)


class Prefixes:
    """Questions up to the end of their pictures, kept for the next one; the oldest go first.

    It is one more owner of the pages of what it keeps.
    """

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._kept: OrderedDict[PrefixKey, Prefix] = OrderedDict()

    def try_get(self, key: PrefixKey | None) -> Prefix | None:
        """What is kept under the key. Who goes on from it takes a share of its pages at once."""
        if key is None or key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key]

    def keep(
        self, key: PrefixKey | None, pages: Sequence[int], slots: Tensor, num_tokens: int
    ) -> None:
        """Keep the first `num_tokens` of a sequence, unless the key is None or kept already.

        `pages` and `slots`, int64 [tokens] on any device, are those of the whole sequence. Takes a
        share of the pages that the prefix stands in, until it is dropped; the sequence has its own.
        Its tokens need not be in the cache yet, but are to be prefilled before those of any other
        sequence that begins so.
        """
        if key is not None and key not in self._kept:
            whole = Prefix(list(pages), slots.cpu(), len(slots))
            self._kept[key] = beginning_of(whole, num_tokens)
            self._pages.share(self._kept[key].pages)

    def make_room(self, num_pages: int, keep: PrefixKey | None) -> bool:
        """Whether so many pages are free, after dropping the oldest prefixes as far as it takes.

        The prefix of `keep` stays. A dropped one's pages are free once no sequence has them.
        """
        for key in list(self._kept):
            if self._pages.can_take(num_pages):
                break
            if key != keep:
                self._drop(key)
        return self._pages.can_take(num_pages)

    def drop(self, key: PrefixKey | None) -> None:
        """Keep this one no longer, if it is kept."""
        if key is not None and key in self._kept:
            self._drop(key)

    def drop_all(self) -> None:
        """Keep nothing, and give the shares of all pages back."""
        for key in list(self._kept):
            self._drop(key)

    def _drop(self, key: PrefixKey) -> None:
        self._pages.give_back(self._kept.pop(key).pages)


def beginning_of(prefix: Prefix, num_tokens: int) -> Prefix:
    """The first tokens of a prefix, and the pages that they stand in."""
    slots = prefix.slots[:num_tokens]
    used = set((slots // PAGE_TOKENS).tolist())
    return Prefix([page for page in prefix.pages if page in used], slots, num_tokens)


def slots_of(pages: Sequence[int]) -> Tensor:
    """int64 [tokens], on the CPU: the slots of pages, in their order."""
    firsts = torch.tensor(pages, dtype=torch.int64)[:, None] * PAGE_TOKENS
    return (firsts + torch.arange(PAGE_TOKENS)).flatten()
