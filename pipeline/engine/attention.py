"""The attention of Janus's language model over a paged cache, on the CPU; and the hook for others.

Hugging Face's LLaMA asks a registered function for its attention and passes unknown keywords on to
it. `ATTENTION` is that function: it hands the layer's queries, keys and values to the `Pass` that
the engine sent along. Without a pass it is plain SDPA, so the model still works for everyone else.

All arithmetic here is *strict*: what comes out for a token depends on its own sequence and place
alone, never on its mates in the batch or on how long the sequence will become. To that end every
product has a shape that the token's own position fixes: prefill goes in blocks of `BLOCK` queries
at aligned positions, with keys up to the end of the block; a decode row reads keys up to the next
multiple of `BLOCK`. What lies beyond the token is masked, and weighs exactly zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

ATTENTION = "coppice"
BLOCK = 64
"""Keys are read up to a multiple of this many tokens."""


class Cache:
    """Keys and values of all layers, [layers, slots, heads, head width] each."""

    def __init__(self, text_config: Any, num_slots: int, dtype: torch.dtype, device: Any) -> None:
        heads = text_config.num_key_value_heads
        width = getattr(text_config, "head_dim", None) or (
            text_config.hidden_size // text_config.num_attention_heads
        )
        shape = (text_config.num_hidden_layers, num_slots, heads, width)
        # Zeros: padding is read, and a NaN that weighs nothing is still a NaN.
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)


def bytes_per_token(text_config: Any, dtype: torch.dtype) -> int:
    """What one token takes in the cache."""
    one = Cache(text_config, 1, dtype, "meta")
    return 2 * one.keys.numel() * one.keys.element_size()


class Pass(Protocol):
    """One forward pass of the language model over packed tokens."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention [tokens, heads, width] of new tokens, after taking their keys and values in.

        `query` is [tokens, heads, width], `key` and `value` are [tokens, key heads, width].
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """New tokens of one sequence in a packed prefill."""

    first: int  # of its tokens among the packed ones
    num_tokens: int
    start: int  # position of the first one; what stands before it is in the cache
    slots: Tensor  # int64 [start + num_tokens, or more]: where each position lives

    @property
    def stop(self) -> int:
        return self.start + self.num_tokens


class StrictPrefill:
    """Many new tokens of each sequence at once."""

    def __init__(self, cache: Cache, spans: Sequence[Span]) -> None:
        self._cache = cache
        self._spans = [(span, _padded_slots(span)) for span in spans]
        self._new = torch.cat([span.slots[span.start : span.stop] for span in spans])

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        num_new = len(self._new)  # the pack may be padded beyond that
        keys[self._new], values[self._new] = key[:num_new], value[:num_new]
        out = torch.zeros_like(query)
        for span, slots in self._spans:
            rows = slice(span.first, span.first + span.num_tokens)
            own_keys, own_values = keys[slots].transpose(0, 1), values[slots].transpose(0, 1)
            out[rows] = _attend_blocks(span, query[rows], own_keys, own_values, scale)
        return out


