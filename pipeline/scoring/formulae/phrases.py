"""How sure a detector is that a box shows a noun: from scores of tokens to scores of nouns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]

Span: TypeAlias = tuple[int, int]
"""Tokens of a word, the end excluded; an empty one is a word that the token limit cut off."""

_EPSILON = 1e-6  # of the published mean


@dataclass(frozen=True, kw_only=True, slots=True)
class PhraseScores:
    """The scores of a noun, one a query."""

    label: str
    scores: tuple[float, ...] | None  # None: no token of it was read


def phrase_scores(
    nouns: Sequence[str], words: Sequence[Sequence[Span]], probabilities: FloatArray
) -> list[PhraseScores]:
    """The mean probability over the tokens of all words of each noun.

    `words` are the spans of each noun's words, `probabilities` [queries, tokens] after the sigmoid.
    """
    return [
        PhraseScores(label=noun, scores=_mean(probabilities, tokens))
        for noun, tokens in zip(nouns, map(_tokens, words), strict=True)
    ]


def published_phrase_scores(
    nouns: Sequence[str], words: Sequence[Sequence[Span]], probabilities: FloatArray
) -> list[PhraseScores]:
    """T2I-R1's: the tokens of the first and the last word only, which are the label too; so a noun
    of three words never equals its label.
    """
    scored: list[PhraseScores] = []
    for noun, spans in zip(nouns, words, strict=True):
        tokens = _tokens([*spans[:1], *spans[1:][-1:]])
        sums = _columns(probabilities, tokens).sum(axis=1) / (len(tokens) + _EPSILON)
        scored.append(PhraseScores(label=published_label(noun), scores=tuple(map(float, sums))))
    return scored


def published_label(noun: str) -> str:
    """`roll of paper` is called `roll paper`."""
    words = noun.split()
    return noun if len(words) < 2 else f"{words[0]} {words[-1]}"


def _tokens(spans: Sequence[Span]) -> list[int]:
    return [token for start, stop in spans for token in range(start, stop)]


def _mean(probabilities: FloatArray, tokens: Sequence[int]) -> tuple[float, ...] | None:
    if not tokens:
        return None
    return tuple(map(float, _columns(probabilities, tokens).mean(axis=1)))


def _columns(probabilities: FloatArray, tokens: Sequence[int]) -> FloatArray:
    """[queries, these tokens], also where there is no query."""
    if not len(probabilities):
        return np.zeros((0, len(tokens)))
    return probabilities[:, tokens]
