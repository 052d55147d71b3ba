"""Asking an endpoint: one thread with an event loop, so many requests in flight, each tried until
it is answered, refused, or given up on.

The loop never ends with an exception: whatever becomes of a request is its future's result, a
`Completion` or a failure of the run's own kinds. What a prompt or an answer says, and the key, are
in no message and no log.
"""

import asyncio
import json
import random
import threading
import time
from collections.abc import Coroutine, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

import httpx2
from pydantic import SecretStr

from pipeline.endpoints.answers import Completion, Setback, TryResult
from pipeline.endpoints.chat import ChatRequest, body_of
from pipeline.endpoints.lines import Lines, Reset
from pipeline.endpoints.replicas import Router
from pipeline.twig.requests import Message
from schemas.endpoints import EndpointExecution, EndpointMethod
from schemas.errors import (
    EndpointAway,
    EndpointRefused,
    InfrastructureFailure,
    InputError,
    RecordFailure,
    RolloutError,
)
from schemas.runs import EndpointUsage

T = TypeVar("T")

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 15.0
_FREE_REPEATS = 3  # of resets on connections that were used before: a server's own time-out

Reply: TypeAlias = Completion | RolloutError
"""What came of a request in the end."""


@dataclass(slots=True, eq=False)
class _Work:
    """A request on its way, and what it has been through."""

    request: ChatRequest
    body: bytes
    started_at: float
    num_tries: int = 0
    num_counted: int = 0  # tries that may be the request's own fault
    num_free: int = 0
    away_since: float | None = None  # the server, as this request sees it
    away_seconds: float = 0.0  # before that


