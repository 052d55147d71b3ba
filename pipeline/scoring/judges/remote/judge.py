"""What judges behind endpoints have in common: a client each, questions all at once, and a second
opinion where it is wanted.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, TypeVar

from pipeline.endpoints.answers import Completion
from pipeline.endpoints.chat import ChatRequest, Schema
from pipeline.endpoints.client import EndpointClient, Reply, answered
from pipeline.endpoints.facts import ServerFacts
from pipeline.endpoints.opening import open_client
from pipeline.pictures import Pixels
from pipeline.scoring.judges.outcomes import OUTCOME, Judgement, Outcome, View, view_of
from pipeline.scoring.judges.remote.settings import RemoteSettings
from pipeline.scoring.scorers import Score, ScoringInput, TorchDevice
from pipeline.twig.requests import Message
from schemas.config import SamplingConfig
from schemas.errors import RolloutError
from schemas.scores import ColumnType

SettingsT = TypeVar("SettingsT", bound=RemoteSettings)

Answered = Completion | Outcome
"""An answer, or why a question has none."""


@dataclass(frozen=True, slots=True)
class Judging:
    """An endpoint that is asked, and what it turned out to do."""

    client: EndpointClient
    facts: ServerFacts

    def ask(self, requests: Sequence[ChatRequest]) -> list[Answered]:
        """An answer a request, in order. Raises InputError for an endpoint that takes no questions,
        EndpointAway for one that does not answer.
        """
        return [_answered(reply) for reply in self.client.ask_all(requests)]


def _answered(reply: Reply) -> Answered:
    if (answer := answered(reply)) is not None:
        return answer
    is_long = isinstance(reply, RolloutError) and reply.reason == "context"
    return Outcome.TOO_LONG if is_long else Outcome.FAILED


class RemoteJudge(ABC, Generic[SettingsT]):
    """A scorer whose model is behind an endpoint: see `pipeline.scoring.scorers`."""

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    needs_pictures: ClassVar[bool] = True
    own_columns: ClassVar[Mapping[str, ColumnType]]

    def __init__(self, settings: SettingsT) -> None:
        self.settings = settings
        self.subjects = frozenset({"draw" if settings.look == "crop" else settings.look})
        self._endpoints: list[Judging] = []

    @property
    def columns(self) -> Mapping[str, ColumnType]:
        columns: dict[str, ColumnType] = {"value": "float32", OUTCOME: "string"}
        second: dict[str, ColumnType] = {"second": "float32", "disagreement": "float32"}
        return {**columns, **self.own_columns, **(second if self.settings.against else {})}

    def load(self, device: TorchDevice) -> None:
        """Meet the endpoints. Raises InputError, and EndpointAway for one that does not answer."""
        del device
        self._endpoints = [
            Judging(*open_client(name, model, server, self.sampling(), with_picture=True))
            for name, model, server in self.settings.servers()
        ]

    def sampling(self) -> SamplingConfig:
        """How answers are drawn."""
        return SamplingConfig(max_text_tokens=self.settings.max_tokens, with_logp=False)

    @abstractmethod
    def judge(self, judging: Judging, views: Sequence[View]) -> Sequence[Judgement]:
        """What one endpoint says of each view."""

    def score(self, batch: Sequence[ScoringInput]) -> list[Score]:
        """One score an input; a second endpoint is asked the same."""
        judgements: dict[int, Judgement] = {}
        views: dict[int, View] = {}
        for index, scoring_input in enumerate(batch):
            view = view_of(scoring_input, self.settings.look)
            if isinstance(view, View):
                views[index] = view
            else:
                judgements[index] = Judgement.without(view)
        first, *others = (self.judge(judging, [*views.values()]) for judging in self._endpoints)
        told = [_with_second(*pair) for pair in zip(first, *others, strict=True)]
        judgements |= zip(views, told, strict=True)
        return [_as_score(judgements[index]) for index in range(len(batch))]

    def question(
        self,
        text: str,
        pictures: Sequence[Pixels] = (),
        *,
        number: int,
        schema: Schema | None = None,
    ) -> ChatRequest:
        """A question about pictures, answered as the likeliest words go."""
        return ChatRequest(
            messages=(Message(role="user", text=text),),
            pictures=pictures,
            temperature=0.0,
            max_tokens=self.settings.max_tokens,
            schema=schema,
            request_id=f"coppice-{self.name}-{number}",
        )


def by_schema(judging: Judging, requests: Sequence[ChatRequest]) -> list[Answered]:
    """The answers, held to each request's schema where the server holds them to it."""
    if not judging.facts.binds_schema:
        requests = [replace(request, schema=None) for request in requests]
    return judging.ask(requests)


def _with_second(judgement: Judgement, second: Judgement | None = None) -> Judgement:
    """The first one's word, and how far the second's is from it; null where one has none."""
    if second is None:
        return judgement
    differs = (
        None
        if judgement.value is None or second.value is None
        else abs(judgement.value - second.value)
    )
    parts = {**judgement.parts, "second": second.value, "disagreement": differs}
    return replace(judgement, parts=parts)


def _as_score(judgement: Judgement) -> Score:
    return Score(value=judgement.value, parts={**judgement.parts, OUTCOME: judgement.outcome.value})
