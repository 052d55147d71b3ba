"""An endpoint as a backend of a run: text questions go out, with the canvas as a picture.

Pictures are painted by who draws, on the thread that drives, all that wait at once; everything else
happens on the client's thread, so that drawing never waits for an answer.
"""

import queue
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from pipeline.endpoints.answers import Completion
from pipeline.endpoints.chat import ChatRequest
from pipeline.endpoints.client import EndpointClient, Reply, usage_of
from pipeline.endpoints.critiques import CRITIQUE, IN_JSON, as_asked
from pipeline.endpoints.facts import ServerFacts
from pipeline.pictures import Painter, Pixels
from pipeline.twig.requests import Canvas, Codes, Message, Request, RequestId, Text, TextAnswer
from schemas.errors import RecordFailure, RolloutError
from schemas.trace import Role

Answered: TypeAlias = tuple[RequestId, TextAnswer | RolloutError]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that waits to go out."""

    request_id: RequestId
    request: Text


class RemoteBackend:
    """Answers `Text`. `submit` and `poll` are for one thread."""

    def __init__(self, client: EndpointClient, facts: ServerFacts, painter: Painter) -> None:
        self.client, self.facts = client, facts
        self._painter = painter
        self._waiting: deque[_Asked] = deque()
        self._num_out = 0
        self._answers: queue.SimpleQueue[tuple[_Asked, Reply]] = queue.SimpleQueue()

    def submit(self, request_id: RequestId, request: Request) -> None:
        assert isinstance(request, Text), f"endpoint {self.client.name} was asked to draw"
        self._waiting.append(_Asked(request_id, request))

    def poll(self) -> Sequence[Answered]:
        """What was answered. Sends as many of those that wait as there is room for: no picture is
        painted before its turn.
        """
        answers: list[Answered] = []
        while not self._answers.empty():
            asked, reply = self._answers.get()
            self._num_out -= 1
            answers.append((asked.request_id, self._answer(asked.request, reply)))
        room = self.client.execution.concurrency - self._num_out
        turn = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        return [*answers, *self._send(turn)] if turn else answers

    def _send(self, turn: Sequence[_Asked]) -> list[Answered]:
        """Send these. Answers those whose canvas cannot be painted."""
        canvases = {codes for asked in turn for codes in _canvases(asked.request)}
        pixels, failed = _painted(self._painter, canvases)
        unseen: list[Answered] = []
        for asked in turn:
            blind = [failed[codes] for codes in _canvases(asked.request) if codes in failed]
            if blind:
                unseen.append((asked.request_id, blind[0]))
                continue
            future = self.client.submit(self._chat(asked.request, pixels))
            self._num_out += 1
            future.add_done_callback(partial(self._take, asked))
        return unseen

    def _take(self, asked: _Asked, future: "Future[Reply]") -> None:
        if not future.cancelled():
            self._answers.put((asked, future.result()))

    def _chat(self, request: Text, pixels: dict[Codes, Pixels]) -> ChatRequest:
        by_schema = self._by_schema(request)
        return ChatRequest(
            messages=_in_json(request.messages) if by_schema else request.messages,
            pictures=[
                pixels[picture.codes] if isinstance(picture, Canvas) else picture.data
                for picture in request.pictures
            ],
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=request.max_tokens,
            seed=request.seed,
            schema=CRITIQUE if by_schema else None,
            with_logp=self._with_logp(request),
            request_id=f"{request.rollout}-{request.role}-{request.region}-{request.revision}"
            f"-{request.candidate}",
            rollout=request.rollout,
        )

    def _by_schema(self, request: Text) -> bool:
        return request.role is Role.REFLECT and self.facts.binds_schema

    def _with_logp(self, request: Text) -> bool:
        """Under a schema they would be of what the schema lets through."""
        return request.with_logp and request.temperature > 0 and not self._by_schema(request)

    def _answer(self, request: Text, reply: Reply) -> TextAnswer | RolloutError:
        """Of a foreign tokenizer there are no ids. Log-probabilities are those that the server
        tells, of its distribution at temperature 1.
        """
        if not isinstance(reply, Completion):
            return reply
        logp = reply.likelihoods if self._with_logp(request) else None
        return TextAnswer(
            prefix_ids=None,
            token_ids=None,
            text=as_asked(reply.text) if self._by_schema(request) else reply.text,
            finish=reply.finish,
            logp_cond=None if logp is None else tuple(token.logprob for token in logp),
            usage=usage_of(reply),
        )


def _canvases(request: Text) -> list[Codes]:
    return [picture.codes for picture in request.pictures if isinstance(picture, Canvas)]


def _painted(
    painter: Painter, canvases: set[Codes]
) -> tuple[dict[Codes, Pixels], dict[Codes, RolloutError]]:
    """The pictures of canvases in one batch; one by one if one of them cannot be painted."""
    wanted = sorted(canvases)
    try:
        return dict(zip(wanted, painter.paint(wanted), strict=True)) if wanted else {}, {}
    except RecordFailure as failure:
        if len(wanted) == 1:
            return {}, {wanted[0]: failure}
    pixels: dict[Codes, Pixels] = {}
    failed: dict[Codes, RolloutError] = {}
    for codes in wanted:
        alone, not_alone = _painted(painter, {codes})
        pixels, failed = pixels | alone, failed | not_alone
    return pixels, failed


def _in_json(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    *before, last = messages
    return (*before, replace(last, text=f"{last.text}\n\n{IN_JSON}"))
