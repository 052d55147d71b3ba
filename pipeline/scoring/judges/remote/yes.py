"""P(yes): how likely an endpoint's model is to begin its answer with yes, spellings merged.

Exact where the server tells of tokens by their ids (`logprob_token_ids`, vLLM); elsewhere from the
likeliest twenty. Never from an answer that was held to a choice: then all mass is on the choice.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import BaseModel, ValidationError

from pipeline.endpoints.answers import Completion, Likelihood
from pipeline.endpoints.chat import ChatRequest
from pipeline.endpoints.client import EndpointClient
from pipeline.pictures import Pixels
from pipeline.scoring.formulae.answers import YesNo, yes_no_of_logprobs, yes_share
from pipeline.scoring.judges.outcomes import Judgement, Outcome, PromptQuestion, View
from pipeline.scoring.judges.remote.judge import Answered, Judging, RemoteJudge
from pipeline.scoring.judges.remote.settings import RemoteSettings
from pipeline.scoring.judges.vision_language import ORM_QUESTION
from pipeline.scoring.scorers import TorchDevice
from pipeline.twig.requests import Message
from schemas.config import SamplingConfig
from schemas.scores import ColumnType

SPELLINGS = ("Yes", "yes", "YES", " Yes", " yes", "No", "no", "NO", " No", " no")
_MOST_TOLD = 20  # that servers tell of beside a token


class _Tokens(BaseModel):
    tokens: list[int]


class YesQuestions:
    """Yes-or-no questions to one endpoint, asked in the way that its server can tell most of."""

    def __init__(self, judging: Judging) -> None:
        self._judging = judging
        self._ids = _spelled_ids(judging.client)
        if self._ids and not self._tells_ids():
            self._ids = ()

    @property
    def is_exact(self) -> bool:
        """Whether the server tells of tokens by their ids."""
        return bool(self._ids)

    def ask(self, asked: Sequence[tuple[str, Sequence[Pixels]]]) -> list[YesNo | Outcome]:
        """The mass of yes and of no as the first word, a question; or why there is none."""
        requests = [
            self._request(text, pictures, number) for number, (text, pictures) in enumerate(asked)
        ]
        return [_masses(answer) for answer in self._judging.ask(requests)]

    def _request(self, text: str, pictures: Sequence[Pixels], number: int) -> ChatRequest:
        return ChatRequest(
            messages=(Message(role="user", text=text),),
            pictures=pictures,
            temperature=1.0,
            seed=0,
            max_tokens=1,
            top_logprobs=None if self._ids else _MOST_TOLD,
            logprob_token_ids=self._ids,
            request_id=f"coppice-yes-{number}",
        )

    def _tells_ids(self) -> bool:
        """A server that does not know the field ignores it without a word."""
        request = self._request("Say hello.", (), 0)
        (answer,) = self._judging.ask([request])
        return isinstance(answer, Completion) and len(_told(answer)) >= len(self._ids)


def _spelled_ids(client: EndpointClient) -> tuple[int, ...]:
    """The ids of yes and of no in their spellings; none where the server tokenizes for nobody."""
    ids: dict[int, str] = {}
    for word in SPELLINGS:
        told = client.tokenize(word)
        if told is None:
            return ()
        try:
            tokens = _Tokens.model_validate_json(told).tokens
        except ValidationError:
            return ()
        if len(tokens) == 1:
            ids[tokens[0]] = word.strip().lower()
    return tuple(ids) if {"yes", "no"} <= set(ids.values()) else ()


def _told(answer: Completion) -> list[Likelihood]:
    """What could have stood first. Several tokens may be spelled alike; the one that was drawn
    stands among the others, or not.
    """
    if not answer.likelihoods:
        return []
    first = answer.likelihoods[0]
    others = first.top_logprobs or ()
    drawn = Likelihood(token=first.token, logprob=first.logprob)
    return [*others] if drawn in others else [drawn, *others]


def _masses(answer: Answered) -> YesNo | Outcome:
    if not isinstance(answer, Completion):
        return answer
    told = _told(answer)
    if not told:
        return Outcome.REFUSED
    return yes_no_of_logprobs([each.token for each in told], [each.logprob for each in told])


class YesSettings(RemoteSettings):
    question: PromptQuestion = ORM_QUESTION


class RemoteYes(RemoteJudge[YesSettings]):
    """P(yes) of yes and no to whether a picture shows its prompt (Lin et al. 2024, VQAScore)."""

    name = "lmm_yes"
    own_columns: ClassVar[Mapping[str, ColumnType]] = {"mass": "float32"}  # on yes and no together
    Settings = YesSettings

    def load(self, device: TorchDevice) -> None:
        super().load(device)
        self._questions = {judging: YesQuestions(judging) for judging in self._endpoints}

    def sampling(self) -> SamplingConfig:
        return SamplingConfig(max_text_tokens=1, with_logp=False)

    def judge(self, judging: Judging, views: Sequence[View]) -> Sequence[Judgement]:
        asked = [
            (self.settings.question.replace("{prompt}", view.prompt), [view.pixels])
            for view in views
        ]
        return [_judgement(answer) for answer in self._questions[judging].ask(asked)]


def _judgement(answer: YesNo | Outcome) -> Judgement:
    if isinstance(answer, Outcome):
        return Judgement.without(answer)
    value = yes_share(answer)
    outcome = Outcome.REFUSED if value is None else Outcome.OK
    return Judgement(value=value, outcome=outcome, parts={"mass": min(sum(answer), 1.0)})
