"""Checks of what was drawn, without a model: the spread of its tokens, and a perceptual hash."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby

import numpy as np
import numpy.typing as npt

from pipeline.pictures import Pixels
from pipeline.scoring.scorers import TRACE, Score, ScoringInput
from schemas.scores import ColumnType
from schemas.trace import Role

_NEAR_CONSTANT = 0.95  # of the tokens alike
_SIDE, _KEPT = 32, 8  # the hash sees 32 x 32 grey pixels, and their 8 x 8 slowest waves


class TokenChecks:
    """How a picture's tokens, or a region's, are spread. A flat sky is one token over and over."""

    name = "tokens"
    version = "1"
    subjects = frozenset({TRACE, Role.DRAW.value})
    needs_pictures = False
    columns: Mapping[str, ColumnType] = {
        "value": "float32",  # of a trace: 0 where the picture is nearly one token, else 1
        "entropy": "float32",  # bits a token
        "longest_run": "float32",  # of one token, as a share of all
        "top_share": "float32",  # of the most frequent token
    }

    def score(self, batch: Sequence[ScoringInput]) -> list[Score]:
        return [self._score(scoring_input) for scoring_input in batch]

    def _score(self, scoring_input: ScoringInput) -> Score:
        codes = list(scoring_input.codes)
        if not codes:
            return Score(value=None)
        counts = np.array(sorted(Counter(codes).values()), np.float64) / len(codes)
        top_share = float(counts.max())
        return Score(
            value=float(top_share < _NEAR_CONSTANT) if scoring_input.event is None else None,
            parts={
                "entropy": float(-(counts * np.log2(counts)).sum()) + 0.0,  # not minus zero
                "longest_run": max(len(list(run)) for _, run in groupby(codes)) / len(codes),
                "top_share": top_share,
            },
        )


class PerceptualHash:
    """Finished pictures as 64 bits; those that look alike differ in few of them."""

    name = "phash"
    version = "1"
    subjects = frozenset({TRACE})
    needs_pictures = True
    columns: Mapping[str, ColumnType] = {"hash": "uint64"}

    def score(self, batch: Sequence[ScoringInput]) -> list[Score]:
        pictures = [scoring_input.pixels for scoring_input in batch]
        hashes = [None if pixels is None else phash(pixels) for pixels in pictures]
        return [Score(value=None, parts={"hash": picture_hash}) for picture_hash in hashes]


def phash(pixels: Pixels) -> int:
    """64 bits: which of the slow waves of a picture's grey are stronger than their median. The
    slowest is the highest bit.

    The cosine transform and the median are those of the usual pHash; the constant part counts
    last, so that brightness alone makes no other picture.
    """
    from PIL import Image

    grey = Image.fromarray(pixels).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    basis = _cosines()
    waves = basis @ np.asarray(grey, np.float64) @ basis.T
    # Rounded, so that a sum in another order on another machine does not flip a bit.
    bits = np.round(waves, 3) > np.median(np.round(waves, 3).ravel()[1:])
    return int.from_bytes(np.packbits(bits.ravel()).tobytes(), "big")


@cache
def _cosines() -> npt.NDArray[np.float64]:
    """The slowest waves of the cosine transform, [8, 32] float64."""
    angles = (2 * np.arange(_SIDE) + 1) * np.pi / (2 * _SIDE)
    return np.cos(np.arange(_KEPT)[:, None] * angles[None, :])
