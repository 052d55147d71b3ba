"""What came of asking a judge. Whatever is not a score has a name, and is never a number."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, TypeAlias

import numpy as np

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


def judged(
    batch: Sequence[ScoringInput],
    look: Look,
    batch_size: int,
    judge: Callable[[Sequence[View]], Sequence[Judgement]],
) -> list[Score]:
    """Ask a judge about what can be looked at, so many pictures at once; one score an input.

    A value that is no finite number becomes an outcome, and so does a part.
    """
    judgements: list[Judgement | None] = [None] * len(batch)
    views: list[View] = []
    seen: list[int] = []
    for index, scoring_input in enumerate(batch):
        view = view_of(scoring_input, look)
        if isinstance(view, Outcome):
            judgements[index] = Judgement.without(view)
        else:
            views.append(view)
            seen.append(index)
    for start in range(0, len(views), batch_size):
        some_views = views[start : start + batch_size]
        told = judge(some_views)
        for index, judgement in zip(seen[start : start + batch_size], told, strict=True):
            judgements[index] = judgement
    return [_as_score(judgement) for judgement in judgements if judgement is not None]


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


def subjects_of_look(look: Look) -> frozenset[str]:
    """What a judge that looks so is asked about."""
    return frozenset({"draw" if look == "crop" else look})


def columns_with(*names: str) -> Mapping[str, ColumnType]:
    """The columns of a judge's sidecar: its value, the outcome, and these numbers."""
    columns: dict[str, ColumnType] = {"value": "float32", OUTCOME: "string"}
    return {**columns, **dict.fromkeys(names, "float32")}


def _as_score(judgement: Judgement) -> Score:
    numbers = [judgement.value, *judgement.parts.values()]
    if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
        judgement = Judgement.without(Outcome.NOT_FINITE)
    parts = {**judgement.parts, OUTCOME: judgement.outcome.value}
    return Score(value=judgement.value, parts=parts)
