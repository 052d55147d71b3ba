"""What came of asking a judge. Whatever is not a score has a name, and is never a number."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import AfterValidator

from pipeline.pictures import Pixels
from pipeline.scoring.scorers import Score, ScoringInput
from schemas.json_values import JsonMapping
from schemas.rows import ScoreValue
from schemas.scores import ColumnType

OUTCOME = "outcome"
"""The column of a judge's sidecar that says why there is no value, or `ok`."""

Look: TypeAlias = Literal["trace", "draw", "crop"]
"""What a judge looks at: the finished picture; the canvas after each drawing, against the prompt;
or each region alone, against the thought that it was drawn from."""


def _checked_question(question: str) -> str:
    if "{prompt}" not in question:
        raise ValueError("expected a question that has {prompt} in it")
    return question


PromptQuestion: TypeAlias = Annotated[str, AfterValidator(_checked_question)]
"""What a judge asks about a picture, with the prompt's place in it."""


class Outcome(StrEnum):
    """What came of one picture."""

    OK = "ok"
    NO_PICTURE = "no_picture"  # none was kept, and none could be painted
    UNREADABLE = "unreadable_picture"  # not RGB of at least one pixel
    NOTHING_ASKED = "nothing_asked"  # the prompt names nothing that this judge could look for
    NOT_APPLICABLE = "not_applicable"  # it names something that this judge cannot tell
    REFUSED = "refused"  # the model answered something else than yes or no
    TOO_LONG = "too_long"  # the question does not fit
    NOT_FINITE = "not_finite"  # the model gave no number
    FAILED = "failed"  # its server failed at this question, and answers others


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A picture, and what it was to show."""

    pixels: Pixels
    prompt: str
    metadata: JsonMapping = field(default_factory=dict)
    """Of the record; of a region alone nothing."""

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        return self.pixels.shape[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What a judge says of one view: a value, or why there is none."""

    value: float | None
    outcome: Outcome = Outcome.OK
    parts: Mapping[str, ScoreValue] = field(default_factory=dict)

    @classmethod
    def without(cls, outcome: Outcome) -> "Judgement":
        return cls(value=None, outcome=outcome)

    def as_score(self) -> Score:
        """A value that is no finite number becomes an outcome, and so does a part."""
        numbers = [self.value, *self.parts.values()]
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            return Judgement.without(Outcome.NOT_FINITE).as_score()
        return Score(value=self.value, parts={**self.parts, OUTCOME: self.outcome.value})


def view_of(scoring_input: ScoringInput, look: Look) -> View | Outcome:
    """What is to be looked at, or why nothing can be."""
    is_crop = look == "crop"
    pixels = scoring_input.crop if is_crop else scoring_input.pixels
    if pixels is None:
        return Outcome.NO_PICTURE
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size or pixels.dtype != np.uint8:
        return Outcome.UNREADABLE
    if not is_crop:
        prompt, metadata = scoring_input.prompt, scoring_input.metadata
        return View(pixels=pixels, prompt=prompt, metadata=metadata)
    return View(pixels=pixels, prompt=scoring_input.thought or scoring_input.prompt)


def columns_with(*numbers: str, **others: ColumnType) -> Mapping[str, ColumnType]:
    """The columns of a judge's sidecar: its value, the outcome, these numbers, and others."""
    columns: dict[str, ColumnType] = {"value": "float32", OUTCOME: "string"}
    return {**columns, **dict.fromkeys(numbers, "float32"), **others}
