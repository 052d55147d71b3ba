"""A small faulty proxy in front of an S3 endpoint, for what goes wrong between a store and S3.

    with FaultyProxy(endpoint) as proxy:
        proxy.inject(Fault.RESET_AFTER, method="PUT", key="traces/shard-00003.parquet")
        ...                              # AWS_ENDPOINT_URL is proxy.endpoint
        assert proxy.injected[Fault.RESET_AFTER] == 1

A request meets the first injection, in the order of injecting, that matches it and is not used up;
all others pass. A signed request stays signed: its headers are forwarded as they came, `Host` with
them, so the server checks the signature against the name that the client used.
"""

import http.client
import socket
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from types import TracebackType
from urllib.parse import unquote, urlsplit

UPSTREAM_SECONDS = 60
_HOP_BY_HOP = {"connection", "expect", "keep-alive", "transfer-encoding"}


class Fault(StrEnum):
    """What becomes of one request."""

    CONFLICT = "conflict"  # 409: another conditional put is under way
    THROTTLED = "throttled"  # 429
    BROKEN = "broken"  # 500
    UNAVAILABLE = "unavailable"  # 503
    REFUSED = "refused"  # 403: these credentials are not known, for now
    SLOW = "slow"  # forwarded after `seconds`; later than the client waits, it is a late landing
    RESET_BEFORE = "reset_before"  # cut off; the server never hears of it
    RESET_AFTER = "reset_after"  # the server has done it; the answer is lost
    HALF_ANSWERED = "half_answered"  # the server has done it; half of the answer arrives
    LATE = "late"  # cut off at once, and forwarded after `seconds`, or at `land()`


