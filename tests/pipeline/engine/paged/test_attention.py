"""Attention over pages against a plain causal softmax in float64, and against itself to the bit."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig

from pipeline.engine.paged.attention import (
    ATTENTION,
    AttentionPass,
    Cache,
    Span,
    StrictDecode,
    StrictPrefill,
    bytes_per_token,
    register,
)
from pipeline.engine.paged.pages import PAGE_TOKENS, Pages, num_pages_for

LAYERS, WIDTH, SCALE = 2, 16, 0.3
STEPS = 8
HEADS = [(4, 4), (4, 2), (6, 1)]  # of queries, of keys
heads_of_both = pytest.mark.parametrize("heads", HEADS, ids=str)


@dataclass(frozen=True)
class Row:
    """A sequence: queries [layers, tokens, heads, width], its keys and values, its slots."""

    query: Tensor
    key: Tensor
    value: Tensor
    slots: Tensor

    def expected(self, layer: int) -> Tensor:
        """Causal attention [tokens, heads, width] in float64."""
        query, key, value = (x[layer].double() for x in (self.query, self.key, self.value))
        num_tokens, heads, _ = query.shape
        group = heads // key.shape[1]
        key, value = (x.repeat_interleave(group, dim=1) for x in (key, value))
        scores = torch.einsum("qhw,khw->hqk", query, key) * SCALE
        later = torch.ones(num_tokens, num_tokens, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(later, -torch.inf).softmax(-1)
        return torch.einsum("hqk,khw->qhw", weights, value)


class Bench:
    """A cache, and sequences that live in its pages, which are dealt out in disorder."""

    def __init__(self, heads: tuple[int, int], *, seed: int = 0, num_pages: int = 200) -> None:
        self._heads = heads
        self._random = torch.Generator().manual_seed(seed)
        self._pages = Pages(num_pages)
        config = SimpleNamespace(
            num_hidden_layers=LAYERS, num_key_value_heads=heads[1], head_dim=WIDTH
        )
        self.cache = Cache(config, num_pages * PAGE_TOKENS, torch.float32, "cpu")

    def sequence(self, num_tokens: int) -> Row:
        pages = self._pages.take(num_pages_for(num_tokens + STEPS))
        random.Random(num_tokens).shuffle(pages)
        slots = torch.cat([torch.arange(PAGE_TOKENS) + page * PAGE_TOKENS for page in pages])
        query, key, value = (
            torch.randn(LAYERS, num_tokens, heads, WIDTH, generator=self._random)
            for heads in (self._heads[0], self._heads[1], self._heads[1])
        )
        return Row(query * 2, key * 2, value, slots)

    def prefill(self, *parts: tuple[Row, int, int], padding: int = 0) -> list[list[Tensor]]:
        """Attention of each part, tokens `start` to `stop` of a sequence, in each layer."""
        spans, first = [], 0
        for sequence, start, stop in parts:
            spans.append(
                Span(first=first, num_tokens=stop - start, start=start, slots=sequence.slots)
            )
            first += stop - start
        current = StrictPrefill(self.cache, spans)
        layers = [
            current.attend(layer, *self._packed(layer, parts, padding), SCALE)
            for layer in range(LAYERS)
        ]
        return [
            [out[span.first : span.first + span.num_tokens] for out in layers] for span in spans
        ]

    def _packed(
        self, layer: int, parts: Sequence[tuple[Row, int, int]], padding: int
    ) -> list[Tensor]:
        packed = []
        for name in ("query", "key", "value"):
            new = torch.cat([getattr(s, name)[layer, start:stop] for s, start, stop in parts])
            packed.append(torch.cat([new, torch.full((padding, *new.shape[1:]), torch.nan)]))
        return packed

    def decode(
        self, *rows: tuple[Row, int], padding: int = 0, is_stored: bool = True
    ) -> list[list[Tensor]]:
        """Attention [steps, heads, width] of each row's tokens from `start` on, in each layer."""
        slots = [sequence.slots for sequence, _ in rows] + [None] * padding
        lengths = [start for _, start in rows] + [0] * padding
        burst = StrictDecode(self.cache, slots, lengths, STEPS)
        outs: list[list[Tensor]] = [[] for _ in range(LAYERS)]
        for step in range(STEPS):
            parts = [(sequence, start + step, start + step + 1) for sequence, start in rows]
            for layer in range(LAYERS):
                packed = self._packed(layer, parts, 0)
                padded = [torch.cat([x, x.new_zeros(padding, *x.shape[1:])]) for x in packed]
                outs[layer].append(burst.attend(layer, *padded, SCALE))
            burst.advance()
        if is_stored:
            burst.store()
        stacked = [torch.stack(steps, 1) for steps in outs]
        return [[layer[row] for layer in stacked] for row in range(len(rows))]


