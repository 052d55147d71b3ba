"""Noise that depends on its place alone, and choosing by it."""

import pytest
import torch

from pipeline.engine.sampling import (
    guide,
    gumbel_noise,
    keep_top_p,
    logp_of,
    philox,
    split_seed,
)


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
