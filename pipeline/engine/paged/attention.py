"""The attention of Janus's language model over a paged cache, on the CPU; and the hook for others.

Hugging Face's LLaMA asks a registered function for its attention and passes unknown keywords on to
it. `ATTENTION` is that function: it hands the layer's queries, keys and values to the
`AttentionPass` that the engine sent along. Without one it is plain SDPA, so the model still works
for everyone else.

All arithmetic here is *strict*: what comes out for a token depends on its own sequence and place
alone, never on its mates in the batch or on how long the sequence will become. To that end every
product has a shape that the token's own position fixes: prefill goes in blocks of `BLOCK` queries
at aligned positions, with keys up to the end of the block; a decode row reads keys up to the next
multiple of `BLOCK`. What lies beyond the token is masked, and weighs exactly zero. docs/engine.md
has the measurements behind it.

Shapes: `heads` are a layer's query heads, `key heads` those of its keys and values, each shared by
as many query heads in turn (one in all published Janus); `width` is that of one head. A *slot* is
the index of a token in the cache, counted over all pages.
"""

import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaAttention

ATTENTION = "coppice"
"""The name under which transformers knows our attention."""
BLOCK = 32
"""Keys are read up to a multiple of this many tokens (docs/engine.md, "What helped on a CPU")."""


