"""Checks of tokens and pictures."""

import numpy as np
import pytest

from pipeline.scoring.picture_checks import PerceptualHash, TokenChecks, phash
from pipeline.scoring.safety import PictureFilter, PromptFilter
from pipeline.scoring.scorers import ScoringInput


def test_a_canvas_of_one_token_is_flagged_and_a_flat_region_is_not():
    flat, lively = [7] * 100, list(range(100))
    event = {"role": "draw"}
    whole, region, good, empty = TokenChecks().score(
        [
            ScoringInput(prompt="p", codes=flat),
            ScoringInput(prompt="p", codes=flat, event=event),
            ScoringInput(prompt="p", codes=lively),
            ScoringInput(prompt="p"),
        ]
    )

    assert (whole.value, region.value, good.value, empty.value) == (0, None, 1, None)
    assert whole.parts == {"entropy": 0, "longest_run": 1, "top_share": 1}
    assert good.parts["entropy"] == pytest.approx(np.log2(100))


def picture(seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return small.repeat(16, 0).repeat(16, 1)


def test_pictures_that_look_alike_have_near_hashes_and_others_far_ones():
    noise = np.random.default_rng(9).integers(-6, 7, (96, 96, 3))
    noisy = np.clip(picture(1).astype(int) + noise, 0, 255).astype(np.uint8)

    assert (phash(picture(1)) ^ phash(noisy)).bit_count() <= 8
    assert (phash(picture(1)) ^ phash(picture(2))).bit_count() >= 16
    assert 0 <= phash(picture(1)) < 2**64


def test_a_picture_that_is_not_there_has_no_hash():
    (score,) = PerceptualHash().score([ScoringInput(prompt="p")])

    assert score.parts == {"hash": None}


def test_the_filters_say_no_or_nothing_where_they_cannot_know():
    good, bad, foreign = PromptFilter().score(
        [
            ScoringInput(prompt="a red cube"),
            ScoringInput(prompt="a Nude statue"),
            ScoringInput(prompt="ein Haus"),
        ]
    )
    flat, other = PictureFilter().score(
        [
            ScoringInput(prompt="p", pixels=np.zeros((8, 8, 3), np.uint8)),
            ScoringInput(prompt="p", pixels=picture(1)),
        ]
    )

    assert (good.value, bad.value, foreign.value) == (1, 0, None)
    assert (flat.value, other.value) == (0, None)
