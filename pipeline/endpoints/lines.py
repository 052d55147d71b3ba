"""Lines to an endpoint's servers: one HTTP request, and what became of it.

No line follows a redirect or asks a proxy that nobody named, and no error's text is passed on: it
may hold what was sent.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache

import httpx2
from pydantic import SecretStr

from pipeline.endpoints.answers import (
    MAX_ANSWER_BYTES,
    Setback,
    TryResult,
    read_response,
    too_large,
)
from schemas.endpoints import EndpointExecution
from schemas.errors import EndpointRefused
from schemas.json_values import JsonMapping


@dataclass(frozen=True, slots=True)
class Reset:
    """A connection that was used before was closed: the same again, at once and for nothing."""


class Lines:
    """Sends requests, each on a line that nobody else uses meanwhile. For one event loop.

    Each line has a pool of its own: one pool of hundreds of connections looks at all of them before
    every request, which took longer than the request itself.
    """

    def __init__(self, execution: EndpointExecution, key: SecretStr | None) -> None:
        self._execution, self._key = execution, key
        self._idle: list[httpx2.AsyncClient] = []  # the last one used is the first one taken

    async def post(self, url: str, body: bytes, request_id: str) -> TryResult | Reset:
        """One POST of a question. Raises nothing but what is our bug."""
        connections: list[str] = []

        async def note(event: str, _: JsonMapping) -> None:
            if event == "connection.connect_tcp.started":
                connections.append(event)

        headers = {"X-Request-Id": request_id}
        answer = bytearray()
        try:
            async with (
                asyncio.timeout(self._execution.request_timeout_seconds),
                self._line() as line,
                line.stream(
                    "POST", url, content=body, headers=headers, extensions={"trace": note}
                ) as response,
            ):
                async for chunk in response.aiter_bytes():
                    answer += chunk
                    if len(answer) > MAX_ANSWER_BYTES:
                        return too_large()
            return read_response(response.status_code, response.headers, bytes(answer))
        except (TimeoutError, httpx2.ReadTimeout, httpx2.WriteTimeout):
            return Setback(what="no answer in time", reason="endpoint_timeout")
        except httpx2.TransportError as error:
            return _broken(error, is_new=bool(connections))
        except httpx2.HTTPError as error:
            return Setback(what=_describe(error), reason="endpoint_malformed")

    async def fetch(self, url: str, body: bytes | None = None) -> httpx2.Response | Setback:
        """A small question about the server itself, asked once. Its answer may be anything."""
        method = "GET" if body is None else "POST"
        try:
            async with (
                asyncio.timeout(self._execution.connect_timeout_seconds),
                self._line() as line,
            ):
                return await line.request(method, url, content=body)
        except (httpx2.HTTPError, TimeoutError) as error:
            return Setback(what=_describe(error), reason="endpoint_away", is_away=True)

    async def close(self) -> None:
        """Close those that nobody uses."""
        for line in self._idle:
            await line.aclose()

    @asynccontextmanager
    async def _line(self) -> AsyncIterator[httpx2.AsyncClient]:
        line = self._idle.pop() if self._idle else self._open()
        try:
            yield line
        finally:
            self._idle.append(line)

    def _open(self) -> httpx2.AsyncClient:
        execution = self._execution
        key = {"Authorization": f"Bearer {self._key.get_secret_value()}"} if self._key else {}
        return httpx2.AsyncClient(
            # identity: an answer is as long as it looks, and cannot unfold in memory
            headers={"Accept-Encoding": "identity", "Content-Type": "application/json", **key},
            timeout=httpx2.Timeout(
                execution.request_timeout_seconds, connect=execution.connect_timeout_seconds
            ),
            limits=httpx2.Limits(max_connections=len(execution.url)),
            verify=_trust(),
            follow_redirects=False,
            trust_env=False,
        )


@cache
def _trust() -> ssl.SSLContext:
    """The certificates that this machine trusts, which take a while to read."""
    return httpx2.create_ssl_context()


def _broken(error: httpx2.TransportError, *, is_new: bool) -> TryResult | Reset:
    """What a connection that was not made, or broke, means."""
    what = _describe(error)
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
        if any(isinstance(cause, ssl.SSLError) for cause in _causes(error)):
            untrusted = f"{what}: its certificate is not to be trusted; see url"
            return EndpointRefused(untrusted, reason="endpoint_refused")
        return Setback(what=what, reason="endpoint_away", is_away=True)
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.LocalProtocolError):
        return EndpointRefused(f"{what}: see url", reason="endpoint_refused")
    return Setback(what=what, reason="endpoint_torn") if is_new else Reset()


def _describe(error: Exception) -> str:
    """The kind of an error alone."""
    return f"{type(error).__name__} in asking it"


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