class EndpointClient:
    """Asks one endpoint. `submit` may be called from any thread."""

    def __init__(
        self,
        name: str,
        method: EndpointMethod,
        execution: EndpointExecution,
        *,
        key: SecretStr | None = None,
    ) -> None:
        """The execution has an address: of servers that a run starts, their own by now."""
        self.name, self.method, self.execution = name, method, execution
        self.urls = execution.url
        self.usage = EndpointUsage()  # of all that was answered
        self.answers_as: str | None = None  # what the server called its model at first
        self._key = key
        self._router, self._lines = Router(self.urls), Lines(execution, key)
        self._num_away, self._away_since, self._away_seconds = 0, 0.0, 0.0
        self._loop = asyncio.new_event_loop()
        self._slots = asyncio.Semaphore(execution.concurrency)
        self._thread = threading.Thread(target=self._run, name=f"endpoint {name}", daemon=True)
        self._thread.start()

    @property
    def is_away(self) -> bool:
        """Whether some request waits for the server to come back, or to have room."""
        return self._num_away > 0

    @property
    def away_seconds(self) -> float:
        """For how long some request has waited so, in all."""
        now = time.monotonic() - self._away_since if self._num_away else 0.0
        return self._away_seconds + now

    def submit(self, request: ChatRequest) -> "Future[Reply]":
        """Ask. Those beyond `concurrency` wait for their turn."""
        return asyncio.run_coroutine_threadsafe(self._reply(request), self._loop)

    def ask_all(self, requests: Iterable[ChatRequest]) -> list[Reply]:
        """What comes of these requests, in order. Waits for all."""
        return [future.result() for future in [self.submit(request) for request in requests]]

    def get(self, url: str) -> httpx2.Response | Setback:
        """A small question about the server itself, tried once. Its body may be anything."""
        return self._run_now(self._lines.fetch(url))

    def tokenize(self, text: str) -> bytes | None:
        """What a server that tokenizes says of a text, as vLLM does beside its /v1; None: nothing.

        The body may be anything.
        """
        body = {"model": self.method.model, "prompt": text, "add_special_tokens": False}
        url = f"{self.urls[0].removesuffix('/v1')}/tokenize"
        response = self._run_now(self._lines.fetch(url, json.dumps(body).encode()))
        if isinstance(response, Setback) or response.status_code != 200:
            return None
        return response.content

    def redacted(self, text: str) -> str:
        """The text without the key, should a server repeat it."""
        return text.replace(self._key.get_secret_value(), "***") if self._key else text

    def close(self) -> None:
        """Drop what is in flight, and end the thread."""
        if not self._loop.is_running():
            return
        self._run_now(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _run_now(self, work: Coroutine[None, None, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _end(self) -> None:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._lines.close()

    async def _reply(self, request: ChatRequest) -> Reply:
        started_at = time.monotonic()
        async with self._slots:
            body = await self._loop.run_in_executor(None, self._body_of, request)
            work = _Work(request, body, time.monotonic())
            try:
                reply = await self._try_on(work)
            finally:
                self._is_back(work)
        if not isinstance(reply, Completion):
            message = f"endpoint {self.name}: {self.redacted(str(reply))}"
            return type(reply)(message, reason=reply.reason)
        seconds = time.monotonic() - started_at
        reply = replace(reply, num_tries=work.num_tries, seconds=seconds)
        self.usage += usage_of(reply)
        return reply

    def _body_of(self, request: ChatRequest) -> bytes:
        return body_of(request, model=self.method.model, extra=self.method.extra)

    async def _try_on(self, work: _Work) -> Reply:
        """Try until there is an answer, a failure, or no patience left."""
        while True:
            work.num_tries += 1
            result = await self._try(work.body, work.request.request_id, work.request.rollout)
            if isinstance(result, Completion):
                return self._checked(result)
            if isinstance(result, RolloutError):
                return result
            if isinstance(result, Reset):
                work.num_free += 1
                if work.num_free <= _FREE_REPEATS:
                    continue
                result = Setback(what="connections that break", reason="endpoint_torn")
            if result.is_away:
                self._is_gone(work)
            else:
                self._is_back(work)
                work.num_counted += 1
            pause = _pause(work, result)
            if failure := await self._given_up(work, result, pause):
                return failure
            await asyncio.sleep(pause)

    async def _given_up(self, work: _Work, setback: Setback, pause: float) -> RolloutError | None:
        """What to end a request with, if it is not to be tried again."""
        execution, now = self.execution, time.monotonic()
        if work.away_since is not None:
            waited = now - work.away_since
            if waited + pause <= execution.patience_seconds:
                return None
            return InfrastructureFailure(
                f"{setback.what}; not answered for {waited:.0f} s, see patience_seconds",
                reason=setback.reason,
            )
        spent = now - work.started_at - work.away_seconds
        is_out_of_time = spent + pause > execution.total_timeout_seconds
        if work.num_counted < execution.max_tries and not is_out_of_time:
            return None
        message = f"{setback.what}, {work.num_counted} times in {spent:.0f} s"
        if await self._is_well():
            return RecordFailure(f"{message}, while others are answered", reason=setback.reason)
        return InfrastructureFailure(message, reason=setback.reason)

    async def _is_well(self) -> bool:
        """Whether the server answers the smallest question there is."""
        hello = Message(role="user", text="Hello.")
        canary = ChatRequest(
            messages=(hello,), temperature=0.0, max_tokens=1, request_id="coppice-canary"
        )
        result = await self._try(self._body_of(canary), canary.request_id, rollout="")
        return isinstance(result, Completion)

    async def _try(self, body: bytes, request_id: str, rollout: str) -> TryResult | Reset:
        """One POST to the replica of a rollout. One that says nothing at all, not even which models
        it has, is away: it hangs, and no question is to blame.
        """
        replica = self._router.choose(rollout)
        replica.num_in_flight += 1
        try:
            result = await self._lines.post(f"{replica.url}/chat/completions", body, request_id)
        finally:
            replica.num_in_flight -= 1
        if isinstance(result, Setback) and result.reason == "endpoint_timeout":
            told = await self._lines.fetch(f"{replica.url}/models")
            result = replace(result, is_away=isinstance(told, Setback))
        if isinstance(result, Setback) and result.is_away:
            self._router.passed_over(replica)
        return result

    def _checked(self, completion: Completion) -> Reply:
        """The answer, if it is of the model that answered at first."""
        model = completion.model
        if model is None or self.answers_as is None or model == self.answers_as:
            return completion
        return EndpointRefused(
            f"another model answers now than at the start ({self.answers_as!r:.80} then): see what "
            "is served there, and run again with the model that the run was planned with",
            reason="endpoint_refused",
        )

    def _is_gone(self, work: _Work) -> None:
        if work.away_since is None:
            work.away_since = time.monotonic()
            if not self._num_away:
                self._away_since = work.away_since
            self._num_away += 1

    def _is_back(self, work: _Work) -> None:
        if work.away_since is not None:
            now = time.monotonic()
            work.away_seconds += now - work.away_since
            work.away_since = None
            self._num_away -= 1
            if not self._num_away:
                self._away_seconds += now - self._away_since


def answered(reply: Reply) -> Completion | None:
    """An answer; None where this question alone failed. For commands, of which nothing is lost.

    Raises InputError for an endpoint that takes no questions, EndpointAway for one that does not
    answer.
    """
    match reply:
        case EndpointRefused():
            raise InputError(str(reply))
        case InfrastructureFailure():
            raise EndpointAway(f"{reply}; give the same command again")
    return reply if isinstance(reply, Completion) else None


def usage_of(completion: Completion) -> EndpointUsage:
    """What one answer took."""
    return EndpointUsage(
        num_calls=1,
        num_retries=completion.num_tries - 1,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
        seconds=completion.seconds,
    )


def _pause(work: _Work, setback: Setback) -> float:
    """Seconds until the next try: as the server says, or twice as long each time, by half or more
    of that by lot, so that those who failed together do not come again together.
    """
    if setback.wait_seconds is not None:
        return setback.wait_seconds + random.uniform(0, 0.1 * setback.wait_seconds)
    longest = min(_FIRST_PAUSE_SECONDS * 2 ** (work.num_tries - 1), _LONGEST_PAUSE_SECONDS)
    return random.uniform(longest / 2, longest)