def assert_right(out: list[Tensor], sequence: Row, start: int, stop: int) -> None:
    for layer in range(LAYERS):
        torch.testing.assert_close(
            out[layer].double(), sequence.expected(layer)[start:stop], rtol=0, atol=1e-5
        )


LENGTHS = [1, 2, 15, 31, 32, 33, 64, 65, 127, 128, 129, 200]


@heads_of_both
@pytest.mark.parametrize("length", LENGTHS)
def test_prefill_is_causal_attention(heads: tuple[int, int], length: int):
    bench = Bench(heads)
    sequence = bench.sequence(length)

    (out,) = bench.prefill((sequence, 0, length))

    assert_right(out, sequence, 0, length)


@heads_of_both
@pytest.mark.parametrize("start", [1, 16, 63, 64, 65, 130])
def test_prefill_goes_on_from_what_is_cached(heads: tuple[int, int], start: int):
    bench = Bench(heads)
    sequence, stop = bench.sequence(131), 131

    bench.prefill((sequence, 0, start))
    (out,) = bench.prefill((sequence, start, stop))

    assert_right(out, sequence, start, stop)


@heads_of_both
@pytest.mark.parametrize("start", [0, 1, 55, 56, 57, 63, 64, 65, 120, 128])
def test_decoding_is_causal_attention(heads: tuple[int, int], start: int):
    bench = Bench(heads)
    sequence = bench.sequence(start + STEPS)
    if start:
        bench.prefill((sequence, 0, start))

    (out,) = bench.decode((sequence, start))

    assert_right(out, sequence, start, start + STEPS)


@heads_of_both
def test_burst_after_burst_reads_what_the_one_before_has_stored(heads: tuple[int, int]):
    bench = Bench(heads)
    sequence = bench.sequence(50 + 3 * STEPS)
    bench.prefill((sequence, 0, 50))

    for start in range(50, 50 + 3 * STEPS, STEPS):
        (out,) = bench.decode((sequence, start))
        assert_right(out, sequence, start, start + STEPS)


@heads_of_both
def test_sequences_in_one_pass_do_not_see_each_other(heads: tuple[int, int]):
    bench = Bench(heads)
    sequences = [bench.sequence(length + STEPS) for length in LENGTHS]

    filled = bench.prefill(
        *[(s, 0, length) for s, length in zip(sequences, LENGTHS, strict=True)], padding=11
    )
    decoded = bench.decode(*zip(sequences, LENGTHS, strict=True), padding=6)

    for sequence, length, before, after in zip(sequences, LENGTHS, filled, decoded, strict=True):
        assert_right(before, sequence, 0, length)
        assert_right(after, sequence, length, length + STEPS)


# To the bit


def all_equal(outs: list[list[Tensor]], others: list[list[Tensor]]) -> bool:
    return all(
        torch.equal(a, b)
        for layers, other_layers in zip(outs, others, strict=True)
        for a, b in zip(layers, other_layers, strict=True)
    )


@heads_of_both
def test_a_row_does_not_depend_on_its_mates(heads: tuple[int, int]):
    bench = Bench(heads)
    sequences = [bench.sequence(length + STEPS) for length in LENGTHS]
    parts = [(s, 0, length) for s, length in zip(sequences, LENGTHS, strict=True)]
    rows = list(zip(sequences, LENGTHS, strict=True))

    filled = [bench.prefill(part)[0] for part in parts]
    decoded = [bench.decode(row)[0] for row in rows]

    assert all_equal(bench.prefill(*parts), filled)
    assert all_equal(bench.prefill(*parts[::-1], padding=5)[::-1], filled)
    assert all_equal(bench.decode(*rows), decoded)
    assert all_equal(bench.decode(*rows[::-1], padding=22)[::-1], decoded)


