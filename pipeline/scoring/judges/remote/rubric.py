"""A rubric: 0 to 100 points for a picture, with reasons, as an endpoint's model gives them."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.endpoints.answers import Completion
from pipeline.endpoints.chat import Schema
from pipeline.scoring.judges.outcomes import Judgement, Outcome, PromptQuestion, View
from pipeline.scoring.judges.remote.judge import Answered, Judging, RemoteJudge, by_schema
from pipeline.scoring.judges.remote.settings import RemoteSettings
from schemas.scores import ColumnType

QUESTION = (
    "The picture was made for this prompt: {prompt}\n"
    "Judge how well it shows the prompt: every object, its number, its look, and how things stand "
    "to each other; then whether it is well made. Give a few sentences of reasons, and points from "
    "0 (nothing of it) to 100 (nothing could be better). Answer with a JSON object with two keys: "
    "reasons, a text, and points, a whole number."
)
_SCHEMA = Schema(
    name="rubric",
    body={
        "type": "object",
        "properties": {
            "reasons": {"type": "string"},  # first: the points follow from them
            "points": {"type": "integer", "minimum": 0, "maximum": 100},
        },
        "required": ["reasons", "points"],
        "additionalProperties": False,
    },
)


class _Marked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    reasons: str
    points: int = Field(ge=0, le=100)


class RubricSettings(RemoteSettings):
    question: PromptQuestion = QUESTION


class Rubric(RemoteJudge[RubricSettings]):
    """A hundredth of the points; the reasons stand beside them."""

    name = "rubric"
    own_columns: ClassVar[Mapping[str, ColumnType]] = {"reasons": "string"}
    Settings = RubricSettings

    def judge(self, judging: Judging, views: Sequence[View]) -> Sequence[Judgement]:
        requests = [
            self.question(
                self.settings.question.replace("{prompt}", view.prompt),
                [view.pixels],
                number=number,
                schema=_SCHEMA,
            )
            for number, view in enumerate(views)
        ]
        return [_judgement(answer) for answer in by_schema(judging, requests)]


def _judgement(answer: Answered) -> Judgement:
    if not isinstance(answer, Completion):
        return Judgement.without(answer)
    try:
        marked = _Marked.model_validate_json(answer.text)
    except ValidationError:  # what it said is kept, and is no score
        return Judgement(value=None, outcome=Outcome.REFUSED, parts={"reasons": answer.text})
    return Judgement(value=marked.points / 100, parts={"reasons": marked.reasons})
