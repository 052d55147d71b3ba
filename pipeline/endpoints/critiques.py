"""A critique as JSON: the schema that it is asked by, and back into the form of the question.

The template packs ask for `SCORE: n` and `IMPROVED_DESCRIPTION: ...`, and that is what programs and
trainers read. Where a server holds answers to a schema, the same two things come as JSON, which no
model gets wrong, and are written in that form again. Nothing else is in the JSON, so nothing is
lost.
"""

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.endpoints.chat import Schema
from pipeline.twig.reflections import single_line

CRITIQUE = Schema(
    name="critique",
    body={
        "type": "object",
        "properties": {
            "score": {"type": "integer", "minimum": 0, "maximum": 100},
            "improved_description": {"type": "string"},
        },
        "required": ["score", "improved_description"],
        "additionalProperties": False,
    },
)

IN_JSON = (
    "Give these as a JSON object with two keys: score, a whole number from 0 to 100, and "
    "improved_description, a text."
)
"""What a question by the schema ends with."""


class _Critique(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    score: int = Field(ge=0, le=100)
    improved_description: str


def as_asked(answer: str) -> str:
    """A critique in JSON as the question's own form; what is none, as it came."""
    try:
        critique = _Critique.model_validate_json(answer)
    except ValidationError:
        return answer
    return (
        f"SCORE: {critique.score}\n"
        f"IMPROVED_DESCRIPTION: {single_line(critique.improved_description)}"
    )
