"""The rows of the engine: the requests at work, the sequences of each, and the batches they make.

Holds numbers and slots, and computes nothing with a model.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.engine.paged.prefixes import PrefixKey
from pipeline.engine.soundness import is_sound, not_finite
from pipeline.twig.requests import Canvas, Picture, Request, RequestId, Text, Visual
from schemas.errors import RecordFailure

ROW_BUCKET = 16
"""Rows and packed tokens come in multiples of this. From 16 rows on a matrix product computes each
row alike whatever their number; below, it takes another path (docs/engine.md, "Strict arithmetic").
"""

LARGE_BUCKET = 32
"""Batches of more than this many rows come in multiples of it: each size is a CUDA graph."""

_PREFILL_TOKENS = 4096
# What goes from layer to layer stays near the core: docs/engine.md, "What helped on a CPU".
_PREFILL_TOKENS_ON_CPU = 1024


@dataclass(slots=True, eq=False)
class Row:
    """One sequence of a job: its pages, and how much of it is in the cache.

    The job has a share of each page, and gives them back when it ends.
    """

    pages: list[int]
    slots: Tensor  # int64 [tokens reserved], on the model's device: where each position lives
    length: int  # tokens in the cache
    num_shared: int = 0  # of them, those that it began with: another may have brought them


@dataclass(slots=True, eq=False)
class Job:
    """A request at work."""

    request_id: RequestId
    request: Request
    prefix_ids: tuple[int, ...]  # as the answer tells them
    ids: list[list[int]]  # of each row's prefix, codes behind the words
    num_wanted: int  # tokens at most
    num_prefix: int = 0  # tokens up to the end of its pictures: what another job may share
    rows: list[Row] = field(default_factory=list)  # as many as `ids`, once it is admitted
    tokens: list[int] = field(default_factory=list)  # chosen: words, or codes
    logp_sample: list[float] = field(default_factory=list)  # one a token, as in `Answer`
    logp_cond: list[float] = field(default_factory=list)
    is_stopped: bool = False
    is_alone: bool = False  # it shares no prefix, and gives none
    is_tainted: bool = False  # what it left in the cache may not be finite
    failure: RecordFailure | None = None

    @property
    def is_done(self) -> bool:
        return self.is_stopped or len(self.tokens) == self.num_wanted

    @property
    def may_be_misled(self) -> bool:
        """Whether it failed after a prefix that another brought, whose fault it may be."""
        return self.failure is not None and bool(self.num_prefix and self.rows[0].num_shared)

    @property
    def has_logp(self) -> bool:
        return self.request.with_logp and self.request.temperature > 0

    @property
    def position(self) -> int:
        """Of the next token in the picture or the answer, from 0."""
        before = len(self.request.codes) if isinstance(self.request, Visual) else 0
        return before + len(self.tokens)

    @property
    def prefix_key(self) -> PrefixKey | None:
        if not self.num_prefix or self.is_alone:
            return None
        return self.prefix_ids[: self.num_prefix], pictures_of(self.request)

    def next_id(self, row: int, first_code: int) -> int:
        """The row's next input, as the table of embeddings counts: its last token."""
        if not self.tokens:
            return self.ids[row][-1]
        return self.tokens[-1] + (first_code if isinstance(self.request, Visual) else 0)

    def once_more(self) -> "Job":
        """The same request from its beginning, sharing nothing."""
        again = Job(self.request_id, self.request, self.prefix_ids, self.ids, self.num_wanted)
        again.num_prefix, again.is_alone = self.num_prefix, True
        return again

    def take(
        self,
        tokens: list[int],
        sample: list[float],
        cond: list[float],
        evidence: list[float],
        *,
        eos: int,
    ) -> None:
        """What a burst chose, up to the end of the answer; the rest of it is dropped.

        It fails at the first of its own tokens whose evidence (see `evidence_of`) is not finite.
        """
        num_left = self.num_wanted - len(self.tokens)
        if not isinstance(self.request, Visual) and eos in tokens[:num_left]:
            num_left = tokens.index(eos) + 1
            self.is_stopped = True
        if not is_sound(evidence, sample, cond):
            self.is_tainted = True
            steps = list(zip(evidence, sample, cond, strict=True))[:num_left]
            for position, (number, *logps) in enumerate(steps, start=len(self.tokens)):
                if self.failure is None and not is_sound([number], logps):
                    self.failure = not_finite(f"the logits of token {position}")
                    self.is_stopped = True
        self.tokens += tokens[:num_left]
        self.logp_sample += sample[:num_left]
        self.logp_cond += cond[:num_left]


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSizes:
    """How much goes through the model at once."""

    least_rows: int  # of the drawings and of the texts in a decode batch: less is padded to it
    prefill_tokens: int  # of a prefill batch at most, or one part
    is_sharing: bool  # whether what is in the cache already is not prefilled again