def _padded_slots(span: Span) -> Tensor:
    """Slots up to the end of the last block. Slot 0, which is scratch, stands for no token."""
    slots = span.slots.new_zeros(-(-span.stop // BLOCK) * BLOCK)
    slots[: span.stop] = span.slots[: span.stop]
    return slots


def _attend_blocks(span: Span, query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """Causal attention of one sequence's new tokens, block by aligned block of queries."""
    parts = []
    for block in range(span.start // BLOCK, -(-span.stop // BLOCK)):
        first, last = max(span.start, block * BLOCK), min(span.stop, (block + 1) * BLOCK)
        full = query.new_zeros(query.shape[1], BLOCK, query.shape[2])
        inside = slice(first - block * BLOCK, last - block * BLOCK)
        full[:, inside] = query[first - span.start : last - span.start].transpose(0, 1)
        stop = (block + 1) * BLOCK
        mask = torch.full((BLOCK, BLOCK), -torch.inf, device=query.device).triu(1)
        out = _attend(full, keys[:, :stop], values[:, :stop], scale, mask)
        parts.append(out[:, inside].transpose(0, 1))
    return torch.cat(parts)


def _attend(query: Tensor, keys: Tensor, values: Tensor, scale: float, mask: Tensor) -> Tensor:
    """Attention [heads, queries, width]; `mask` is added to the last columns of the scores."""
    heads, num_queries, width = query.shape
    grouped = query.reshape(len(keys), -1, width)  # query heads that share a key head, together
    scores = torch.bmm(grouped, keys.transpose(1, 2)).float() * scale
    scores = scores.view(heads, num_queries, -1)
    scores[:, :, -mask.shape[-1] :] += mask
    weights = scores.softmax(-1).to(values.dtype).view(len(keys), -1, scores.shape[-1])
    return torch.bmm(weights, values).view(heads, num_queries, width)


class StrictDecode:
    """One new token a row, for the few steps of a burst.

    The rows' keys and values are copied out of the pages once a burst, side by side, in groups of
    one padded length; `store` writes what the burst added back.
    """

    def __init__(self, cache: Cache, slots: Sequence[Tensor], lengths: Sequence[int], steps: int):
        """`slots[i]` is where row i's positions live; `lengths[i]` of them are in the cache."""
        self._cache = cache
        self._steps = steps
        self._step = 0
        by_size: dict[int, list[int]] = {}
        for row, length in enumerate(lengths):
            by_size.setdefault(-(-(length + steps) // BLOCK) * BLOCK, []).append(row)
        self._groups = [
            _Group(cache, rows, [slots[row] for row in rows], [lengths[row] for row in rows], size)
            for size, rows in sorted(by_size.items())
        ]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        out = torch.zeros_like(query)
        for group in self._groups:
            rows = group.rows
            out[rows] = group.attend(layer, self._step, query[rows], key[rows], value[rows], scale)
        return out

    def advance(self) -> None:
        """To the next step of the burst."""
        self._step += 1

    def store(self) -> None:
        """Write what the burst added to the pages."""
        for group in self._groups:
            group.store(self._cache, self._steps)


class _Group:
    """Rows whose keys are read up to the same length."""

    def __init__(
        self, cache: Cache, rows: list[int], slots: list[Tensor], lengths: list[int], size: int
    ) -> None:
        device = cache.keys.device
        self.rows = torch.tensor(rows, device=device)
        self._lengths = torch.tensor(lengths, device=device)
        self._slots = torch.zeros(len(rows), size, dtype=torch.int64, device=device)
        for index, own in enumerate(slots):
            num_own = min(size, len(own))
            self._slots[index, :num_own] = own[:num_own]
        # [layers, rows, heads, size, width]
        self._keys = cache.keys[:, self._slots].transpose(2, 3).contiguous()
        self._values = cache.values[:, self._slots].transpose(2, 3).contiguous()
        self._index = torch.arange(len(rows), device=device)
        self._positions = torch.arange(size, device=device)

    def attend(
        self, layer: int, step: int, query: Tensor, key: Tensor, value: Tensor, scale: float
    ) -> Tensor:
        at = self._lengths + step
        keys, values = self._keys[layer], self._values[layer]
        keys[self._index, :, at], values[self._index, :, at] = key, value
        rows, heads, width = query.shape
        num_key_heads, size = keys.shape[1:3]
        grouped = query.reshape(rows * num_key_heads, heads // num_key_heads, width)
        scores = torch.bmm(grouped, keys.view(-1, size, width).transpose(1, 2)).float() * scale
        hidden = self._positions[None, :] > at[:, None]
        scores = scores.view(rows, heads, size).masked_fill_(hidden[:, None], -torch.inf)
        weights = scores.softmax(-1).to(values.dtype).view(rows * num_key_heads, -1, size)
        return torch.bmm(weights, values.view(-1, size, width)).view(rows, heads, width)

    def store(self, cache: Cache, steps: int) -> None:
        rows = self._index[:, None]
        at = self._lengths[:, None] + torch.arange(steps, device=self._lengths.device)
        slots = self._slots[rows, at]
        cache.keys[:, slots] = self._keys[:, rows, :, at].movedim(2, 0)
        cache.values[:, slots] = self._values[:, rows, :, at].movedim(2, 0)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    current: Pass | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What LLaMA calls: [1, heads, tokens, width] in, [1, tokens, heads, width] out."""
    if current is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        out, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return out, None
    layer: Any = module.layer_idx
    query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))
    return current.attend(layer, query, key, value, scaling)[None], None


def register() -> None:
    """Make the function known to transformers. Registering again changes nothing."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attention)
