"""Choosing tokens: guidance, temperature, top-p, and noise that depends on nothing but its place.

A token is drawn by the Gumbel-max rule: the largest of `logits / temperature + noise`. The noise is
a hash of (event seed, position, code), so a rollout draws the same tokens alone, in any batch, on
any worker, and after any restart.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipeline.twig.requests import Request, Text

# Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF

_NOISE_NUMBERS = 2**24  # made ahead, at the most

Noise = Callable[[Tensor, Tensor, int], Tensor]
"""See `gumbel_noise`."""


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


def guide(cond: Tensor, uncond: Tensor, cfg_weight: float | Tensor) -> Tensor:
    """Classifier-free guidance, in float32: at weight 5 half-precision rounding would show.

    `cond` and `uncond` are logits [rows, codes]; the weight is one number, or float32 [rows, 1].
    """
    cond, uncond = cond.float(), uncond.float()
    return uncond + cfg_weight * (cond - uncond)


def keep_top_p(logits: Tensor, top_p: float | Tensor) -> Tensor:
    """The logits [rows, codes] with all but the likeliest codes, of mass `top_p`, at -inf.

    The code that crosses the threshold is kept, so at least one is. `top_p` is one number, or
    float32 [rows, 1].
    """
    if isinstance(top_p, float) and top_p >= 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True)
    mass_before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
    too_far = (mass_before >= top_p) & torch.as_tensor(top_p < 1, device=logits.device)
    dropped = too_far.scatter(-1, order, too_far)
    return logits.masked_fill(dropped, -torch.inf)


def logp_of(logits: Tensor, tokens: Tensor) -> Tensor:
    """Natural log-probability, float32 [rows], of one token a row under float logits."""
    return logits.float().log_softmax(-1).gather(-1, tokens[:, None]).squeeze(-1)


def spread_of(logits: Tensor) -> Tensor:
    """How far the largest of each row stands above the smallest, float32 [rows].

    Not finite if one of them is not. One pass, and no sum that could overflow where none is.
    """
    least, most = torch.aminmax(logits, dim=-1)
    return most.float() - least.float()


def evidence_of(scaled: Tensor, cond: Tensor, tokens: Tensor) -> Tensor:
    """A number, float32 [rows], that is finite if a choice was made by numbers.

    `tokens` were chosen from `scaled`, where those that top-p drops are at -inf, and `cond` are the
    logits as they are. A NaN counts as the largest, so if there is one in `scaled` it was chosen.
    """
    return spread_of(cond) + 0 * scaled.gather(-1, tokens[:, None]).squeeze(-1)


class Sampler:
    """Chooses the next tokens of a batch of requests, step after step, and never asks the host.

    What it chooses for a request depends on nothing but the request, its logits and the position.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        positions: Sequence[int],
        device: torch.device,
        *,
        num_steps: int = 1,
        noise: Noise = gumbel_noise,
    ) -> None:
        """`positions[i]` is the place of request i's next token in its picture or answer.

        Noise is made ahead for `num_steps`; more steps are as good.
        """

        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)[:, None]

        temperatures = [request.temperature for request in requests]
        top_p = [request.top_p if isinstance(request, Text) else 1.0 for request in requests]
        self._temperature = column([temperature or 1.0 for temperature in temperatures])
        self._is_sampled = column(temperatures) > 0
        self._top_p = column(top_p) if min(top_p, default=1.0) < 1 else 1.0
        self._cfg_weight = column([getattr(request, "cfg_weight", 0.0) for request in requests])
        self._seeds = torch.tensor(
            [split_seed(request.seed or 0) for request in requests], device=device
        )
        self._positions = torch.tensor(positions, device=device)
        self._has_noise = any(temperatures)
        self._has_logp = any(request.with_logp and request.temperature for request in requests)
        self._num_requests = len(requests)
        self._num_steps, self._make_noise = num_steps, noise
        self._noise: list[Tensor] = []  # of the next steps
        self._steps: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        self._seen: tuple[list[list[int]], list[list[list[float]]]] | None = None

    def codes(self, cond: Tensor, uncond: Tensor) -> Tensor:
        """int64 [requests], from the logits [requests, codes] of the two branches."""
        return self._choose(guide(cond, uncond, self._cfg_weight) / self._temperature, cond)

    def words(self, logits: Tensor) -> Tensor:
        """int64 [requests], from logits [requests, words]."""
        logits = logits.float()
        return self._choose(keep_top_p(logits / self._temperature, self._top_p), logits)

    def chosen(self) -> list[tuple[list[int], list[float], list[float]]]:
        """Each request's tokens since the beginning, their `logp_sample` and their `logp_cond`."""
        if not self._steps:
            return [([], [], [])] * self._num_requests
        tokens, (sample, cond, _) = self._look()
        return list(zip(tokens, sample, cond, strict=True))

    def evidence(self) -> list[list[float]]:
        """For each request's tokens, a number that is finite if it was chosen by numbers."""
        return self._look()[1][2] if self._steps else [[]] * self._num_requests

    def _look(self) -> tuple[list[list[int]], list[list[list[float]]]]:
        """All tokens and all numbers, brought from the device once: it is waited for."""
        if self._seen is None:
            tokens, *numbers = (torch.stack(column, 1) for column in zip(*self._steps, strict=True))
            self._seen = tokens.tolist(), torch.stack(numbers).tolist()
        return self._seen

    def _choose(self, scaled: Tensor, cond: Tensor) -> Tensor:
        noisy = scaled
        if self._has_noise:
            noise = self._next_noise(scaled.shape[-1])
            # Not a product: where there is no noise, -inf must stay what it is.
            noisy = torch.where(self._is_sampled, scaled + noise, scaled)
        tokens = noisy.argmax(-1)
        nothing = tokens.new_zeros(len(tokens), dtype=torch.float32)
        sample = logp_of(scaled, tokens) if self._has_logp else nothing
        evidence = evidence_of(scaled, cond, tokens)
        cond_logp = logp_of(cond, tokens) if self._has_logp else nothing
        self._steps.append((tokens, sample, cond_logp, evidence))
        self._seen = None
        self._positions = self._positions + 1
        return tokens

    def _next_noise(self, num_codes: int) -> Tensor:
        """The noise of this step. Made for several steps at once: it is many small operations."""
        if not self._noise:
            most = max(1, _NOISE_NUMBERS // (len(self._seeds) * num_codes))
            num_steps = min(self._num_steps, most)
            ahead = torch.arange(num_steps, device=self._positions.device)[:, None]
            noise = self._make_noise(
                self._seeds.repeat(num_steps, 1),
                (self._positions + ahead).flatten(),
                num_codes,
            )
            self._noise = list(noise.view(num_steps, -1, num_codes).flip(0))
        return self._noise.pop()


def _multiply(words: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of 32-bit products. The 64-bit product may wrap; its bits are right."""
    product = words * factor
    return (product >> 32) & _WORD, product & _WORD
