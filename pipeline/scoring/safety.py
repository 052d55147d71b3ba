"""Filters for what should not be in a set: scorers like others, 1 to pass and 0 to be left out.

What ships is small: a list of English words for prompts, and a look for blank pictures. A model
plugs in as `coppice score RUN --scorer my_module:MyFilter`, under a name and version of its own.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

from pipeline.prompts.language import is_english
from pipeline.scoring.scorers import TRACE, Score, ScoringInput
from pipeline.scoring.text_checks import words_of
from schemas.scores import ColumnType

_FLAT_LEVELS = 2.0  # of 255: below this spread a picture is one colour, as blacked-out ones are


class PromptFilter:
    """0 where a prompt has a word of the list, and None for what is not in English."""

    name = "prompt_filter"
    version = "1"
    subjects = frozenset({TRACE})
    needs_pictures = False
    columns: Mapping[str, ColumnType] = {"value": "float32"}

    def score(self, batch: Sequence[ScoringInput]) -> list[Score]:
        return [self._score(scoring_input.prompt) for scoring_input in batch]

    def _score(self, prompt: str) -> Score:
        if not listed_words().isdisjoint(words_of(prompt)):
            return Score(value=0.0)
        return Score(value=1.0 if is_english(prompt) else None)


class PictureFilter:
    """0 for a picture of one colour; of all others None, since no model has looked at them."""

    name = "picture_filter"
    version = "1"
    subjects = frozenset({TRACE})
    needs_pictures = True
    columns: Mapping[str, ColumnType] = {"value": "float32"}

    def score(self, batch: Sequence[ScoringInput]) -> list[Score]:
        pictures = [scoring_input.pixels for scoring_input in batch]
        flat = [pixels is not None and pixels.std() < _FLAT_LEVELS for pixels in pictures]
        return [Score(value=0.0 if is_flat else None) for is_flat in flat]


@cache
def listed_words() -> frozenset[str]:
    """The words that no prompt of a set should have."""
    text = (files("pipeline.scoring") / "unwanted_words.txt").read_text(encoding="utf-8")
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return frozenset(filter(None, lines))
