"""The rows of the engine: the requests at work, the sequences of each, and the batches they make.

Holds numbers and places, and computes nothing with a model.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.twig.requests import Canvas, Picture, Request, RequestId, Text, Visual

ROW_BUCKET = 16
"""Rows and packed tokens come in multiples of this. From 16 rows on a matrix product computes each
row alike whatever their number; below, it takes another path."""

LARGE_BUCKET = 32  # of the rows of a CUDA graph, from so many on

PrefixKey = tuple[tuple[int, ...], tuple[Canvas | Picture, ...]]
"""What a prefix says: its ids, and the pictures that stand in them."""


@dataclass(slots=True, eq=False)
class Row:
    """One sequence of a job: its pages, and how much of it is in the cache."""

    pages: list[int]
    slots: Tensor  # int64 [tokens reserved]: where each position lives
    length: int


@dataclass(slots=True, eq=False)
class Job:
    """A request at work."""

    request_id: RequestId
    request: Request
    prefix_ids: tuple[int, ...]  # as the answer tells them
    ids: list[list[int]]  # of each row's prefix, codes behind the words
    num_wanted: int  # tokens at most
    num_prefix: int = 0  # tokens up to the end of its pictures: what another job may share
    rows: list[Row] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)  # chosen: words, or codes
    logp_sample: list[float] = field(default_factory=list)
    logp_cond: list[float] = field(default_factory=list)
    is_stopped: bool = False

    @property
    def is_done(self) -> bool:
        return self.is_stopped or len(self.tokens) == self.num_wanted

    @property
    def has_logp(self) -> bool:
        return self.request.with_logp and self.request.temperature > 0

    @property
    def position(self) -> int:
        """Of the next token in the picture or the answer."""
        before = len(self.request.codes) if isinstance(self.request, Visual) else 0
        return before + len(self.tokens)

    @property
    def prefix_key(self) -> PrefixKey | None:
        if not self.num_prefix:
            return None
        return self.prefix_ids[: self.num_prefix], pictures_of(self.request)

    def next_id(self, row: int, first_code: int) -> int:
        """The row's next input, as the table of embeddings counts: its last token."""
        if not self.tokens:
            return self.ids[row][-1]
        return self.tokens[-1] + (first_code if isinstance(self.request, Visual) else 0)

    def take(self, tokens: list[int], sample: list[float], cond: list[float], *, eos: int) -> None:
        """What a burst chose, up to the end of the answer."""
        num_left = self.num_wanted - len(self.tokens)
        if not isinstance(self.request, Visual) and eos in tokens[:num_left]:
            num_left = tokens.index(eos) + 1
            self.is_stopped = True
        self.tokens += tokens[:num_left]
        self.logp_sample += sample[:num_left]
        self.logp_cond += cond[:num_left]


Place = tuple[Job, int] | None
"""A row of a batch: a job and which of its rows, or padding."""


class Batch:
    """The rows of one burst: conditional, unconditional, padding, then texts and padding."""

    def __init__(
        self,
        draws: Sequence[Job],
        texts: Sequence[Job],
        first_code: int,
        least_rows: int,
        device: torch.device,
    ) -> None:
        pairs = _padded([(job, row) for row in (0, 1) for job in draws], ROW_BUCKET, least_rows)
        places = [*pairs, *_padded([(job, 0) for job in texts], ROW_BUCKET, least_rows)]
        if len(places) > LARGE_BUCKET:
            places = _padded(places, LARGE_BUCKET)
        rows = [place[0].rows[place[1]] if place else None for place in places]
        ids = [place[0].next_id(place[1], first_code) if place else 0 for place in places]
        self.first_text = len(pairs)
        self.slots = [row.slots if row else None for row in rows]
        self.lengths = [row.length if row else 0 for row in rows]
        self.tokens = torch.tensor(ids, device=device)
        self.positions = torch.tensor(self.lengths, device=device)
        self.is_live = torch.tensor([row is not None for row in rows], device=device).long()


@dataclass(frozen=True, slots=True)
class Part:
    """New tokens of a row, to be prefilled."""

    row: Row
    embeds: Tensor  # [tokens, width]


def pictures_of(request: Request) -> tuple[Canvas | Picture, ...]:
    return request.pictures if isinstance(request, Text) else ()


def packs_of(parts: Sequence[Part], pack_tokens: int) -> Iterable[list[Part]]:
    """Parts in order, in packs of up to so many tokens, and of one part at least."""
    pack: list[Part] = []
    num_tokens = 0
    for part in parts:
        if pack and num_tokens + len(part.embeds) > pack_tokens:
            yield pack
            pack, num_tokens = [], 0
        pack.append(part)
        num_tokens += len(part.embeds)
    if pack:
        yield pack


def _padded(places: Sequence[Place], bucket: int, least: int = 0) -> list[Place]:
    """The places, and padding up to a multiple of `bucket`, and to `least` at the least."""
    size = -(-max(len(places), least) // bucket) * bucket
    return [*places, *[None] * (size - len(places))]
