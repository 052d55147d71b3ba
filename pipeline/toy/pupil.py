"""Training the language model, its vision and its heads on lessons: batches, loss, schedule.

Batches hold exercises of like length, padded on the right: a causal model never looks there, so no
mask is needed. Pictures that are looked at are mostly tiled from clean patches and made noisy,
which costs nothing; a part goes through the decoder, as every picture does when the model is used.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pipeline.engine.sampling import guide
from pipeline.engine.tokenizer import SpecialTokens
from pipeline.toy.lessons import Exercise, Scribe
from pipeline.toy.patches import COLUMNS, ROWS, tile_all

if TYPE_CHECKING:
    from transformers import JanusForConditionalGeneration

_CHUNK = 2048  # exercises that are sorted by length together
_BATCH_TOKENS = 3072
_NUM_AHEAD = 2  # chunks
_NUM_CODES = ROWS * COLUMNS
_DECODED_SHARE = 0.08
_PATCH_NOISE, _PIXEL_NOISE = 0.07, 0.05  # of the range from -1 to 1
_TWIN_STEP = 4
_CFG_WEIGHT, _GUIDED_SHARE = 5.0, 0.2  # the paper's guidance, and its part in the loss
_IGNORED = -100

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
    words, drawn = np.full(shape, _IGNORED), np.full(shape, _IGNORED)
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
            canvases.append([*one.canvas, *[0] * (_NUM_CODES - len(one.canvas))])
            seen_at.append((row, one.ids.index(special.image)))
    return Batch(
        ids=ids,
        codes=codes,
        canvases=np.array(canvases, np.int64).reshape(-1, _NUM_CODES),
        seen_at=np.array(seen_at, np.int64).reshape(-1, 2),
        words=words,
        drawn=drawn,
        twins=np.array(twins, np.int64).reshape(-1, 2),
    )


def _without_text(drawing: Exercise, special: SpecialTokens) -> Exercise:
    pads = [special.pad] * (len(drawing.ids) - 2)
    return replace(drawing, ids=(special.bos, *pads, special.boi))


def batches(folder: Path, seed: Sequence[int]) -> Iterator[Batch]:
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Losses:
    """Mean cross-entropies of a batch, and how often the likeliest token was right."""

    words: Tensor
    codes: Tensor
    guided: Tensor  # of codes, under guidance
    patches: Tensor  # of the codes of the patches that are looked at

    @property
    def by_name(self) -> dict[str, Tensor]:
        return {
            "words": self.words,
            "codes": self.codes,
            "guided codes": self.guided,
            "patches": self.patches,
        }

    @property
    def total(self) -> Tensor:
        return self.words + self.codes + _GUIDED_SHARE * self.guided + self.patches


def losses_of(
    model: "JanusForConditionalGeneration",
    probe: torch.nn.Module,
    batch: Batch,
    generator: torch.Generator,
) -> Losses:
    """Run the model over a batch.

    `probe` reads a patch's code off its features. It is no part of the model: it makes the vision
    tower see early, when the language model still does better by believing what it is told.
    """
    device = model.device
    ids, codes = torch.from_numpy(batch.ids).to(device), torch.from_numpy(batch.codes).to(device)
    is_code = codes >= 0
    embeds = model.get_input_embeddings()(ids)
    embeds[is_code] = model.prepare_embeddings_for_image_generation(codes[is_code])
    patches = embeds.new_zeros(())
    if len(batch.canvases):
        pixels = shown(model, batch.canvases, generator)
        features = model.model.get_image_features(pixels).pooler_output
        rows = torch.from_numpy(batch.seen_at[:, :1]).to(device)
        places = torch.from_numpy(batch.seen_at[:, 1:]) + torch.arange(_NUM_CODES)
        embeds[rows, places.to(device)] = features
        canvases = torch.from_numpy(batch.canvases).to(device)
        patches = cross_entropy(probe(features).flatten(0, 1), canvases.flatten())
    hidden = model.model.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
    return Losses(
        words=_loss(model.lm_head, hidden, batch.words),
        codes=_loss(model.model.generation_head, hidden, batch.drawn),
        guided=_guided_loss(model.model.generation_head, hidden, batch),
        patches=patches,
    )


def _loss(head: torch.nn.Module, hidden: Tensor, targets: Ints) -> Tensor:
    wanted = torch.from_numpy(targets).to(hidden.device)
    is_wanted = wanted != _IGNORED
    if not is_wanted.any():
        return hidden.new_zeros(())
    return cross_entropy(head(hidden[is_wanted]), wanted[is_wanted])


def _guided_loss(head: torch.nn.Module, hidden: Tensor, batch: Batch) -> Tensor:
    """What the guided sum of both branches gets wrong.

    Guidance multiplies every difference between the branches, those between hopeless codes too,
    which nothing else trains: without this a code that both hold for impossible is drawn now and
    then.
    """
    if not len(batch.twins):
        return hidden.new_zeros(())
    wanted = torch.from_numpy(batch.drawn[batch.twins[:, 0]]).to(hidden.device)
    is_wanted = wanted != _IGNORED
    cond, uncond = (
        head(hidden[torch.from_numpy(rows).to(hidden.device)][is_wanted]) for rows in batch.twins.T
    )
    return cross_entropy(guide(cond, uncond, _CFG_WEIGHT), wanted[is_wanted])


def shown(
    model: "JanusForConditionalGeneration", canvases: Ints, generator: torch.Generator
) -> Tensor:
    """Pictures of canvases as the model looks at them, float [pictures, 3, 48, 48], -1 to 1."""
    pixels = torch.from_numpy(tile_all(canvases)).permute(0, 3, 1, 2).float() / 127.5 - 1
    coarse = torch.randn(len(pixels), 3, ROWS, COLUMNS, generator=generator) * _PATCH_NOISE
    pixels += torch.nn.functional.interpolate(coarse, size=pixels.shape[-2:])
    pixels += torch.randn(pixels.shape, generator=generator) * _PIXEL_NOISE
    pixels = pixels.clamp(-1, 1).to(model.device)
    num_decoded = round(len(canvases) * _DECODED_SHARE)
    if num_decoded:
        tokens = torch.from_numpy(canvases[:num_decoded]).to(model.device)
        with torch.no_grad():
            decoded = model.decode_image_tokens(tokens).permute(0, 3, 1, 2).float()
        quantised = ((decoded + 1) / 2 * 255).clamp(0, 255).to(torch.uint8)
        pixels[:num_decoded] = quantised.float() / 127.5 - 1
    return pixels


def rate_at(step: int, num_steps: int, *, peak: float) -> float:
    """The learning rate: a short rise, then along a cosine down to nearly nothing."""
    warm = max(1, min(200, num_steps // 20))
    if step < warm:
        return peak * (step + 1) / warm
    done = (step - warm) / max(1, num_steps - warm)
    return peak * (0.5 * (1 + math.cos(math.pi * done)) * 0.995 + 0.005)
