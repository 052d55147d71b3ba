"""Noise that depends on its place alone, and choosing by it."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.reference import _Choice
from pipeline.engine.sampling import (
    Sampler,
    guide,
    gumbel_noise,
    keep_top_p,
    logp_of,
    philox,
    split_seed,
)
from pipeline.twig.requests import Text, Visual
from tests.engines import drawing, question


def _words(*values: int) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor(value) for value in values)


# Known answers that the authors of Philox publish with their library (Random123, kat_vectors).
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_known_answers(counter, key, expected):
    assert tuple(word.item() for word in philox(_words(*counter), _words(*key))) == expected


def test_noise_of_a_row_does_not_depend_on_its_mates():
    seeds = torch.tensor([split_seed(2**64 - 1), split_seed(7), split_seed(8)])
    positions = torch.tensor([0, 5, 5])
    together = gumbel_noise(seeds, positions, 10)

    for row in range(3):
        alone = gumbel_noise(seeds[row : row + 1], positions[row : row + 1], 10)
        assert torch.equal(together[row : row + 1], alone)


def test_noise_changes_with_seed_position_and_code():
    noise = gumbel_noise(
        torch.tensor([[1, 0], [2, 0], [1, 1], [1, 0]]), torch.tensor([0, 0, 0, 1]), 8
    )

    assert len(set(noise.flatten().tolist())) == noise.numel()


def test_a_smaller_vocabulary_sees_the_same_noise_for_the_same_codes():
    seeds, positions = torch.tensor([[3, 4]]), torch.tensor([9])

    assert torch.equal(
        gumbel_noise(seeds, positions, 7), gumbel_noise(seeds, positions, 100)[:, :7]
    )


def test_noise_has_the_moments_of_a_gumbel_variable():
    noise = gumbel_noise(torch.tensor([[1, 2]]), torch.tensor([0]), 200_000)

    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert noise.var().item() == pytest.approx(1.6449, abs=0.03)


def test_gumbel_max_draws_from_the_softmax():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    positions = torch.arange(20_000)
    seeds = torch.tensor([[5, 6]]).expand(len(positions), 2)
    drawn = (logits + gumbel_noise(seeds, positions, 4)).argmax(-1)
    shares = torch.bincount(drawn, minlength=4) / len(positions)

    assert torch.allclose(shares, logits.softmax(-1), atol=0.012)


def test_guidance_is_summed_in_float32():
    cond = torch.tensor([[1.0, 257.0]], dtype=torch.bfloat16)
    uncond = torch.tensor([[0.5, 255.0]], dtype=torch.bfloat16)
    guided = guide(cond, uncond, 5.0)

    assert guided.dtype is torch.float32
    assert torch.equal(guided, uncond.float() + 5 * (cond.float() - uncond.float()))


def test_top_p_keeps_the_code_that_crosses_the_threshold():
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()

    assert keep_top_p(logits, 0.6).isfinite().tolist() == [[True, True, False]]
    assert keep_top_p(logits, 0.01).isfinite().tolist() == [[True, False, False]]
    assert keep_top_p(logits, 1.0) is logits


def test_logp_is_of_the_chosen_token():
    logits = torch.tensor([[0.25, 0.75], [0.9, 0.1]]).log()

    assert logp_of(logits, torch.tensor([1, 0])).exp().tolist() == pytest.approx([0.75, 0.9])


# A batch of requests against each of them alone

STEPS, CODES = 5, 23
CPU = torch.device("cpu")

chances = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.3, 1.0, 2.5]),
        "seed": st.integers(0, 2**64 - 1),
        "with_logp": st.booleans(),
    }
)
texts = st.builds(
    lambda top_p, chance: question(top_p=top_p, **chance),
    top_p=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
    chance=chances,
)
visuals = st.builds(
    lambda num_codes, cfg_weight, chance: drawing(
        codes=(7,) * num_codes, cfg_weight=cfg_weight, **chance
    ),
    num_codes=st.integers(0, 20),
    cfg_weight=st.sampled_from([0.0, 1.0, 2.5, 5.0]),
    chance=chances,
)


def random_logits(num_requests: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """[steps, requests, codes]"""
    random = torch.Generator().manual_seed(num_requests)
    return (torch.randn(STEPS, num_requests, CODES, generator=random) * 3).to(dtype)


def assert_chosen(
    request: Text | Visual, chosen: tuple[list[int], list[float], list[float]], choice: _Choice
) -> None:
    tokens, sample, cond = chosen
    expected = {"logp_sample": choice.logp_sample, "logp_cond": choice.logp_cond}
    assert tokens == choice.tokens
    if expected["logp_sample"] is not None:
        assert request.with_logp
        assert sample == pytest.approx(expected["logp_sample"], abs=1e-5)
        assert cond == pytest.approx(expected["logp_cond"], abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(requests=st.lists(texts, min_size=1, max_size=6))
def test_words_of_a_batch_are_those_of_each_request_alone(requests: list[Text]):
    logits = random_logits(len(requests))
    sampler = Sampler(requests, [0] * len(requests), CPU)
    choices = [_Choice(request, CPU) for request in requests]

    for step in logits:
        words = sampler.words(step)
        alone = [
            choice.of_word(step[row : row + 1], request.top_p)
            for row, (request, choice) in enumerate(zip(requests, choices, strict=True))
        ]
        assert words.tolist() == alone

    for request, chosen, choice in zip(requests, sampler.chosen(), choices, strict=True):
        assert_chosen(request, chosen, choice)


@settings(max_examples=30, deadline=None)
@given(
    requests=st.lists(visuals, min_size=1, max_size=6),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_codes_of_a_batch_are_those_of_each_request_alone(
    requests: list[Visual], dtype: torch.dtype
):
    told, untold = random_logits(2 * len(requests), dtype).chunk(2, dim=1)
    positions = [len(request.codes) for request in requests]
    sampler = Sampler(requests, positions, CPU)
    choices = [
        _Choice(request, CPU, position)
        for request, position in zip(requests, positions, strict=True)
    ]

    for cond, uncond in zip(told, untold, strict=True):
        codes = sampler.codes(cond, uncond)
        alone = [
            choice.of_code(cond[row : row + 1], uncond[row : row + 1], request.cfg_weight)
            for row, (request, choice) in enumerate(zip(requests, choices, strict=True))
        ]
        assert codes.tolist() == alone

    for request, chosen, choice in zip(requests, sampler.chosen(), choices, strict=True):
        assert_chosen(request, chosen, choice)


@pytest.mark.parametrize("changes", [{"seed": 1}, {"temperature": 2.0}, {"top_p": 0.2}], ids=str)
def test_what_a_mate_asks_for_changes_no_bit(changes: dict[str, Any]):
    mine = question(temperature=1.0, seed=5, top_p=0.9, with_logp=True)
    mate = question(**({"temperature": 0.0} | changes))
    logits = random_logits(2)
    together, alone = Sampler([mine, mate], [3, 9], CPU), Sampler([mine], [3], CPU)

    for step in logits:
        together.words(step)
        alone.words(step[:1])

    assert together.chosen()[0] == alone.chosen()[0]


def test_a_sampler_of_nothing_has_chosen_nothing():
    assert Sampler([], [], CPU).chosen() == []
    assert Sampler([drawing()], [0], CPU).chosen() == [([], [], [])]
