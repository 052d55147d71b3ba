"""The engine's fast arithmetic on a GPU: flash prefill, a paged decode kernel, CUDA graphs.

Not strict: what comes out for a row may depend in the last bit on its mates. Where a piece is not
to be had on a machine, a plainer one takes its place, and the log says which.
"""

import logging
from collections.abc import Callable, Sequence
from itertools import pairwise
from subprocess import SubprocessError
from typing import ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor

from pipeline.engine.paged.attention import AttentionPass, Cache, Span

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger("coppice.engine")
_WARM_UP_RUNS = 2  # before a capture: lazy initialisation must not be recorded


class PagedAttention(Protocol):
    """Attention of one new token a row over one layer of a paged cache."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        keys: Tensor,
        values: Tensor,
        table: Tensor,
        last: Tensor,
        scale: float,
    ) -> Tensor:
        """A new tensor [rows, heads, width], of the dtype of `query`, which has the same shape.

        The caller owns all seven tensors, which lie on one device. `key` and `value` are those of
        the new tokens, [rows, key heads, width]; they are written into the layer's `keys` and
        `values`, [slots, key heads, width], which is the only side effect. All five have the
        cache's dtype. `table` is int32 [rows, at least last + 1]: the slot of each position;
        `last` is int32 [rows]: the new token's position, and so the number of those before it.
        `scale` multiplies the scores. Rows of padding share slot 0 and write it in any order.
        """
        ...


class FlashPrefill:
    """Many new tokens of each sequence at once, in one call of FlashAttention."""

    def __init__(self, cache: Cache, spans: Sequence[Span]) -> None:
        """`spans` stand one behind the other among the packed tokens, and padding behind them."""
        device = cache.keys.device
        self._cache = cache
        self._num_new = sum(span.num_tokens for span in spans)
        self._new = torch.cat([span.slots[span.start : span.stop] for span in spans])
        self._all = torch.cat([span.slots[: span.stop] for span in spans])
        self._ends = _ends([span.num_tokens for span in spans], device)
        self._all_ends = _ends([span.stop for span in spans], device)
        self._longest = max(span.num_tokens for span in spans)
        self._longest_all = max(span.stop for span in spans)
        # Without cached prefixes the keys are those just computed, and need not be gathered.
        self._is_fresh = len(self._all) == self._num_new

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        key, value = key[: self._num_new], value[: self._num_new]
        keys[self._new], values[self._new] = key, value
        out = flash_attention(
            query[: self._num_new],
            key if self._is_fresh else keys[self._all],
            value if self._is_fresh else values[self._all],
            (self._ends, self._all_ends),
            (self._longest, self._longest_all),
            scale,
        )
        num_padding = len(query) - self._num_new
        return torch.cat([out, out.new_zeros(num_padding, *out.shape[1:])]) if num_padding else out


def flash_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    ends: tuple[Tensor, Tensor],
    longest: tuple[int, int],
    scale: float,
) -> Tensor:
    """Causal attention [tokens, heads, width] of packed sequences, aligned at their ends.

    `query` is [tokens, heads, width]; `keys` and `values` are [all tokens, key heads, width]: each
    sequence has at least as many keys as queries, and its last query reads all of them. `ends` are
    int32 [sequences + 1] on the same device, the running sums of the numbers of queries and of
    keys, and `longest` the largest of those numbers.

    Core torch's FlashAttention 2 (Dao, arXiv 2307.08691), whose operator takes these arguments from
    torch 2.5 to 2.13; without a GPU, and for float32, which it does not know, plain SDPA in turn
    for each sequence.
    """
    groups = query.shape[1] // keys.shape[1]
    if groups > 1:
        keys, values = (states.repeat_interleave(groups, dim=1) for states in (keys, values))
    if not query.is_cuda or query.dtype is torch.float32:
        return torch.cat(
            [
                _causal(query[q0:q1], keys[k0:k1], values[k0:k1], scale)
                for (q0, q1), (k0, k1) in zip(*map(pairwise, map(Tensor.tolist, ends)), strict=True)
            ]
        )
    out: Tensor = torch.ops.aten._flash_attention_forward(
        query.contiguous(),
        keys.contiguous(),
        values.contiguous(),
        *ends,
        *longest,
        0.0,  # dropout
        True,  # causal
        False,  # debug mask
        scale=scale,
    )[0]
    return out


def _causal(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """Attention [queries, heads, width]; the last query reads all keys, each before it one less."""
    num_queries, num_keys = len(query), len(keys)
    is_read = torch.ones(num_queries, num_keys, dtype=torch.bool, device=query.device)
    is_read = is_read.tril(num_keys - num_queries)
    query, keys, values = (states.transpose(0, 1) for states in (query, keys, values))
    return torch.nn.functional.scaled_dot_product_attention(
        query, keys, values, attn_mask=is_read, scale=scale
    ).transpose(0, 1)


class PagedDecode:
    """One new token a row, for the steps of a burst; keys and values stay in their pages.

    `table` and `last` are views of the buffers, so there is one burst at a time.
    """

    def __init__(
        self,
        cache: Cache,
        slots: Sequence[Tensor | None],
        lengths: Sequence[int],
        buffers: "DecodeBuffers",
    ) -> None:
        """See `StrictDecode`. A row of padding reads and writes slot 0, which is scratch."""
        self._cache = cache
        self._attention = buffers.attention
        self.table = buffers.slot_table(slots)
        self.last = buffers.last[: len(slots)]
        self.last.copy_(torch.tensor(lengths, dtype=torch.int32), non_blocking=True)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        return self._attention(query, key, value, keys, values, self.table, self.last, scale)

    def advance(self) -> None:
        """To the next step of the burst."""
        self.last += 1

    def store(self) -> None:
        """Nothing to do: what the burst added is in its pages already."""


Forward = Callable[[Tensor, Tensor, AttentionPass], Tensor]
"""The language model: embeddings [tokens, width] of its dtype, positions int64 [tokens] and the
pass, to hidden states [tokens, width]."""


def compiled(function: Callable[P, T]) -> Callable[P, T]:
    """The same, compiled by torch at its first call; left as it is, and logged, where that fails.

    What is compiled may round in other places.
    """
    fast: Callable[P, T] | None = torch.compile(function, dynamic=True)

    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        nonlocal fast
        if fast is not None:
            try:
                return fast(*args, **kwargs)
            except (RuntimeError, ImportError, OSError) as error:  # no compiler, or not this code
                reason = str(error).strip().partition("\n")[0]
                _log.warning("no torch.compile (%s): steps run as they are", reason)
                fast = None
        return function(*args, **kwargs)

    return run


class DecodeBuffers:
    """What all bursts of an engine share: the buffers that graphs were captured on, and the graphs.

    A graph reads and writes the addresses that it was captured with: hence buffers that stay where
    they are, and of which a burst takes the first rows. A row that is only padding reads and writes
    slot 0, which is scratch.
    """

    def __init__(self, max_rows: int, max_tokens: int, width: int, like: Tensor) -> None:
        """For bursts of up to `max_rows` rows, padding counted, and of `max_tokens` positions each.

        `width` is that of the language model; `like` gives device and dtype, and is not kept. It
        takes `4 * max_rows * max_tokens` bytes for the table, and some for each graph.
        """
        device = like.device
        self.attention = choose_attention(device)
        self._table = torch.zeros(max_rows, max_tokens, dtype=torch.int32, device=device)
        self._row_slots: list[Tensor | None] = [None] * max_rows  # whose slots are in the table
        self.last = torch.zeros(max_rows, dtype=torch.int32, device=device)  # see PagedAttention
        self._embeds = torch.zeros(max_rows, width, dtype=like.dtype, device=device)
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}  # by number of rows
        self._has_graphs = device.type == "cuda"

    def slot_table(self, slots: Sequence[Tensor | None]) -> Tensor:
        """The slot of each position of these rows, int32 [rows, max_tokens]; padding has slot 0.

        A view of the buffer, good until the next call. Only what changed is copied: most rows stand
        where they stood in the last burst. What stands behind a row's own slots is never read.
        """
        for row, own_slots in enumerate(slots):
            if own_slots is self._row_slots[row]:
                continue
            if own_slots is None:  # padding must not write where an earlier row lived
                self._table[row].zero_()
            else:
                self._table[row, : len(own_slots)] = own_slots
            self._row_slots[row] = own_slots
        return self._table[: len(slots)]

    def run(self, forward: Forward, embeds: Tensor, burst: PagedDecode) -> Tensor:
        """Hidden states [rows, width] of one step; replayed where it was captured before.

        Those of a replay are a buffer of the graph's, overwritten by its next replay. `embeds` is
        [rows, width]; `forward` and the burst's buffers are those of the first call with so many
        rows.
        """
        num_rows = len(embeds)
        if self._has_graphs and num_rows not in self._graphs:
            self._capture(forward, num_rows, burst)
        if num_rows not in self._graphs:
            return forward(embeds, burst.last.long(), burst)
        graph, hidden = self._graphs[num_rows]
        self._embeds[:num_rows].copy_(embeds)
        graph.replay()
        return hidden

    def _capture(self, forward: Forward, num_rows: int, burst: PagedDecode) -> None:
        embeds = self._embeds[:num_rows]

        def step() -> Tensor:
            return forward(embeds, burst.last.long(), burst)

        # What the runs write at the rows' next positions, the first true step writes again.
        try:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP_RUNS):
                    step()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # They run one at a time, so all graphs share one pool of memory.
            pool = next((other.pool() for other, _ in self._graphs.values()), None)
            with torch.cuda.graph(graph, pool=pool):
                hidden = step()
        except RuntimeError as error:
            _log.warning("no CUDA graphs (%s): steps are launched one kernel at a time", error)
            self._has_graphs = False
            return
        self._graphs[num_rows] = graph, hidden


def choose_attention(device: torch.device) -> PagedAttention:
    """The Triton kernel, or plain torch where it cannot be had: Triton wants a C compiler, too."""
    try:
        from pipeline.engine.paged.kernels import paged_attention

        new, cache = (torch.zeros(size, 1, 16, device=device) for size in (1, 16))
        table = torch.zeros(1, 16, dtype=torch.int32, device=device)
        paged_attention(new, new, new, cache, cache.clone(), table, table[0, :1], 1.0)
    except (ImportError, RuntimeError, OSError, SubprocessError) as error:
        reason = str(error).strip().partition("\n")[0]
        _log.warning("no Triton kernel (%s): decode attention gathers pages instead", reason)
        return paged_attention_plain
    return paged_attention


def paged_attention_plain(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    values: Tensor,
    table: Tensor,
    last: Tensor,
    scale: float,
) -> Tensor:
    """A `PagedAttention` in plain torch: the kernel's oracle, and its stand-in."""
    now = table.gather(1, last[:, None].long())[:, 0].long()
    keys[now], values[now] = key, value
    num_tokens = int(last.max()) + 1
    used = table[:, :num_tokens].long()
    groups = query.shape[1] // keys.shape[1]
    is_read = torch.arange(num_tokens, device=last.device)[None, :] <= last[:, None]
    own_keys, own_values = (
        # Zeros beyond the row: another's NaN that weighs nothing would still be a NaN.
        states[used]
        .masked_fill(~is_read[:, :, None, None], 0)
        .repeat_interleave(groups, dim=2)
        .transpose(1, 2)
        for states in (keys, values)
    )  # [rows, heads, tokens, width]
    return torch.nn.functional.scaled_dot_product_attention(
        query[:, :, None], own_keys, own_values, attn_mask=is_read[:, None, None], scale=scale
    )[:, :, 0]


def _ends(lengths: Sequence[int], device: torch.device) -> Tensor:
    ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    return ends.to(device)
