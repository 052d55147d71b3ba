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
from schemas.training import IGNORED

NUM_CODES = ROWS * COLUMNS
"""Of one picture."""
_CHUNK = 2048  # exercises that are sorted by length together
_BATCH_TOKENS = 3072
_NUM_AHEAD = 2  # chunks
_TWIN_STEP = 4

Ints = npt.NDArray[np.int64]
"""int64, of any shape."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingBatch:
    """Exercises side by side. `IGNORED` targets are not learned."""

    ids: Ints  # [rows, length]; 0 where codes or padding stand
    codes: Ints  # [rows, length]; -1 where none stands
    canvases: Ints  # [pictures, 36]
    seen_at: Ints  # [pictures, 2]: the row, and the position of the first of 36 features in it
    words: Ints  # [rows, length]: the word to come next
    drawn: Ints  # [rows, length]: the code to come next
    twins: Ints  # [pairs, 2]: a drawing's row, and the row of the same one without its text

    @property
    def num_tokens(self) -> int:
        return int(self.ids.size)


def batch_of(exercises: Sequence[Exercise], special: SpecialTokens) -> TrainingBatch:
    """Exercises as arrays, a row each. Every fourth drawing comes twice, also without its text."""
    drawings = [row for row, exercise in enumerate(exercises) if exercise.codes][::_TWIN_STEP]
    twins = [(row, len(exercises) + pair) for pair, row in enumerate(drawings)]
    exercises = [*exercises, *(_without_text(exercises[row], special) for row in drawings)]
    shape = len(exercises), max(map(_num_tokens, exercises))
    ids, codes = np.zeros(shape, np.int64), np.full(shape, -1)
    words, drawn = np.full(shape, IGNORED), np.full(shape, IGNORED)
    canvases, seen_at = [], []
    for row, exercise in enumerate(exercises):
        length, learned_from = len(exercise.ids), exercise.learned_from
        ids[row, :length] = exercise.ids
        if exercise.codes:
            codes[row, length : length + len(exercise.codes)] = exercise.codes
            first, last = length - 1 + learned_from, length - 1 + len(exercise.codes)
            drawn[row, first:last] = exercise.codes[learned_from:]
        else:
            words[row, learned_from - 1 : length - 1] = exercise.ids[learned_from:]
        if exercise.canvas is not None:
            canvases.append([*exercise.canvas, *[0] * (NUM_CODES - len(exercise.canvas))])
            seen_at.append((row, exercise.ids.index(special.image)))
    return TrainingBatch(
        ids=ids,
        codes=codes,
        canvases=np.array(canvases, np.int64).reshape(-1, NUM_CODES),
        seen_at=np.array(seen_at, np.int64).reshape(-1, 2),
        words=words,
        drawn=drawn,
        twins=np.array(twins, np.int64).reshape(-1, 2),
    )


def _num_tokens(exercise: Exercise) -> int:
    return len(exercise.ids) + len(exercise.codes)


def _without_text(drawing: Exercise, special: SpecialTokens) -> Exercise:
    pads = [special.pad] * (len(drawing.ids) - 2)
    return replace(drawing, ids=(special.bos, *pads, special.boi))


def endless_batches(folder: Path, seed: Sequence[int]) -> Generator[TrainingBatch, None, None]:
    """Batches without end, made ahead of time in another process, which ends with the generator.

    `folder` is that of the untrained model. The same seed gives the same batches.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as maker:
        ahead: list[Future[list[TrainingBatch]]] = []
        number = 0
        while True:
            while len(ahead) <= _NUM_AHEAD:
                ahead.append(maker.submit(_make_chunk, folder, seed, number))
                number += 1
            yield from ahead.pop(0).result()


_scribes: dict[Path, tuple[Scribe, SpecialTokens]] = {}  # of this process: opened once


def _make_chunk(folder: Path, seed: Sequence[int], number: int) -> list[TrainingBatch]:
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
    chunk = sorted((next(endless) for _ in range(_CHUNK)), key=_num_tokens)
    batches, first = [], 0
    while first < len(chunk):
        rows = 1
        while first + rows < len(chunk):
            longest = chunk[first + rows]
            if (rows + 1) * _num_tokens(longest) > _BATCH_TOKENS:
                break
            rows += 1
        batches.append(batch_of(chunk[first : first + rows], special))
        first += rows
    return [batches[index] for index in rng.permutation(len(batches))]
