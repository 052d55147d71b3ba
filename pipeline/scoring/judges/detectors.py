"""Detectors behind one port: asked for nouns, they give boxes with scores.

GroundingDINO reads all nouns as one text, and a noun's score is the mean over its own tokens: the
stock post-processing makes labels of tokens over a threshold, glued across nouns. OWLv2 reads every
noun by itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np

from pipeline.pictures import Pixels
from pipeline.scoring.formulae.detection_rewards import Query
from pipeline.scoring.formulae.modes import Mode
from pipeline.scoring.formulae.phrases import (
    FloatArray,
    Span,
    phrase_scores,
    published_phrase_scores,
)
from pipeline.scoring.judges.batches import grouped
from pipeline.scoring.judges.loading import load_image_processor, load_model, load_tokenizer
from pipeline.scoring.judges.outcomes import Outcome
from pipeline.scoring.judges.picture_reader import PictureReader
from schemas.errors import InputError

if TYPE_CHECKING:
    from transformers import BatchEncoding

Queries: TypeAlias = list[Query] | None
"""What was seen of one noun; None: the noun did not fit into what the model reads."""


DetectorKind: TypeAlias = Literal["grounding-dino", "owlv2"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A picture, and the nouns to look for in it."""

    pixels: Pixels
    nouns: Sequence[str]


class Detector(Protocol):
    """Looks for nouns in pictures."""

    def start(self, pictures: Sequence[Pixels]) -> None:
        """Begin to read pictures that are shown soon."""
        ...

    def detect(self, wanted: Sequence[Wanted]) -> list[list[Queries]]:
        """All queries of each noun of each picture, of any score; a number that the model did not
        give is not a number here either.
        """
        ...


class GroundingDino:
    """Liu et al. 2023."""

    def __init__(self, folder: Path, *, dtype: str, device: str, mode: Mode) -> None:
        from transformers import GroundingDinoForObjectDetection, GroundingDinoImageProcessorPil

        self._model = load_model(GroundingDinoForObjectDetection, folder, dtype, device)
        self._tokenizer = load_tokenizer(folder)
        processor = load_image_processor(GroundingDinoImageProcessorPil, folder)
        self._reader = PictureReader(processor, on_device=True)
        self.start = self._reader.start
        self._score = phrase_scores if mode is Mode.FIXED else published_phrase_scores
        self._max_tokens: int = self._model.config.max_text_len

    def detect(self, wanted: Sequence[Wanted]) -> list[list[Queries]]:
        texts = [detection_text(picture.nouns) for picture in wanted]
        encodings = [
            self._tokenizer(text, truncation=True, max_length=self._max_tokens) for text in texts
        ]
        # Texts and pictures of one size need no padding, which would change the last digits.
        keys = [
            (len(encoding["input_ids"]), picture.pixels.shape)
            for encoding, picture in zip(encodings, wanted, strict=True)
        ]
        results: list[list[Queries]] = [[] for _ in wanted]
        for indices in grouped(keys):
            outputs = self._run(
                [wanted[index].pixels for index in indices],
                [encodings[index] for index in indices],
            )
            for index, (probabilities, boxes) in zip(indices, outputs, strict=True):
                nouns = wanted[index].nouns
                spans = word_spans(nouns, encodings[index])
                results[index] = [
                    None
                    if noun.scores is None
                    else [_query(score, box) for score, box in zip(noun.scores, boxes, strict=True)]
                    for noun in self._score(nouns, spans, probabilities)
                ]
        return results

    def _run(
        self, pictures: Sequence[Pixels], encodings: "Sequence[BatchEncoding]"
    ) -> list[tuple[FloatArray, FloatArray]]:
        """Of each picture the probabilities [queries, tokens] and the boxes [queries, 4]."""
        import torch

        model = self._model
        pixels = self._reader.read(pictures, model)  # of one size, so none is padded
        mask = torch.ones(len(pixels), *pixels.shape[2:], dtype=torch.long, device=model.device)
        tokens = {
            name: torch.tensor([encoding[name] for encoding in encodings], device=model.device)
            for name in ("input_ids", "token_type_ids", "attention_mask")
        }
        with torch.inference_mode():
            outputs = model(pixel_values=pixels, pixel_mask=mask, **tokens)
        # Beyond the text the logits are -inf; the sigmoid makes them 0, and no span reaches there.
        probabilities = outputs.logits.double().sigmoid().cpu().numpy()
        return list(zip(probabilities, outputs.pred_boxes.double().cpu().numpy(), strict=True))


def _query(score: float, box: FloatArray) -> Query:
    cx, cy, w, h = map(float, box)
    return score, cx, cy, w, h


def detection_text(nouns: Sequence[str]) -> str:
    """`dog . roll of paper.`: nouns do not see each other across the stops."""
    return " . ".join(map(str.lower, nouns)) + "."