@heads_of_both
@pytest.mark.parametrize("cut", [1, 16, 63, 64, 65, 100, 129])
def test_a_prefix_that_is_cached_changes_no_bit_of_what_follows(heads: tuple[int, int], cut: int):
    bench = Bench(heads)
    sequence = bench.sequence(130)
    (whole,) = bench.prefill((sequence, 0, 130))

    (before,) = bench.prefill((sequence, 0, cut))
    (after,) = bench.prefill((sequence, cut, 130))

    assert all_equal([before], [[layer[:cut] for layer in whole]])
    assert all_equal([after], [[layer[cut:] for layer in whole]])


def test_what_other_pages_hold_changes_no_bit():
    bench = Bench((4, 2))
    sequence = bench.sequence(70 + STEPS)
    (filled,) = bench.prefill((sequence, 0, 70))
    (decoded,) = bench.decode((sequence, 70))

    others = torch.ones(bench.cache.keys.shape[1], dtype=torch.bool)
    others[sequence.slots[:70]] = False
    bench.cache.keys[:, others] = 1e6
    bench.cache.values[:, others] = -1e6

    assert all_equal(bench.prefill((sequence, 0, 70)), [filled])
    assert all_equal(bench.decode((sequence, 70)), [decoded])


def test_a_burst_writes_to_its_own_slots_and_to_scratch_alone():
    bench = Bench((4, 2))
    sequence, other = bench.sequence(70 + STEPS), bench.sequence(90)
    bench.prefill((sequence, 0, 70), (other, 0, 90))
    keys, values = bench.cache.keys.clone(), bench.cache.values.clone()

    bench.decode((sequence, 70), padding=3)

    written = sequence.slots[70 : 70 + STEPS]
    assert torch.equal(bench.cache.keys[:, written], sequence.key[:, 70:])
    assert torch.equal(bench.cache.values[:, written], sequence.value[:, 70:])
    kept = torch.ones(keys.shape[1], dtype=torch.bool)
    kept[[*written.tolist(), *range(PAGE_TOKENS)]] = False
    assert torch.equal(bench.cache.keys[:, kept], keys[:, kept])
    assert torch.equal(bench.cache.values[:, kept], values[:, kept])


# The hook


class Seen:
    """A pass that only looks at what it is given."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        self.given = (layer, query, key, value, scale)
        return query + 1


def attention_inputs(heads: tuple[int, int], num_queries: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return (
        torch.randn(1, heads[0], num_queries, WIDTH),
        torch.randn(1, heads[1], 7, WIDTH),
        torch.randn(1, heads[1], 7, WIDTH),
    )


def registered() -> object:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    register()
    register()
    return ALL_ATTENTION_FUNCTIONS[ATTENTION]


@heads_of_both
@pytest.mark.parametrize("num_queries", [7, 1])
def test_without_a_pass_the_registered_function_is_plain_sdpa(
    heads: tuple[int, int], num_queries: int
):
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    given = attention_inputs(heads, num_queries)
    module = SimpleNamespace(
        num_key_value_groups=heads[0] // heads[1], is_causal=True, training=False, layer_idx=0
    )

    ours, nothing = registered()(module, *given, None, scaling=SCALE)
    theirs, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](module, *given, None, scaling=SCALE)

    assert torch.equal(ours, theirs)
    assert nothing is None


def test_a_pass_is_given_packed_tokens_of_its_layer():
    query, key, value = attention_inputs((4, 2), 7)
    seen: AttentionPass = Seen()

    out, _ = registered()(
        SimpleNamespace(layer_idx=5), query, key, value, None, scaling=SCALE, current=seen
    )

    layer, *packed, scale = seen.given
    assert (layer, scale) == (5, SCALE)
    for ours, theirs in zip(packed, (query, key, value), strict=True):
        assert torch.equal(ours, theirs[0].transpose(0, 1))
    assert torch.equal(out, query.transpose(1, 2) + 1)


def test_a_token_takes_its_keys_and_values_in_all_layers():
    config = LlamaConfig(
        num_hidden_layers=3, num_key_value_heads=2, num_attention_heads=4, hidden_size=32
    )

    assert bytes_per_token(config, torch.bfloat16) == 3 * 2 * 8 * 2 * 2
    assert bytes_per_token(config, torch.float32) == 3 * 2 * 8 * 2 * 4
