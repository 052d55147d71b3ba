"""Choosing tokens: guidance, temperature, top-p, and noise that depends on nothing but its place.

A token is drawn by the Gumbel-max rule: the largest of `logits / temperature + noise`. The noise is
a hash of (event seed, position, code), so a rollout draws the same tokens alone, in any batch, on
any worker, and after any restart.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

# Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF


def philox(counters: Sequence[Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Four random words for four counter words and two key words, each int64 holding 32 bits.

    Integer arithmetic only, so CPU and GPU agree to the bit. Shapes broadcast.
    """
    c0, c1, c2, c3 = counters
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _KEY_STEPS[0]) & _WORD, (k1 + _KEY_STEPS[1]) & _WORD
    return c0, c1, c2, c3


def gumbel_noise(seeds: Tensor, positions: Tensor, num_codes: int) -> Tensor:
    """Standard Gumbel noise, float32 [rows, num_codes].

    `seeds` is int64 [rows, 2]: the low and the high word of each event's seed (`split_seed`).
    `positions` is int64 [rows]: the token's place in the picture or the answer, from 0. The
    logarithms are taken in float64, because a device may round the last bit its own way.
    """
    device = seeds.device
    blocks = torch.arange((num_codes + 3) // 4, device=device)[None, :]
    zero = torch.zeros((), dtype=torch.int64, device=device)
    key = (seeds[:, 0:1], seeds[:, 1:2])
    words = philox((blocks, positions[:, None], zero, zero), key)
    bits = torch.stack(torch.broadcast_tensors(*words), dim=-1).flatten(1)[:, :num_codes]
    uniform = (bits.double() + 0.5) * 2.0**-32
    return -torch.log(-torch.log(uniform)).float()


def split_seed(seed: int) -> tuple[int, int]:
    """The low and the high 32 bits of an unsigned 64-bit seed."""
    return seed & _WORD, seed >> 32


def guide(cond: Tensor, uncond: Tensor, cfg_weight: float) -> Tensor:
    """Classifier-free guidance, in float32: at weight 5 half-precision rounding would show."""
    cond, uncond = cond.float(), uncond.float()
    return uncond + cfg_weight * (cond - uncond)


def keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """The logits [rows, codes] with all but the likeliest codes, of mass `top_p`, at -inf.

    The code that crosses the threshold is kept, so at least one is.
    """
    if top_p >= 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True)
    mass_before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
    dropped = (mass_before >= top_p).scatter(-1, order, mass_before >= top_p)
    return logits.masked_fill(dropped, -torch.inf)


def logp_of(logits: Tensor, tokens: Tensor) -> Tensor:
    """Natural log-probability, float32 [rows], of one token a row under float logits."""
    return logits.float().log_softmax(-1).gather(-1, tokens[:, None]).squeeze(-1)


def _multiply(words: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of 32-bit products. The 64-bit product may wrap; its bits are right."""
    product = words * factor
    return (product >> 32) & _WORD, product & _WORD