def batch_sizes(device: torch.device, *, is_strict: bool, max_rows: int) -> BatchSizes:
    """What is fast on a device, as far as the arithmetic permits."""
    if device.type == "cpu":
        return BatchSizes(least_rows=0, prefill_tokens=_PREFILL_TOKENS_ON_CPU, is_sharing=True)
    if not is_strict:
        return BatchSizes(least_rows=0, prefill_tokens=_PREFILL_TOKENS, is_sharing=True)
    # On a GPU every size of a product may be computed in a way of its own: so one size for all
    # steps, and for a prefill the size that the request alone decides.
    return BatchSizes(least_rows=max_rows, prefill_tokens=0, is_sharing=False)


JobRow = tuple[Job, int] | None
"""A row of a batch: a job and the index of one of its rows, or padding."""


class DecodeBatch:
    """The rows of one burst, in this order: the conditional rows of the drawings, as many
    unconditional ones, padding; then, from `first_text` on, the texts and padding.
    """

    def __init__(
        self,
        draws: Sequence[Job],
        texts: Sequence[Job],
        first_code: int,
        least_rows: int,
        device: torch.device,
    ) -> None:
        """`draws` have two rows each, `texts` one. Codes are ids from `first_code` on.

        Either half has rows in multiples of `ROW_BUCKET`, and `least_rows` at the least.
        """
        pairs = _padded([(job, row) for row in (0, 1) for job in draws], ROW_BUCKET, least_rows)
        job_rows = [*pairs, *_padded([(job, 0) for job in texts], ROW_BUCKET, least_rows)]
        if len(job_rows) > LARGE_BUCKET:
            job_rows = _padded(job_rows, LARGE_BUCKET)
        rows = [job_row[0].rows[job_row[1]] if job_row else None for job_row in job_rows]
        ids = [job_row[0].next_id(job_row[1], first_code) if job_row else 0 for job_row in job_rows]
        self.first_text = len(pairs)
        self.slots = [row.slots if row else None for row in rows]  # None is padding
        self.lengths = [row.length if row else 0 for row in rows]  # tokens in the cache
        # The first step's inputs and their positions, and 1 for a row that is no padding: all int64
        # [rows] on the device.
        self.tokens = torch.tensor(ids, device=device)
        self.positions = torch.tensor(self.lengths, device=device)
        self.is_live = torch.tensor([row is not None for row in rows], device=device).long()


@dataclass(frozen=True, slots=True)
class PrefillPart:
    """New tokens of a row, to be prefilled."""

    row: Row
    embeds: Tensor  # [tokens, width]


def pictures_of(request: Request) -> tuple[Canvas | Picture, ...]:
    return request.pictures if isinstance(request, Text) else ()


def prefill_batches(
    parts: Sequence[PrefillPart], max_tokens: int
) -> Iterable[Sequence[PrefillPart]]:
    """Parts in order, in batches of up to so many tokens, and of one part at least."""
    batch: list[PrefillPart] = []
    num_tokens = 0
    for part in parts:
        if batch and num_tokens + len(part.embeds) > max_tokens:
            yield batch
            batch, num_tokens = [], 0
        batch.append(part)
        num_tokens += len(part.embeds)
    if batch:
        yield batch


def _padded(job_rows: Sequence[JobRow], bucket: int, least: int = 0) -> list[JobRow]:
    """The rows, and padding up to a multiple of `bucket`, and to `least` at the least."""
    size = -(-max(len(job_rows), least) // bucket) * bucket
    return [*job_rows, *[None] * (size - len(job_rows))]
