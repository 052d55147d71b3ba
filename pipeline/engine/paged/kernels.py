"""Attention of one new token a row over a paged cache, as a Triton kernel.

One program is one row and one head. It puts the new key and value into their page, and walks the
row's tokens a tile at a time. Each index of the tile keeps a running softmax of its own (Milakov
and Gimelshein, arXiv 1805.02867) over every `TILE`th token, so that nothing in the loop waits for
another index; they are put together once, at the end. With full multi-head attention there is
nothing to share between heads, and reading is all the work there is: 2 x tokens x width numbers a
program. `paged_attention_plain` says the same in plain torch; docs/engine.md has what was measured.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE_TOKENS, _WARPS, _STAGES = 16, 4, 3  # the best of 36 on an H200, by a little
_LOG2_E = 1.4426950408889634  # the hardware's exponential is of base 2


@triton.jit
def _decode_kernel(
    query,
    new_keys,
    new_values,
    keys,
    values,
    table,
    last,
    out,
    scale,
    slot_stride,
    table_row,
    width,
    HEADS: tl.constexpr,
    HEADS_PER_KEY: tl.constexpr,
    WIDTH: tl.constexpr,  # the width, up to a power of two
    TILE: tl.constexpr,
    STAGES: tl.constexpr,
):
    head, row = tl.program_id(0), tl.program_id(1)
    lanes = tl.arange(0, WIDTH)
    is_lane = lanes < width
    query_offsets = (row * HEADS + head) * width + lanes
    new_offsets = (row * (HEADS // HEADS_PER_KEY) + head // HEADS_PER_KEY) * width + lanes
    wanted = tl.load(query + query_offsets, mask=is_lane, other=0.0).to(tl.float32) * scale
    new_key = tl.load(new_keys + new_offsets, mask=is_lane, other=0.0)
    new_value = tl.load(new_values + new_offsets, mask=is_lane, other=0.0)
    num_before = tl.load(last + row)
    own = (head // HEADS_PER_KEY) * width + lanes
    # Heads that share a key all write it, and all the same.
    now = tl.load(table + row * table_row + num_before).to(tl.int64) * slot_stride + own
    tl.store(keys + now, new_key, mask=is_lane)
    tl.store(values + now, new_value, mask=is_lane)

    best = tl.full([TILE], -1e30, tl.float32)  # finite, for an index that sees no token
    total = tl.zeros([TILE], tl.float32)
    mixed = tl.zeros([TILE, WIDTH], tl.float32)
    for first in tl.range(0, num_before, TILE, num_stages=STAGES):
        at = first + tl.arange(0, TILE)
        is_token = at < num_before
        slots = tl.load(table + row * table_row + at, mask=is_token, other=0).to(tl.int64)
        tile = (slots * slot_stride)[:, None] + own[None, :]
        is_in = is_token[:, None] & is_lane[None, :]
        key = tl.load(keys + tile, mask=is_in, other=0.0).to(tl.float32)
        value = tl.load(values + tile, mask=is_in, other=0.0).to(tl.float32)
        scores = tl.where(is_token, tl.sum(key * wanted[None, :], 1), -1e30)
        new_best = tl.maximum(best, scores)
        shrink = tl.exp2(best - new_best)
        weights = tl.where(is_token, tl.exp2(scores - new_best), 0.0)
        mixed = mixed * shrink[:, None] + weights[:, None] * value
        total = total * shrink + weights
        best = new_best

    # The new token, and the indices put together.
    score = tl.sum(new_key.to(tl.float32) * wanted, 0)
    top = tl.maximum(tl.max(best, 0), score)
    share, new_share = tl.exp2(best - top), tl.exp2(score - top)
    whole = tl.sum(total * share, 0) + new_share
    result = tl.sum(mixed * share[:, None], 0) + new_share * new_value.to(tl.float32)
    tl.store(out + query_offsets, (result / whole).to(out.dtype.element_ty), mask=is_lane)


def paged_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    values: Tensor,
    table: Tensor,
    last: Tensor,
    scale: float,
) -> Tensor:
    """The `PagedAttention` of a GPU; see there. Sums are taken in float32."""
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    rows, heads, width = query.shape
    out = torch.empty_like(query)
    _decode_kernel[(heads, rows)](
        query,
        key,
        value,
        keys,
        values,
        table,
        last,
        out,
        scale * _LOG2_E,
        keys.stride(0),
        table.stride(0),
        width,
        HEADS=heads,
        HEADS_PER_KEY=heads // keys.shape[1],
        WIDTH=triton.next_power_of_2(width),
        TILE=_TILE_TOKENS,
        STAGES=_STAGES,
        num_warps=_WARPS,
    )
    return out