def word_spans(nouns: Sequence[str], encoding: "BatchEncoding") -> list[list[Span]]:
    """The tokens of each word of each noun in their detection text; empty where it was cut off."""
    spans: list[list[Span]] = []
    start = 0
    for noun in map(str.lower, nouns):
        words: list[Span] = []
        at = start
        for word in noun.split():
            at = start + noun.index(word, at - start)
            words.append(_span(encoding, at, at + len(word)))
            at += len(word)
        spans.append(words)
        start += len(noun) + len(" . ")
    return spans


def _span(encoding: "BatchEncoding", start: int, stop: int) -> Span:
    """The tokens of these characters: those that are any token's, the tokenizer drops the rest."""
    tokens = [
        token for at in range(start, stop) if (token := encoding.char_to_token(at)) is not None
    ]
    return (tokens[0], tokens[-1] + 1) if tokens else (0, 0)


class Owlv2:
    """Minderer et al. 2023. A noun's score is the sigmoid of its own logit."""

    def __init__(self, folder: Path, *, dtype: str, device: str) -> None:
        if find_spec("scipy") is None:  # its image processor resizes with it
            raise InputError(
                "OWLv2 needs scipy, which is not installed: pip install 'coppice[judges]'"
            )
        from transformers import Owlv2ForObjectDetection, Owlv2ImageProcessorPil

        self._model = load_model(Owlv2ForObjectDetection, folder, dtype, device)
        self._tokenizer = load_tokenizer(folder)
        self._reader = PictureReader(load_image_processor(Owlv2ImageProcessorPil, folder))
        self.start = self._reader.start
        config: Any = self._model.config  # its annotation allows for less than it has
        self._max_tokens: int = config.text_config.max_position_embeddings

    def detect(self, wanted: Sequence[Wanted]) -> list[list[Queries]]:
        results: list[list[Queries]] = [[] for _ in wanted]
        keys = [(len(picture.nouns), picture.pixels.shape) for picture in wanted]
        for indices in grouped(keys):
            logits, boxes = self._run([wanted[index] for index in indices])
            for index, own_logits, own_boxes in zip(indices, logits, boxes, strict=True):
                scores = 1 / (1 + np.exp(-own_logits))
                shape = wanted[index].pixels.shape
                results[index] = [
                    as_queries(column, own_boxes, width=shape[1], height=shape[0])
                    for column in scores.T
                ]
        return results

    def _run(self, wanted: Sequence[Wanted]) -> tuple[FloatArray, FloatArray]:
        """Logits [pictures, queries, nouns] and boxes [pictures, queries, 4] of a padded square."""
        import torch

        model = self._model
        pixels = self._reader.read([picture.pixels for picture in wanted], model)
        tokens = self._tokenizer(
            [noun for picture in wanted for noun in picture.nouns],
            padding="max_length",
            max_length=self._max_tokens,
            truncation=True,
            return_tensors="pt",
        ).to(model.device)
        with torch.inference_mode():
            outputs = model(
                pixel_values=pixels,
                input_ids=tokens["input_ids"],
                attention_mask=tokens["attention_mask"],
            )
        logits: FloatArray = outputs.logits.double().cpu().numpy()
        boxes: FloatArray = outputs.pred_boxes.double().cpu().numpy()
        return logits, boxes


def load_detector(
    kind: DetectorKind, folder: Path, dtype: str, device: str, mode: Mode = Mode.FIXED
) -> Detector:
    """The detector of a folder, with its weights. Raises InputError."""
    if kind == "owlv2":
        return Owlv2(folder, dtype=dtype, device=device)
    return GroundingDino(folder, dtype=dtype, device=device, mode=mode)


def seen_by(detector: Detector, wanted: Sequence[Wanted]) -> list[list[list[Query]] | Outcome]:
    """What is seen of each noun of each picture, or why that is nothing to go by."""
    return [_whole(of_nouns) for of_nouns in detector.detect(wanted)]


def _whole(seen: Sequence[Queries]) -> list[list[Query]] | Outcome:
    queries = [of_noun for of_noun in seen if of_noun is not None]
    if len(queries) < len(seen):
        return Outcome.TOO_LONG
    is_finite = all(math.isfinite(number) for rows in queries for row in rows for number in row)
    return queries if is_finite else Outcome.NOT_FINITE


def as_queries(
    scores: FloatArray, boxes: FloatArray, *, width: float, height: float
) -> list[Query]:
    """Queries in shares of the picture, from boxes in shares of the square that it was padded to.

    The picture lies in the square's upper left corner.
    """
    side = max(width, height)
    factors = np.array([side / width, side / height] * 2)
    return [_query(float(score), box) for score, box in zip(scores, boxes * factors, strict=True)]
