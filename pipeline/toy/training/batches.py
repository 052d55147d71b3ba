"""Exercises side by side: arrays for one step of training, made ahead of time.

Batches hold exercises of like length, padded on the right: a causal model never looks there, so no
mask is needed.
"""

from collections.abc import Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.engine.tokenizer import SpecialTokens
from pipeline.toy.patches import COLUMNS, ROWS
from pipeline.toy.training.lessons import Exercise, Scribe

IGNORED = -100
"""A target that is not learned."""
NUM_CODES = ROWS * COLUMNS
"""Of one picture."""
_CHUNK = 2048  # exercises that are sorted by length together
_BATCH_TOKENS = 3072
_NUM_AHEAD = 2  # chunks
_TWIN_STEP = 4

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Exercises side by side. `IGNORED` targets are not learned."""

    ids: Ints  # [rows, length]; 0 where codes or padding stand
    codes: Ints  # [rows, length]; -1 where none stands
    canvases: Ints  # [pictures, 36]
    seen_at: Ints  # [pictures, 2]: the row, and the place of the first of 36 features in it
    words: Ints  # [rows, length]: the word to come next
    drawn: Ints  # [rows, length]: the code to come next
    twins: Ints  # [pairs, 2]: a drawing's row, and the row of the same one without its text

    @property
    def num_tokens(self) -> int:
        return int(self.ids.size)


def batch_of(exercises: Sequence[Exercise], special: SpecialTokens) -> Batch:
    """Exercises as arrays. Every fourth drawing comes twice, also without its text."""
    drawings = [row for row, one in enumerate(exercises) if one.codes][::_TWIN_STEP]
    twins = [(row, len(exercises) + pair) for pair, row in enumerate(drawings)]
    exercises = [*exercises, *(_without_text(exercises[row], special) for row in drawings)]
    shape = len(exercises), max(len(one.ids) + len(one.codes) for one in exercises)
    ids, codes = np.zeros(shape, np.int64), np.full(shape, -1)
    words, drawn = np.full(shape, IGNORED), np.full(shape, IGNORED)
    canvases, seen_at = [], []
    for row, one in enumerate(exercises):
        length = len(one.ids)
        ids[row, :length] = one.ids
        if one.codes:
            codes[row, length : length + len(one.codes)] = one.codes
            first, last = length - 1 + one.learned_from, length - 1 + len(one.codes)
            drawn[row, first:last] = one.codes[one.learned_from :]
        else:
            words[row, one.learned_from - 1 : length - 1] = one.ids[one.learned_from :]
        if one.canvas is not None:
            canvases.append([*one.canvas, *[0] * (NUM_CODES - len(one.canvas))])
            seen_at.append((row, one.ids.index(special.image)))
    return Batch(
        ids=ids,
        codes=codes,
        canvases=np.array(canvases, np.int64).reshape(-1, NUM_CODES),
        seen_at=np.array(seen_at, np.int64).reshape(-1, 2),
        words=words,
        drawn=drawn,
        twins=np.array(twins, np.int64).reshape(-1, 2),
    )


def _without_text(drawing: Exercise, special: SpecialTokens) -> Exercise:
    pads = [special.pad] * (len(drawing.ids) - 2)
    return replace(drawing, ids=(special.bos, *pads, special.boi))


def batches(folder: Path, seed: Sequence[int]) -> Generator[Batch, None, None]:
    """Batches without end, made ahead of time in another process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as maker:
        ahead: list[Future[list[Batch]]] = []
        number = 0
        while True:
            while len(ahead) <= _NUM_AHEAD:
                ahead.append(maker.submit(_make_chunk, folder, seed, number))
                number += 1
            yield from ahead.pop(0).result()


_scribes: dict[Path, tuple[Scribe, SpecialTokens]] = {}  # of this process: opened once


def _make_chunk(folder: Path, seed: Sequence[int], number: int) -> list[Batch]:
    """The batches of one chunk, in random order. The same in whichever process makes them."""
    import torch

    from pipeline.engine.checkpoints import load_janus

    if folder not in _scribes:
        torch.set_num_threads(1)
        janus = load_janus(folder, dtype=torch.float32, device="cpu")
        _scribes[folder] = Scribe(janus), janus.special
    scribe, special = _scribes[folder]
    rng = np.random.default_rng([*seed, number])
    endless = scribe.exercises(rng)
    chunk = sorted(
        (next(endless) for _ in range(_CHUNK)), key=lambda one: len(one.ids) + len(one.codes)
    )
    made, first = [], 0
    while first < len(chunk):
        rows = 1
        while first + rows < len(chunk):
            longest = chunk[first + rows]
            if (rows + 1) * (len(longest.ids) + len(longest.codes)) > _BATCH_TOKENS:
                break
            rows += 1
        made.append(batch_of(chunk[first : first + rows], special))
        first += rows
    return [made[index] for index in rng.permutation(len(made))]
