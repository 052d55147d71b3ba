"""Questions about what a prompt asks for, each answered with P(yes) by an endpoint's model.

After Soft-TIFA (GenEval 2, arXiv 2512.16853): the mean of the questions' probabilities, where TIFA
counts answers. The questions follow from the prompt's spec, or are the model's own.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.endpoints.answers import Completion
from pipeline.endpoints.chat import Schema
from pipeline.pictures import Pixels
from pipeline.scoring.formulae.answers import yes_share
from pipeline.scoring.judges.outcomes import Judgement, Outcome, View
from pipeline.scoring.judges.questions import spec_of
from pipeline.scoring.judges.remote.judge import Judging, RemoteJudge, by_schema
from pipeline.scoring.judges.remote.settings import RemoteSettings
from pipeline.scoring.judges.remote.yes import YesQuestions
from pipeline.scoring.scorers import TorchDevice
from schemas.scores import ColumnType
from schemas.specs import AttributeKind, PromptSpec

ASK = (
    "A picture is to be made for this prompt: {prompt}\n"
    "Write the yes-or-no questions that tell whether a picture shows all of it: one for each "
    "object, number, property and relation, each about one thing alone, each answered with yes by "
    "a picture that is right. Answer with a JSON object with one key: questions, a list of texts."
)
_ANSWER = " Answer yes or no."
_MOST_QUESTIONS = 24
_SCHEMA = Schema(
    name="questions",
    body={
        "type": "object",
        "properties": {"questions": {"type": "array", "items": {"type": "string"}}},
        "required": ["questions"],
        "additionalProperties": False,
    },
)


class _Questions(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    questions: list[str] = Field(max_length=_MOST_QUESTIONS)


class SoftTifaSettings(RemoteSettings):
    questions: Literal["spec", "model"] = "spec"
    mean: Literal["arithmetic", "geometric"] = "arithmetic"


class SoftTifa(RemoteJudge[SoftTifaSettings]):
    """The mean P(yes) over the questions; null where one of them has no answer."""

    name = "soft_tifa"
    own_columns: ClassVar[Mapping[str, ColumnType]] = {"weakest": "float32", "answers": "string"}
    Settings = SoftTifaSettings

    def load(self, device: TorchDevice) -> None:
        super().load(device)
        self._asking = {judging: YesQuestions(judging) for judging in self._endpoints}

    def judge(self, judging: Judging, views: Sequence[View]) -> Sequence[Judgement]:
        questions = self._questions(judging, views)
        asked: list[tuple[str, Sequence[Pixels]]] = [
            (question + _ANSWER, [view.pixels])
            for view, of_view in zip(views, questions, strict=True)
            for question in of_view
        ]
        answers = iter(self._asking[judging].ask(asked))
        judgements = []
        for of_view in questions:
            shares: dict[str, float | None] = {}
            for question in of_view:
                answer = next(answers)
                shares[question] = None if isinstance(answer, Outcome) else yes_share(answer)
            judgements.append(_judgement(shares, self.settings.mean))
        return judgements

    def _questions(self, judging: Judging, views: Sequence[View]) -> list[Sequence[str]]:
        if self.settings.questions == "spec":
            specs = [spec_of(view) for view in views]
            return [[] if spec is None else list(questions_about(spec)) for spec in specs]
        prompts = sorted({view.prompt for view in views})
        requests = [
            self.question(ASK.replace("{prompt}", prompt), number=number, schema=_SCHEMA)
            for number, prompt in enumerate(prompts)
        ]
        answers = dict(zip(prompts, by_schema(judging, requests), strict=True))
        return [_read(answers[view.prompt]) for view in views]


def questions_about(spec: PromptSpec) -> Iterator[str]:
    """One about each object, number, property that shows, and relation."""
    for shown in spec.objects:
        if shown.count is None or shown.count == 1:
            yield f"Does the picture show a {shown.noun}?"
        else:
            yield f"Does the picture show exactly {shown.count} of these: {shown.noun}?"
        for attribute in shown.attributes:
            if attribute.kind is not AttributeKind.QUALITY:
                yield f"Is the {shown.noun} in the picture {attribute.value}?"
    for relation in spec.relations:
        subject = spec.objects[relation.subject].phrase
        index = relation.object
        target = "" if index is None else f" - the {spec.objects[index].phrase}"
        yield f"Is this so in the picture: the {subject} - {relation.relation}{target}?"


def _read(answer: Completion | Outcome) -> list[str]:
    """The model's questions; none if it gave none that can be read."""
    if not isinstance(answer, Completion):
        return []
    try:
        asked = _Questions.model_validate_json(answer.text).questions
    except ValidationError:
        return []
    return list(dict.fromkeys(question.strip() for question in asked if question.strip()))


def _judgement(shares: Mapping[str, float | None], mean: str) -> Judgement:
    if not shares:
        return Judgement.without(Outcome.NOTHING_ASKED)
    told = [share for share in shares.values() if share is not None]
    parts = {"answers": json.dumps(shares, ensure_ascii=False)}
    if len(told) < len(shares):
        return Judgement(value=None, outcome=Outcome.REFUSED, parts=parts)
    value = math.prod(told) ** (1 / len(told)) if mean == "geometric" else sum(told) / len(told)
    return Judgement(value=value, parts={**parts, "weakest": min(told)})
