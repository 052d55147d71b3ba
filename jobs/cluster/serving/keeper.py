"""Has one server answer: starts it, asks it until it does, starts it again when it is gone.

Healthy is not enough: a server may say so and die of its first request, so it is asked one. A
server that never answered is not tried again and again: its command is wrong, or its GPU too small.
One that did is started again, on its port, a few times in a row.
"""

import http.client
import json
import socket
import threading
import time
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from jobs.cluster.serving.process import GuardedServer, free_port, server_environment
from schemas.endpoints import ServeConfig
from schemas.json_values import JsonObject

MAX_RESTARTS = 3
"""Of a server, one after the other. One that answered for ten minutes may die as often again."""

_GOOD_SECONDS = 600.0
_LOOK_SECONDS = 0.5
_HEALTH_SECONDS = 5.0  # between two questions whether it is there
_PATIENCE_SECONDS = 30.0  # with an answer to that: a first picture may keep all cores busy
_SILENT_SECONDS = 300.0  # without any: it hangs, and is started again
_TOLD_LINES = 3  # of a log, in an error
_TOLD_CHARACTERS = 300


class Phase(StrEnum):
    """Where a server stands."""

    STARTING = "starting"  # also again
    ANSWERING = "answering"
    LOST = "lost"  # for good


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerOrder:
    """What is to be served, and how."""

    model: str  # as requests name it
    revision: str | None
    serve: ServeConfig
    key: str | None = field(repr=False)  # None: it asks for none
    host: str  # the address to listen at
    gpus: str | None  # as `server_environment` has them
    log: Path
    port: int = 0  # 0: any

    def command(self, port: int) -> list[str]:
        """The command line of the server. It has no key in it."""
        revision = ["--revision", self.revision] if self.revision else []
        return [
            *self.serve.command,
            self.model,
            *("--host", self.host, "--port", str(port)),
            *("--served-model-name", self.model, *revision),
            "--no-enable-log-requests",  # a log of ours holds no prompt
            *self.serve.args,
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerStatus:
    """How a server is doing."""

    phase: Phase = Phase.STARTING
    url: str = ""  # such as http://10.0.0.3:8123/v1; empty: not known yet
    num_restarts: int = 0
    message: str = ""  # what happened last, for people


class Keeper:
    """Keeps one server, on a thread of its own. The server's processes end with this process."""

    def __init__(self, order: ServerOrder) -> None:
        self._order = order
        self._port = order.port or free_port(order.host)
        self._status = ServerStatus(url=f"http://{order.host}:{self._port}/v1")
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self._thread.start()

    def status(self) -> ServerStatus:
        """How the server is doing. Returns at once."""
        return self._status

    def end(self) -> None:
        """End the server, and return when nothing of it is left."""
        self._is_over.set()
        self._thread.join()

    def _keep(self) -> None:
        num_in_a_row, has_answered = 0, False
        while not self._is_over.is_set():
            trouble, answering_seconds = self._serve()
            if self._is_over.is_set():
                return
            num_in_a_row = 1 if answering_seconds >= _GOOD_SECONDS else num_in_a_row + 1
            has_answered |= answering_seconds > 0
            if not has_answered:
                self._lose(f"{trouble}; {_end_of(self._order.log)}")
                return
            if num_in_a_row > MAX_RESTARTS:
                self._lose(f"{trouble}, and so {num_in_a_row} times in a row")
                return
            self._status = replace(
                self._status,
                phase=Phase.STARTING,
                num_restarts=self._status.num_restarts + 1,
                message=f"{trouble}; it is started again",
            )

    def _lose(self, message: str) -> None:
        self._status = replace(self._status, phase=Phase.LOST, message=message)

    def _serve(self) -> tuple[str, float]:
        """Start the server, and watch it until it is gone. What went wrong, and after how many
        seconds of answering; 0: it never did.
        """
        order = self._order
        environment = server_environment(order.serve.command[0], order.key, order.gpus)
        try:
            server = GuardedServer(
                order.command(self._port), environment=environment, log=order.log
            )
        except OSError as error:
            return f"its log {order.log} cannot be written ({error.strerror})", 0.0
        try:
            trouble = self._wait_for_answer(server)
            if trouble or self._is_over.is_set():
                return trouble, 0.0
            self._status = replace(self._status, phase=Phase.ANSWERING)
            begun = time.monotonic()
            trouble = self._watch(server)
            return trouble, time.monotonic() - begun
        finally:
            server.end()

    def _wait_for_answer(self, server: GuardedServer) -> str:
        """Until it answered a request. Else what is wrong with it."""
        timeout = self._order.serve.start_timeout_seconds
        stop_at, trouble = time.monotonic() + timeout, ""
        while not self._is_over.wait(_LOOK_SECONDS):
            if ending := server.ending():
                return f"{ending}, before it answered"
            seconds = stop_at - time.monotonic()
            if seconds <= 0:
                return f"it has not answered within {timeout:.0f} s ({trouble})"
            said = illness(self._order.host, self._port, timeout=min(_PATIENCE_SECONDS, seconds))
            said = said or self._ask(timeout=seconds)
            if not said:
                return ""
            if not trouble or time.monotonic() < stop_at:  # else our own end cut its answer off
                trouble = said
        return ""

    def _ask(self, timeout: float) -> str:
        """One request, of the smallest kind. Empty: answered; else what came instead."""
        body: JsonObject = {
            "model": self._order.model,
            "messages": [{"role": "user", "content": "Say yes."}],
            "max_tokens": 1,
            "temperature": 0,
        }
        return ask(self._order.host, self._port, body, key=self._order.key, timeout=timeout)

    def _watch(self, server: GuardedServer) -> str:
        """Until it is gone, or hangs. What happened."""
        heard_at = asked_at = time.monotonic()
        while not self._is_over.wait(_LOOK_SECONDS):
            if ending := server.ending():
                return ending
            now = time.monotonic()
            if now - asked_at < _HEALTH_SECONDS:
                continue
            asked_at = now
            if not illness(self._order.host, self._port, timeout=_PATIENCE_SECONDS):
                heard_at = time.monotonic()
            elif now - heard_at > _SILENT_SECONDS:
                return f"it has said nothing for {now - heard_at:.0f} s"
        return ""


def illness(host: str, port: int, *, timeout: float) -> str:
    """What a server says when it is asked how it is; empty: that it is well."""
    try:
        status, _ = _request(host, port, "GET", "/health", None, {}, timeout)
    except (OSError, http.client.HTTPException) as error:
        return f"its port answers with {type(error).__name__}"
    return "" if status == 200 else f"it says of itself that it is not well, by status {status}"


def ask(host: str, port: int, body: JsonObject, *, key: str | None, timeout: float) -> str:
    """Ask for a chat completion. Empty: there is one; else what came instead, without its text."""
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    try:
        status, answer = _request(
            host, port, "POST", "/v1/chat/completions", json.dumps(body).encode(), headers, timeout
        )
        is_answered = status == 200 and bool(json.loads(answer)["choices"])
    except (OSError, http.client.HTTPException) as error:
        return f"the first request ended in {type(error).__name__}"
    except (ValueError, KeyError, TypeError):
        return "the first request was answered with what is no chat completion"
    return "" if is_answered else f"the first request was answered with status {status}"


def _request(
    host: str,
    port: int,
    method: str,
    path: str,
    body: bytes | None,
    headers: dict[str, str],
    timeout: float,
) -> tuple[int, bytes]:
    """One request on a connection of its own: no proxy, no redirect. Status and body."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _end_of(log: Path) -> str:
    """Where a log is, and its last lines: of a server that was never asked, so of no prompt."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        text = ""
    lines = [line.strip() for line in text.splitlines() if line.strip()][-_TOLD_LINES:]
    last = f", which ends: {' | '.join(lines)[-_TOLD_CHARACTERS:]}" if lines else ""
    return f"its log is {log} on {socket.gethostname()}{last}"
