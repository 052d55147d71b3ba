"""Beginnings of sequences that stay in the cache, for whoever begins alike."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.engine.paged.pages import PAGE_TOKENS, Pages
from pipeline.engine.rows import PrefixKey, Row


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning of a sequence, in the cache."""

    pages: list[int]
    slots: Tensor
    num_tokens: int


NOTHING = Prefix([], torch.zeros(0, dtype=torch.int64), 0)


class Prefixes:
    """Questions up to the end of their pictures, kept for the next one; the oldest go first."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._kept: OrderedDict[PrefixKey, Prefix] = OrderedDict()

    def try_get(self, key: PrefixKey | None) -> Prefix | None:
        if key is None or key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key]

    def keep(self, key: PrefixKey | None, row: Row, num_tokens: int) -> None:
        if key is not None and key not in self._kept:
            whole = Prefix(row.pages, row.slots.cpu(), len(row.slots))
            self._kept[key] = beginning_of(whole, num_tokens)
            self._pages.share(self._kept[key].pages)

    def make_room(self, num_pages: int, keep: PrefixKey | None) -> bool:
        """Whether so many pages are free, after giving up what it takes; `keep` stays."""
        for key in list(self._kept):
            if self._pages.can_take(num_pages):
                break
            if key != keep:
                self._drop(key)
        return self._pages.can_take(num_pages)

    def drop_all(self) -> None:
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
    """int64 [tokens]: the slots of pages, in their order."""
    firsts = torch.tensor(pages, dtype=torch.int64)[:, None] * PAGE_TOKENS
    return (firsts + torch.arange(PAGE_TOKENS)).flatten()
