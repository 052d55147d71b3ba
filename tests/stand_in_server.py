"""A stand-in for an OpenAI-compatible server on 127.0.0.1, which also does all that may go wrong.

It speaks real HTTP on a real port. What it does to a question says a function of the question; by
default it answers it well.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "stand-in"
CRITIQUE = {"score": 95, "improved_description": "a red hat on a wooden table"}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question as it came in."""

    body: dict[str, Any]
    headers: dict[str, str]
    number: int  # of POSTs, from 0

    @property
    def text(self) -> str:
        """The last message's."""
        content = self.body["messages"][-1]["content"]
        return content if isinstance(content, str) else content[-1]["text"]

    @property
    def is_probe(self) -> bool:
        return "hello" in self.text.lower()

    @property
    def schema(self) -> str | None:
        form = self.body.get("response_format")
        return form["json_schema"]["name"] if form else None


@dataclass(frozen=True, kw_only=True)
class Reaction:
    """What to do to a question."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay_seconds: float = 0.0
    torn_after: int | None = None  # bytes of the body, after which the connection is closed
    is_dropped: bool = False  # closed without a word
    closes_after: bool = False  # closes the connection without saying so


def completion(text: str, *, finish: str = "stop", model: str = MODEL, **more: Any) -> bytes:
    """The body of an answer."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": finish,
    }
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    body = {"id": "x", "object": "chat.completion", "model": model, "usage": usage}
    return json.dumps({**body, "choices": [{**choice, **more}]}).encode()


def good_answer(asked: Asked) -> Reaction:
    """What a well-behaved server says, that holds answers to schemas."""
    if asked.schema == "probe":
        return Reaction(body=completion('{"coppice": 7}'))
    if asked.schema == "critique":
        return Reaction(body=completion(json.dumps(CRITIQUE)))
    if "SCORE" in asked.text:
        return Reaction(body=completion("SCORE: 95\nIMPROVED_DESCRIPTION: a better hat"))
    return Reaction(body=completion("A red hat on a table."))


def error_body(message: str, kind: str = "BadRequestError", **more: Any) -> bytes:
    return json.dumps({"error": {"message": message, "type": kind, **more}}).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


class StandIn:
    """A running server. `asked` are the questions so far, probes too."""

    def __init__(self, react: Callable[[Asked], Reaction] = good_answer, *, port: int = 0) -> None:
        self.react = react
        self.models: list[str] = [MODEL]
        self.key: str | None = None  # that it wants to see
        self.asked: list[Asked] = []
        self.num_in_flight = self.most_in_flight = 0
        self.connections: list[socket.socket] = []
        self.answers_probes = True
        self.is_awake = threading.Event()  # cleared: it connects and says nothing, as if stopped
        self.is_awake.set()
        self.tokens: dict[str, int] = {}  # ids of words that are one token; empty: it tells none
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", port), partial(_Handler, self))
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.server_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def questions(self) -> list[Asked]:
        """Those that were no probe."""
        return [asked for asked in self.asked if not asked.is_probe]

    def close(self) -> None:
        """End as a killed process does: its connections break."""
        self.is_awake.set()
        self._server.shutdown()
        self._server.server_close()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def reaction_to(self, body: dict[str, Any], headers: dict[str, str]) -> Reaction:
        with self._lock:
            asked = Asked(body=body, headers=headers, number=len(self.asked))
            self.asked.append(asked)
            self.num_in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.num_in_flight)
        is_well = asked.is_probe and self.answers_probes
        return good_answer(asked) if is_well else self.react(asked)

    def tokenized(self, text: str) -> Reaction:
        if not self.tokens:
            return Reaction(status=404)
        tokens = [self.tokens[text]] if text in self.tokens else [1, 2]
        return Reaction(body=json.dumps({"tokens": tokens, "count": len(tokens)}).encode())

    def forget(self) -> None:
        with self._lock:
            self.num_in_flight -= 1


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, stand_in: StandIn, connection: socket.socket, *more: Any) -> None:
        self._stand_in = stand_in
        stand_in.connections.append(connection)
        super().__init__(connection, *more)

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.endswith("/models"):
            names = self._stand_in.models
            known = [{"id": name, "root": "/m", "max_model_len": 512} for name in names]
            self._send(Reaction(body=json.dumps({"data": known}).encode()))
        elif self.path == "/version":
            self._send(Reaction(body=b'{"version": "0.0.1"}'))
        else:
            self._send(Reaction(status=404, body=b'{"detail": "Not Found"}'))

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/tokenize":
            self._send(self._stand_in.tokenized(json.loads(data)["prompt"]))
            return
        key = self._stand_in.key
        if key is not None and self.headers["Authorization"] != f"Bearer {key}":
            self._send(Reaction(status=401, body=b'{"error": "Unauthorized"}'))
            return
        reaction = self._stand_in.reaction_to(json.loads(data), dict(self.headers))
        time.sleep(reaction.delay_seconds)
        try:
            self._send(reaction)
        finally:
            self._stand_in.forget()

    def _send(self, reaction: Reaction) -> None:
        self._stand_in.is_awake.wait(timeout=60)
        self.close_connection = reaction.is_dropped
        if reaction.is_dropped:
            return
        self.send_response(reaction.status)
        for name, value in reaction.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reaction.body)))
        self.end_headers()
        with suppress(OSError):  # who asked may be gone
            self.wfile.write(reaction.body[: reaction.torn_after])
        self.close_connection = reaction.torn_after is not None or reaction.closes_after


@contextmanager
def stand_in_server(react: Callable[[Asked], Reaction] = good_answer) -> Iterator[StandIn]:
    server = StandIn(react)
    try:
        yield server
    finally:
        server.close()
