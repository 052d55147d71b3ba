"""From what a model answers to a score: yes or no, one question or several, and a likeness."""

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.scoring.formulae.phrases import FloatArray

YesNo: TypeAlias = tuple[float, float]
"""The probabilities of yes and of no, of all that could be answered."""

ANSWER_FLOOR = 0.1
"""With less than that on yes and no together, the model answered something else."""

_NOT_ASKED = ("spatial", "numeracy")  # of GIT: it cannot tell where, nor how many
_MOST_CHUNKS = 8
_PUBLISHED_PLACES = frozenset({"top", "the side", "the left", "the right"})
_PLACES = frozenset(
    {"top", "bottom", "side", "left", "right", "front", "back", "middle", "center", "centre"}
)


def yes_share(answer: YesNo) -> float | None:
    """P(yes) of yes and no, 0 to 1; None where the model answered something else."""
    yes, no = answer
    return yes / (yes + no) if yes + no >= ANSWER_FLOOR else None


def published_yes_share(answer: YesNo) -> float:
    """P(yes) of yes and no, however little both have; not a number if they have nothing."""
    yes, no = answer
    return yes / (yes + no) if yes + no else math.nan


def yes_no_of_logits(vocabulary: Sequence[str], logits: FloatArray) -> YesNo:
    """The mass of all spellings of yes and of no: `Yes`, ` yes`. Logits of all tokens, any base."""
    return _spelled(vocabulary, _softmax(logits))


def yes_no_of_logprobs(vocabulary: Sequence[str], logprobs: Sequence[float]) -> YesNo:
    """The same from the log-probabilities of the top few; what is not listed has no mass."""
    return _spelled(vocabulary, np.exp(np.asarray(logprobs, np.float64)))


def is_spelling(token: str, word: str) -> bool:
    """Whether a token's text is this word, white space and capitals aside."""
    return token.strip().lower() == word


def published_yes_no(
    vocabulary: Sequence[str], logits: FloatArray, *, temperature: float, sampled: int
) -> float:
    """T2I-R1's ORM: 0 unless the drawn token is yes or no, however it is capitalised; then P(yes)
    of the lower-case tokens alone, sharpened by the temperature.
    """
    if vocabulary[sampled].lower() not in ("yes", "no"):
        return 0.0
    probabilities = _softmax(np.asarray(logits, np.float64) / temperature)
    yes, no = (
        float(probabilities[vocabulary.index(word)]) if word in vocabulary else 0.0
        for word in ("yes", "no")
    )
    return published_yes_share((yes, no))


def phrase_answers(
    task_type: str, nouns: Sequence[YesNo], attr_nouns: Sequence[YesNo] | None
) -> float | None:
    """The mean P(yes) over phrases that were asked for: those with attributes, or else the nouns.

    None for tasks that it cannot judge, and where nothing was answered.
    """
    if task_type in _NOT_ASKED:
        return None
    shares = [yes_share(answer) for answer in (attr_nouns or nouns)]
    told = [share for share in shares if share is not None]
    return sum(told) / len(told) if told else None


def published_phrase_answers(
    task_type: str, nouns: Sequence[YesNo], attr_nouns: Sequence[YesNo] | None
) -> float:
    """T2I-R1's GIT reward: 0 for tasks that it cannot judge, 1 where there is nothing to ask, and
    not a number for attributes that are there and empty.
    """
    if task_type in _NOT_ASKED:
        return 0.0
    if attr_nouns is None and not nouns:
        return 1.0
    shares = [
        published_yes_share(answer) for answer in (nouns if attr_nouns is None else attr_nouns)
    ]
    return sum(shares) / len(shares) if shares else math.nan


def chunks_asked(chunks: Sequence[str]) -> list[int]:
    """Which noun chunks BLIP-VQA is to be asked about: all but bare places."""
    return [
        index
        for index, chunk in enumerate(chunks)
        if chunk.strip().lower().removeprefix("the ") not in _PLACES
    ]


def published_chunks_asked(chunks: Sequence[str]) -> list[int]:
    """Which of them T2I-CompBench asks about: the first eight that are not of its four places."""
    asked = [index for index, chunk in enumerate(chunks) if chunk not in _PUBLISHED_PLACES]
    return asked[:_MOST_CHUNKS]


def chunk_product(answers: Sequence[YesNo]) -> float | None:
    """The product of P(yes) over the chunks asked about; None if there are none, or if the model
    answered something else to any.
    """
    product = 1.0
    for answer in answers:
        share = yes_share(answer)
        if share is None:
            return None
        product *= share
    return product if answers else None


def published_chunk_product(answers: Sequence[YesNo]) -> float:
    """T2I-CompBench's BLIP-VQA: each P(yes), and their product, is written with four decimals."""
    product = 1.0
    for answer in answers:
        product *= float(f"{published_yes_share(answer):.4f}")
    return float(f"{product:.4f}")


def cosine(image: FloatArray, text: FloatArray) -> float | None:
    """The likeness of two embeddings, -1 to 1, without a logit scale; None for a zero vector."""
    norms = float(np.linalg.norm(image)) * float(np.linalg.norm(text))
    return float(np.dot(image, text)) / norms if norms else None


def published_cosine(image: FloatArray, text: FloatArray) -> float:
    """The same, 0 for a zero vector."""
    return cosine(image, text) or 0.0


def _spelled(vocabulary: Sequence[str], probabilities: FloatArray) -> YesNo:
    yes, no = (
        math.fsum(
            float(probability)
            for token, probability in zip(vocabulary, probabilities, strict=True)
            if is_spelling(token, word)
        )
        for word in ("yes", "no")
    )
    return yes, no


def _softmax(logits: FloatArray) -> npt.NDArray[np.float64]:
    shifted = np.asarray(logits, np.float64)
    powers = np.exp(shifted - shifted.max())
    probabilities: npt.NDArray[np.float64] = powers / powers.sum()
    return probabilities
