"""Signs that a picture pleases a judge and nobody else: flat, saturated, the same patch again."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.pictures import Pixels
from pipeline.scoring.scorers import TRACE, Score, ScoringInput
from schemas.scores import ColumnType

_TILE = 16  # pixels: the side of a code of Janus
_FLAT_LEVELS = 2.0  # of 255: a tile whose grey spreads less is one colour
_BLACK, _WHITE = 1, 254  # levels at or beyond which a channel is at its end
_SAME_LEVELS = 8  # tiles that differ by less are the same patch


class ArtefactChecks:
    """Finished pictures. There is no value: what is usual depends on what was asked for."""

    name = "artefacts"
    version = "1"
    subjects = frozenset({TRACE})
    needs_pictures = True
    columns: Mapping[str, ColumnType] = {
        "flat": "float32",  # the share of tiles of one colour
        "saturated": "float32",  # the share of channel values that are at either end
        "repeated": "float32",  # of the tiles that show something, those that stand there again
    }

    def score(self, batch: Sequence[ScoringInput]) -> list[Score]:
        pictures = [scoring_input.pixels for scoring_input in batch]
        return [
            Score(value=None, parts={} if pixels is None else artefacts_in(pixels))
            for pixels in pictures
        ]


def artefacts_in(pixels: Pixels) -> dict[str, float | None]:
    """The columns of `ArtefactChecks`. None of a picture smaller than a tile, and `repeated` of one
    that shows nothing.
    """
    tiles = _tiles(pixels)
    is_at_end = (pixels <= _BLACK) | (pixels >= _WHITE)
    saturated = float(is_at_end.mean()) if pixels.size else None
    if not len(tiles):
        return {"flat": None, "saturated": saturated, "repeated": None}
    is_flat = tiles.mean(axis=3).std(axis=(1, 2)) < _FLAT_LEVELS
    return {
        "flat": float(is_flat.mean()),
        "saturated": saturated,
        "repeated": _repeated(tiles[~is_flat]),
    }


def _tiles(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """[tiles, 16, 16, 3]; what is left over at the right and below is not looked at."""
    rows, columns = pixels.shape[0] // _TILE, pixels.shape[1] // _TILE
    whole = pixels[: rows * _TILE, : columns * _TILE]
    tiles = whole.reshape(rows, _TILE, columns, _TILE, 3).swapaxes(1, 2)
    return tiles.reshape(-1, _TILE, _TILE, 3)


def _repeated(tiles: npt.NDArray[np.uint8]) -> float | None:
    """The share of tiles that have another one like them, in the mean of their levels."""
    if not len(tiles):
        return None
    levels = tiles.reshape(len(tiles), -1).astype(np.float32)
    num_again = 0
    for index, tile in enumerate(levels):
        distances = np.abs(levels - tile).mean(axis=1)
        distances[index] = np.inf
        num_again += bool(distances.min() < _SAME_LEVELS)
    return num_again / len(tiles)
