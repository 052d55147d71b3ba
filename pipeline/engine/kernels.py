"""Attention of one new token a row over a paged cache, as a Triton kernel.

One program is one row and one head: it walks the row's tokens, a tile at a time, with the softmax
kept up on the way, so each key and value is read once and nothing is written but the result. With
full multi-head attention there is nothing to share between heads, and reading is all the work there
is: 2 x tokens x width numbers a program. `paged_attention_plain` says the same in plain torch.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE_TOKENS = 64


@triton.jit
def _decode_kernel(
    query,
    keys,
    values,
    table,
    last,
    out,
    scale,
    query_row,
    slot_stride,
    table_row,
    width,
    HEADS_PER_KEY: tl.constexpr,
    WIDTH: tl.constexpr,  # the width, up to a power of two
    TILE: tl.constexpr,
):
    row, head = tl.program_id(0), tl.program_id(1)
    lanes = tl.arange(0, WIDTH)
    is_lane = lanes < width
    place = row * query_row + head * width + lanes
    wanted = tl.load(query + place, mask=is_lane, other=0.0).to(tl.float32) * scale
    num_tokens = tl.load(last + row) + 1
    best = tl.full([1], -float("inf"), tl.float32)
    total = tl.zeros([1], tl.float32)
    mixed = tl.zeros([WIDTH], tl.float32)
    for first in range(0, num_tokens, TILE):
        at = first + tl.arange(0, TILE)
        is_token = at < num_tokens
        slots = tl.load(table + row * table_row + at, mask=is_token, other=0).to(tl.int64)
        tile = (slots * slot_stride + (head // HEADS_PER_KEY) * width)[:, None] + lanes[None, :]
        is_in = is_token[:, None] & is_lane[None, :]
        key = tl.load(keys + tile, mask=is_in, other=0.0).to(tl.float32)
        scores = tl.where(is_token, tl.sum(key * wanted[None, :], 1), -float("inf"))
        new_best = tl.maximum(best, tl.max(scores, 0))
        weights = tl.exp(scores - new_best)
        shrink = tl.exp(best - new_best)
        value = tl.load(values + tile, mask=is_in, other=0.0).to(tl.float32)
        mixed = mixed * shrink + tl.sum(weights[:, None] * value, 0)
        total = total * shrink + tl.sum(weights, 0)
        best = new_best
    tl.store(out + place, (mixed / total).to(out.dtype.element_ty), mask=is_lane)


def paged_attention(
    query: Tensor, keys: Tensor, values: Tensor, table: Tensor, last: Tensor, scale: float
) -> Tensor:
    """Attention [rows, heads, width] of one query a row, `query` being of that shape.

    `keys` and `values` are one layer of the cache, [slots, key heads, width]; `table` is int32
    [rows, tokens], the slot of each position; `last` is int32 [rows], the last position to be read.
    """
    query = query.contiguous()
    rows, heads, width = query.shape
    out = torch.empty_like(query)
    _decode_kernel[(rows, heads)](
        query,
        keys,
        values,
        table,
        last,
        out,
        scale,
        query.stride(0),
        keys.stride(0),
        table.stride(0),
        width,
        HEADS_PER_KEY=heads // keys.shape[1],
        WIDTH=triton.next_power_of_2(width),
        TILE=_TILE_TOKENS,
        num_warps=4,
    )
    return out