class Cache:
    """Keys and values of all layers, [layers, slots, key heads, width] each.

    It owns both tensors; a pass writes the keys and values of its new tokens into them. Who may use
    which slot is up to `Pages`.
    """

    def __init__(
        self,
        text_config: "LlamaConfig",
        num_slots: int,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        """Takes `num_slots * bytes_per_token(...)` bytes of the device: of a GPU at once."""
        heads = text_config.num_key_value_heads or text_config.num_attention_heads
        width = text_config.head_dim or text_config.hidden_size // text_config.num_attention_heads
        shape = (text_config.num_hidden_layers, num_slots, heads, width)
        # Zeros: padding is read, and a NaN that weighs nothing is still a NaN.
        self.keys = _zeros(shape, dtype, torch.device(device))
        self.values = _zeros(shape, dtype, torch.device(device))

    def clear(self, slots: Tensor) -> None:
        """Put zeros into these slots, int64 on any device, again."""
        slots = slots.to(self.keys.device)
        self.keys[:, slots] = self.values[:, slots] = 0


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros. On a CPU they take memory page by page, when they are first written."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    num_bytes = math.prod(shape) * dtype.itemsize
    memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(memory, dtype=dtype).view(shape)


def bytes_per_token(text_config: "LlamaConfig", dtype: torch.dtype) -> int:
    """What one token takes in the cache: its key and its value, in every layer."""
    one_token = Cache(text_config, 1, dtype, "meta")
    return 2 * one_token.keys.numel() * one_token.keys.element_size()


class AttentionPass(Protocol):
    """The attention of one forward pass of the language model over packed tokens."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention [tokens, heads, width] of new tokens, after taking their keys and values in.

        `query` is [tokens, heads, width], `key` and `value` are [tokens, key heads, width], all of
        the cache's dtype; `scale` multiplies the scores. What comes out for padding is not read.
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
    """Many new tokens of each sequence at once; blocks that read equally many keys go together."""

    def __init__(self, cache: Cache, spans: Sequence[Span]) -> None:
        """`spans` stand one behind the other among the packed tokens, and padding behind them."""
        self._cache = cache
        self._new = torch.cat([span.slots[span.start : span.stop] for span in spans])
        by_size: dict[int, list[_Block]] = {}
        for block in (block for span in spans for block in _blocks_of(span)):
            by_size.setdefault(block.size, []).append(block)
        self._groups = [_BlockGroup(blocks) for _, blocks in sorted(by_size.items())]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        num_new = len(self._new)  # the packed tokens may be padded beyond that
        keys[self._new], values[self._new] = key[:num_new], value[:num_new]
        query = query.contiguous()
        out = torch.zeros_like(query)
        for group in self._groups:
            out[group.tokens] = group.attend(query, keys, values, scale)
        return out


@dataclass(frozen=True, kw_only=True, slots=True)
class _Block:
    """An aligned block of one sequence's positions, some of whose tokens are new."""

    size: int  # keys that are read: up to the end of the block
    first_packed: int  # of its new tokens, among the packed ones
    inside: range  # where those stand in the block
    slots: Tensor  # int64 [size]; slot 0, which is scratch, stands for no token


def _blocks_of(span: Span) -> Iterator[_Block]:
    for start in range(span.start // BLOCK * BLOCK, span.stop, BLOCK):
        first, last = max(span.start, start), min(span.stop, start + BLOCK)
        slots = span.slots.new_zeros(start + BLOCK)
        slots[:last] = span.slots[:last]
        yield _Block(
            size=start + BLOCK,
            first_packed=span.first + first - span.start,
            inside=range(first - start, last - start),
            slots=slots,
        )


class _BlockGroup:
    """Blocks whose queries read equally many keys."""

    def __init__(self, blocks: Sequence[_Block]) -> None:
        device = blocks[0].slots.device
        self._slots = torch.stack([block.slots for block in blocks])
        # Where a block has no new token, any will do: what comes of it is not read.
        queries = torch.zeros(len(blocks), BLOCK, dtype=torch.int64)
        is_new = torch.zeros(len(blocks), BLOCK, dtype=torch.bool)
        for index, block in enumerate(blocks):
            inside = slice(block.inside.start, block.inside.stop)
            queries[index, inside] = block.first_packed + torch.arange(len(block.inside))
            is_new[index, inside] = True
        self._queries, self._is_new = queries.flatten().to(device), is_new.flatten().to(device)
        self.tokens = self._queries[self._is_new]  # int64: which of the packed ones are new here
        self._mask = torch.full((BLOCK, BLOCK), -torch.inf, device=device).triu(1)

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        """Causal attention [new tokens, heads, width]."""
        num_blocks, size = self._slots.shape
        heads, width = query.shape[1:]
        own_keys, own_values = (_side_by_side(states, self._slots) for states in (keys, values))
        blocks = query[self._queries].view(num_blocks, BLOCK, heads, width).transpose(1, 2)
        # Query heads that share a key head stand together.
        grouped = blocks.reshape(-1, heads // keys.shape[1] * BLOCK, width)
        scores = torch.bmm(grouped, own_keys.view(-1, size, width).transpose(1, 2)).float()
        scores = scores.mul_(scale).view(-1, BLOCK, size)
        scores[:, :, -BLOCK:] += self._mask
        weights = scores.softmax(-1).to(values.dtype).view(len(grouped), -1, size)
        out = torch.bmm(weights, own_values.view(-1, size, width))
        by_token = out.view(num_blocks, heads, BLOCK, width).transpose(1, 2)
        return by_token.reshape(-1, heads, width)[self._is_new]


def _side_by_side(states: Tensor, slots: Tensor) -> Tensor:
    """[rows, key heads, size, width] of one layer's keys or values, where `slots` [rows, size] say.

    Whole slots are picked: that is a copy of memory, where indexing would go number by number.
    """
    picked = states.flatten(1).index_select(0, slots.flatten())
    return picked.view(*slots.shape, *states.shape[1:]).transpose(1, 2).contiguous()


class StrictDecode:
    """One new token a row, for the few steps of a burst.

    The rows' keys and values are copied out of the pages once a burst, side by side, in groups of
    one padded length; `store` writes what the burst added back.
    """

    def __init__(
        self,
        cache: Cache,
        slots: Sequence[Tensor | None],
        lengths: Sequence[int],
        steps: int,
    ) -> None:
        """`slots[i]`, int64 [tokens reserved], is where row i's positions live.

        `lengths[i]` of them are in the cache; the burst adds `steps`. A row without slots is
        padding: nothing is read for it, and zeros come out.
        """
        self._cache = cache
        self._steps = steps
        by_size: dict[int, dict[int, Tensor]] = {}
        for row, row_slots in enumerate(slots):
            if row_slots is not None:
                size = -(-(lengths[row] + steps) // BLOCK) * BLOCK
                by_size.setdefault(size, {})[row] = row_slots
        self._groups = [
            _RowGroup(cache, rows, [lengths[row] for row in rows], size)
            for size, rows in sorted(by_size.items())
        ]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        out = torch.zeros_like(query)
        for group in self._groups:
            rows = group.rows
            out[rows] = group.attend(layer, query[rows], key[rows], value[rows], scale)
        return out

    def advance(self) -> None:
        """To the next step of the burst."""
        for group in self._groups:
            group.advance()

    def store(self) -> None:
        """Write what the burst added to the pages."""
        for group in self._groups:
            group.store(self._cache, self._steps)


class _RowGroup:
    """Rows whose keys are read up to the same length."""

    def __init__(
        self, cache: Cache, rows: Mapping[int, Tensor], lengths: Sequence[int], size: int
    ) -> None:
        """`rows` are the slots of each row, by its index among the packed ones."""
        device = cache.keys.device
        self.rows = torch.tensor(list(rows), device=device)
        self._slots = torch.zeros(len(rows), size, dtype=torch.int64, device=device)
        for index, row_slots in enumerate(rows.values()):
            num_own = min(size, len(row_slots))
            self._slots[index, :num_own] = row_slots[:num_own]
        # One [rows, key heads, size, width] for each layer
        self._keys = [_side_by_side(layer, self._slots) for layer in cache.keys]
        self._values = [_side_by_side(layer, self._slots) for layer in cache.values]
        self._index = torch.arange(len(rows), device=device)
        self._positions = torch.arange(size, device=device)
        self._lengths = torch.tensor(lengths, device=device)
        self._look_from(self._lengths)

    def _look_from(self, at: Tensor) -> None:
        """The rows' new tokens are at these positions now, and see nothing beyond them."""
        self._at = at
        self._is_hidden = (self._positions[None, :] > at[:, None])[:, None]

    def advance(self) -> None:
        self._look_from(self._at + 1)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        keys, values = self._keys[layer], self._values[layer]
        keys[self._index, :, self._at], values[self._index, :, self._at] = key, value
        rows, heads, width = query.shape
        num_key_heads, size = keys.shape[1:3]
        grouped = query.reshape(rows * num_key_heads, heads // num_key_heads, width)
        scores = torch.bmm(grouped, keys.view(-1, size, width).transpose(1, 2)).float()
        scores = scores.mul_(scale).view(rows, heads, size)
        scores.masked_fill_(self._is_hidden, -torch.inf)
        weights = scores.softmax(-1).to(values.dtype).view(rows * num_key_heads, -1, size)
        return torch.bmm(weights, values.view(-1, size, width)).view(rows, heads, width)

    def store(self, cache: Cache, steps: int) -> None:
        rows = self._index[:, None]
        at = self._lengths[:, None] + torch.arange(steps, device=self._lengths.device)
        slots = self._slots[rows, at]
        for layer, (keys, values) in enumerate(zip(self._keys, self._values, strict=True)):
            cache.keys[layer, slots], cache.values[layer, slots] = (
                keys[rows, :, at],
                values[rows, :, at],
            )


# A compiler might copy the cache to change a part of it; and it would compile anew for each layer.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _attention(
    module: "LlamaAttention",
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    current: AttentionPass | None = None,
    **kwargs: Any,  # whatever else transformers passes on, for its own function
) -> tuple[Tensor, None]:
    """What LLaMA calls: [1, heads, tokens, width] in, [1, tokens, heads, width] out."""
    if current is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        out, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return out, None
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
    return current.attend(module.layer_idx, query, key, value, scaling)[None], None


def register() -> None:
    """Make the function known to transformers. Registering again changes nothing."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attention)