_ANSWERS = {
    Fault.CONFLICT: (409, "ConditionalRequestConflict"),
    Fault.THROTTLED: (429, "SlowDown"),
    Fault.BROKEN: (500, "InternalError"),
    Fault.UNAVAILABLE: (503, "ServiceUnavailable"),
    Fault.REFUSED: (403, "InvalidAccessKeyId"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One request of a client, as a predicate sees it."""

    method: str
    path: str  # unquoted: /bucket/prefix/key
    query: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def is_of(self, key: str) -> bool:
        """Whether it is about this key, or about one that this pattern matches."""
        return fnmatchcase(self.path, f"*/{key}")


@dataclass(kw_only=True, slots=True)
class _Injection:
    fault: Fault
    matches: Callable[[Request], bool]
    num_skipped: int  # still to be let through
    num_left: int | None  # None: until cleared
    seconds: float | None

    def is_due(self, request: Request) -> bool:
        """Whether it strikes this request; counts it."""
        if self.num_left == 0 or not self.matches(request):
            return False
        if self.num_skipped:
            self.num_skipped -= 1
            return False
        if self.num_left:
            self.num_left -= 1
        return True


class FaultyProxy:
    """A proxy on 127.0.0.1, from entering to leaving. Injecting and reading counts is thread-safe.

    `injected` counts the faults by kind; `requests` holds every request that came, faulty or not.
    """

    def __init__(self, endpoint: str) -> None:
        self._upstream = urlsplit(endpoint).netloc
        self._injections: list[_Injection] = []
        self._lock = Lock()
        self._landing = Event()
        self._late: list[Thread] = []
        self._server = _Server(self)
        self.injected: Counter[Fault] = Counter()
        self.requests: list[Request] = []

    def __enter__(self) -> "FaultyProxy":
        Thread(target=self._server.serve_forever, args=[0.01], daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.land()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def inject(
        self,
        fault: Fault,
        *,
        method: str | None = None,
        key: str = "*",
        when: Callable[[Request], bool] = lambda request: True,
        skip: int = 0,
        times: int | None = 1,
        seconds: float | None = None,
    ) -> None:
        """Strike the next `times` requests that match, after `skip` of them; None: until `clear`.

        `key` is the end of a key, or a pattern; `when` decides what method and key cannot, and
        asks nothing of this proxy.
        `seconds` are those of SLOW, and of LATE where no one calls `land`.
        """

        def matches(request: Request) -> bool:
            return method in (None, request.method) and request.is_of(key) and when(request)

        injection = _Injection(
            fault=fault, matches=matches, num_skipped=skip, num_left=times, seconds=seconds
        )
        with self._lock:
            self._injections.append(injection)

    def clear(self) -> None:
        """Inject nothing more. What is late stays late."""
        with self._lock:
            self._injections.clear()

    def land(self) -> int:
        """Forward what is late now, and wait until the server has done it. Returns how many."""
        with self._lock:
            late, self._late = self._late, []
            landing, self._landing = self._landing, Event()
        landing.set()
        for thread in late:
            thread.join()
        return len(late)

    def _try_due(self, request: Request) -> _Injection | None:
        with self._lock:
            self.requests.append(request)
            for injection in self._injections:
                if injection.is_due(request):
                    self.injected[injection.fault] += 1
                    return injection
        return None

    def _land_later(self, forward: Callable[[], object], seconds: float | None) -> None:
        with self._lock:
            landing = self._landing

            def land() -> None:
                landing.wait(seconds)
                with suppress(OSError, http.client.HTTPException):
                    forward()

            thread = Thread(target=land, daemon=True)
            self._late.append(thread)
        thread.start()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, proxy: FaultyProxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Handler)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def handle_one_request(self) -> None:
        with suppress(OSError):  # the client may go away at any moment: that is what this is for
            return super().handle_one_request()
        self.close_connection = True

    def _serve(self) -> None:
        proxy = self.server.proxy
        path, _, query = self.path.partition("?")
        body = self._read_body()
        request = Request(
            method=self.command,
            path=unquote(path),
            query=query,
            headers=dict(self.headers.items()),
            body=body,
        )
        injection = proxy._try_due(request)
        if injection is None:
            self._answer(self._forward(body))
        elif injection.fault in _ANSWERS:
            self._answer(_canned(*_ANSWERS[injection.fault]))
        else:
            self._strike(injection, body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _strike(self, injection: _Injection, body: bytes) -> None:
        proxy = self.server.proxy
        match injection.fault:
            case Fault.SLOW:
                Event().wait(injection.seconds)
                self._answer(self._forward(body))
            case Fault.RESET_BEFORE:
                self._reset()
            case Fault.RESET_AFTER:
                self._forward(body)
                self._reset()
            case Fault.HALF_ANSWERED:
                self._answer_half(self._forward(body))
            case Fault.LATE:
                proxy._land_later(lambda: self._forward(body), injection.seconds)
                self._reset()

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(pieces)

    def _forward(self, body: bytes) -> _Answer:
        upstream = http.client.HTTPConnection(self.server.proxy._upstream, timeout=UPSTREAM_SECONDS)
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOP_BY_HOP | {"content-length"}:
                upstream.putheader(name, value)
        upstream.putheader("Content-Length", str(len(body)))
        try:
            upstream.endheaders(body)
            answer = upstream.getresponse()
            return _Answer(answer.status, answer.getheaders(), answer.read())
        finally:
            upstream.close()

    def _answer(self, answer: _Answer, num_bytes: int | None = None) -> None:
        self.send_response_only(answer.status)
        has_length = False
        for name, value in answer.headers:
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
                has_length |= name.lower() == "content-length"
        if not has_length and answer.status != 204:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body[:num_bytes])

    def _answer_half(self, answer: _Answer) -> None:
        if answer.body:
            self._answer(answer, len(answer.body) // 2)
        else:
            self.wfile.write(b"HTTP/1.1 2")
        self.close_connection = True

    def _reset(self) -> None:
        """Close without the usual farewell: the client sees "connection reset by peer"."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


def _canned(status: int, code: str) -> _Answer:
    body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
    return _Answer(status, [("Content-Type", "application/xml")], body)
