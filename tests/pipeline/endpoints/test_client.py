"""Asking an endpoint over a real wire, where all that may go wrong does."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from pipeline.endpoints.answers import MAX_ANSWER_BYTES, Completion
from pipeline.endpoints.chat import ChatRequest
from pipeline.endpoints.client import EndpointClient, Reply
from pipeline.twig.requests import Message
from schemas.endpoints import EndpointExecution, EndpointMethod
from schemas.errors import EndpointRefused, InfrastructureFailure, RecordFailure
from tests.stand_in_server import (
    MODEL,
    Asked,
    Reaction,
    StandIn,
    completion,
    error_body,
    good_answer,
    stand_in_server,
)

KEY = "sk-swordfish-0123456789"
PROMPT = "a very private otter"


@pytest.fixture
def server() -> Iterator[StandIn]:
    with stand_in_server() as running:
        yield running


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.endpoints.client._FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("pipeline.endpoints.client._LONGEST_PAUSE_SECONDS", 0.02)


@pytest.fixture
def client_of(quick: None) -> Iterator[Callable[..., EndpointClient]]:
    clients = []

    def make(*servers: StandIn, **execution: Any) -> EndpointClient:
        settings = {"url": [server.url for server in servers], "max_tries": 3} | execution
        client = EndpointClient(
            "critic",
            EndpointMethod(model=MODEL),
            EndpointExecution.model_validate(settings),
            key=SecretStr(KEY),
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


def question(**changes: Any) -> ChatRequest:
    base = {"temperature": 0.0, "max_tokens": 32, "request_id": "r-1"}
    return ChatRequest(messages=(Message(role="user", text=PROMPT),), **(base | changes))


def ask(client: EndpointClient, **changes: Any) -> Reply:
    return client.submit(question(**changes)).result(timeout=30)


def free_port() -> int:
    """A port where nothing listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def in_turn(*reactions: Reaction) -> Callable[[Asked], Reaction]:
    """One reaction after the other; then good answers."""
    left = list(reactions)
    return lambda asked: left.pop(0) if left else good_answer(asked)


def always(reaction: Reaction) -> Callable[[Asked], Reaction]:
    return lambda asked: reaction


GOOD = Reaction(body=completion("A red hat."))
HTML = Reaction(headers={"Content-Type": "text/html"}, body=b"<html>Sign in to the Wi-Fi</html>")


# What goes out


def test_an_answer_comes_with_its_tokens_and_its_end(server: StandIn, client_of: Any):
    reply = ask(client_of(server))

    assert isinstance(reply, Completion)
    assert (reply.text, reply.finish, reply.num_tries) == ("A red hat on a table.", "stop", 1)
    assert (reply.prompt_tokens, reply.completion_tokens) == (11, 7)


def test_a_question_says_all_that_its_answer_depends_on(server: StandIn, client_of: Any):
    ask(client_of(server), seed=2**64 - 1, top_p=0.9, temperature=0.5)
    (asked,) = server.asked

    assert asked.body["seed"] == 2**63 - 1  # servers keep 63 bits
    assert asked.body["model"] == MODEL
    assert asked.body["max_tokens"] == 32
    assert (asked.body["temperature"], asked.body["top_p"]) == (0.5, 0.9)
    assert asked.body["stream"] is False
    assert asked.headers["X-Request-Id"] == "r-1"
    assert asked.headers["Authorization"] == f"Bearer {KEY}"


def test_proxies_of_the_environment_are_not_used(
    server: StandIn, client_of: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")

    assert isinstance(ask(client_of(server)), Completion)


# What is tried again


@pytest.mark.parametrize(
    "reaction",
    [
        Reaction(status=500, body=error_body("engine")),
        Reaction(status=503, body=error_body("engine is currently busy")),
        Reaction(status=429),
        Reaction(status=429, headers={"Retry-After": "0"}),
        Reaction(status=429, headers={"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}),
        Reaction(status=429, headers={"Retry-After": "soon"}),
        Reaction(status=502, body=b"<html>Bad Gateway</html>"),
        Reaction(body=completion("A long enough answer"), torn_after=40),
        Reaction(is_dropped=True),
        Reaction(body=error_body("engine", "InternalServerError", code=500)),
        Reaction(body=error_body("try again")),
        HTML,
        Reaction(body=b""),
        Reaction(body=b"\xff\xfe{"),
        Reaction(body=completion("half", finish="abort")),
    ],
    ids=lambda reaction: f"{reaction.status}-{reaction.body[:12]!r}",
)
def test_what_may_come_to_something_is_tried_again(
    reaction: Reaction, server: StandIn, client_of: Any
):
    server.react = in_turn(reaction, reaction)
    reply = ask(client_of(server))

    assert isinstance(reply, Completion)
    assert reply.num_tries >= 2


def test_a_server_is_left_alone_as_long_as_it_asks_for(server: StandIn, client_of: Any):
    server.react = in_turn(Reaction(status=429, headers={"Retry-After": "0.4"}))
    started_at = time.monotonic()

    assert isinstance(ask(client_of(server)), Completion)
    assert time.monotonic() - started_at >= 0.4


def test_a_wait_that_a_server_asks_for_ends_with_the_patience(server: StandIn, client_of: Any):
    server.react = always(Reaction(status=429, headers={"Retry-After": "86400"}))
    reply = ask(client_of(server, patience_seconds=0.5))

    assert isinstance(reply, InfrastructureFailure)
    assert reply.reason == "endpoint_busy"


def test_a_connection_that_was_closed_while_idle_costs_no_try(server: StandIn, client_of: Any):
    server.react = in_turn(Reaction(body=GOOD.body, closes_after=True), GOOD)
    client = client_of(server, max_tries=1)

    assert isinstance(ask(client), Completion)
    time.sleep(0.05)
    assert isinstance(ask(client), Completion)


def test_a_server_that_comes_back_in_time_is_waited_for(client_of: Any):
    port = free_port()
    client = client_of(url=f"http://127.0.0.1:{port}/v1", patience_seconds=20)
    future = client.submit(question())
    while not client.is_away:
        time.sleep(0.01)
    server = StandIn(port=port)

    assert isinstance(future.result(timeout=20), Completion)
    assert not client.is_away
    assert client.away_seconds > 0
    server.close()


def test_a_server_that_stays_away_is_no_fault_of_the_record(client_of: Any):
    url = f"http://127.0.0.1:{free_port()}/v1"
    reply = ask(client_of(url=url, patience_seconds=0.3))

    assert isinstance(reply, InfrastructureFailure)
    assert reply.reason == "endpoint_away"


# What ends a request


def test_a_question_that_breaks_a_server_which_answers_others_is_its_own_fault(
    server: StandIn, client_of: Any
):
    """As a picture that is too large: 500, for ever."""
    server.react = always(Reaction(status=500, body=error_body("InternalServerError")))
    reply = ask(client_of(server))  # the smallest question is a probe, and answered

    assert isinstance(reply, RecordFailure)
    assert reply.reason == "endpoint_error"
    assert len(server.questions) == 3


def test_a_server_that_answers_nobody_is_at_fault_itself(server: StandIn, client_of: Any):
    server.react = always(HTML)
    server.answers_probes = False
    reply = ask(client_of(server))

    assert isinstance(reply, InfrastructureFailure)
    assert reply.reason == "endpoint_malformed"


def test_a_server_that_is_frozen_is_waited_for_and_blames_no_question(
    server: StandIn, client_of: Any
):
    """As SIGSTOP does it: it connects, and answers nothing at all."""
    server.is_awake.clear()
    client = client_of(
        server, request_timeout_seconds=0.2, connect_timeout_seconds=0.2, max_tries=1
    )
    future = client.submit(question())
    while not client.is_away:
        time.sleep(0.01)
    server.is_awake.set()

    assert isinstance(future.result(timeout=30), Completion)


def test_a_question_that_takes_too_long_while_others_are_answered_is_its_own_fault(
    server: StandIn, client_of: Any
):
    server.react = always(Reaction(body=GOOD.body, delay_seconds=2.0))
    reply = ask(client_of(server, request_timeout_seconds=0.5))

    assert isinstance(reply, RecordFailure)
    assert reply.reason == "endpoint_timeout"


def test_an_answer_without_end_is_cut(server: StandIn, client_of: Any):
    server.react = always(Reaction(body=b" " * (MAX_ANSWER_BYTES + 1)))
    reply = ask(client_of(server, max_tries=1))

    assert isinstance(reply, RecordFailure)
    assert "MiB" in str(reply)


@pytest.mark.parametrize(
    ("reaction", "reason"),
    [
        (Reaction(status=400, body=error_body("too long", param="input_tokens")), "context"),
        (
            Reaction(status=400, body=error_body("the maximum context length is 512 tokens")),
            "context",
        ),
        (Reaction(status=400, body=error_body("no", code="context_length_exceeded")), "context"),
        (Reaction(status=400, body=error_body("bad picture")), "endpoint_question"),
        (Reaction(status=413), "endpoint_question"),
        (Reaction(status=422, body=b'{"detail": []}'), "endpoint_question"),
        (Reaction(body=error_body("no", code=400)), "endpoint_question"),
        (Reaction(body=completion("", finish="content_filter")), "endpoint_filtered"),
    ],
)
def test_what_a_record_is_refused_for_makes_it_dead(
    reaction: Reaction, reason: str, server: StandIn, client_of: Any
):
    server.react = always(reaction)
    reply = ask(client_of(server))

    assert isinstance(reply, RecordFailure)
    assert reply.reason == reason
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("reaction", "reason"),
    [
        (Reaction(status=401, body=b'{"error": "Unauthorized"}'), "endpoint_refused"),
        (Reaction(status=403), "endpoint_refused"),
        (
            Reaction(status=404, body=error_body("no such model", "NotFoundError")),
            "endpoint_refused",
        ),
        (Reaction(body=completion("Hi.", model="another")), "endpoint_refused"),
    ],
)
def test_what_no_retry_mends_ends_the_run(
    reaction: Reaction, reason: str, server: StandIn, client_of: Any
):
    server.react = always(reaction)
    client = client_of(server)
    client.answers_as = MODEL
    reply = ask(client)

    assert isinstance(reply, EndpointRefused)
    assert reply.reason == reason
    assert len(server.asked) == 1


def test_a_redirect_is_not_followed_with_a_key(server: StandIn, client_of: Any):
    with stand_in_server() as elsewhere:
        for status in (301, 302, 307, 308):
            where = f"{elsewhere.url}/chat/completions"
            server.react = always(Reaction(status=status, headers={"Location": where}))
            reply = ask(client_of(server))

            assert isinstance(reply, EndpointRefused)
            assert reply.reason == "endpoint_refused"
        assert not elsewhere.asked
        assert not elsewhere.connections


# Many at once


def test_no_more_are_in_flight_than_the_config_says(server: StandIn, client_of: Any):
    server.react = always(Reaction(body=GOOD.body, delay_seconds=0.05))
    replies = client_of(server, concurrency=4).ask_all([question()] * 20)

    assert all(isinstance(reply, Completion) for reply in replies)
    assert 2 <= server.most_in_flight <= 4


def test_answers_come_in_the_order_of_the_questions(server: StandIn, client_of: Any):
    def react(asked: Asked) -> Reaction:
        delay = 0.1 if asked.text == "0" else 0.0
        return Reaction(body=completion(asked.text), delay_seconds=delay)

    server.react = react
    questions = [
        replace(question(), messages=(Message(role="user", text=str(number)),))
        for number in range(8)
    ]
    replies = client_of(server).ask_all(questions)

    assert [r.text for r in replies if isinstance(r, Completion)] == [str(n) for n in range(8)]


def test_a_rollout_stays_with_its_replica_and_new_ones_go_where_there_is_room(client_of: Any):
    with stand_in_server() as left, stand_in_server() as right:
        slow = Reaction(body=GOOD.body, delay_seconds=0.2)
        left.react = right.react = always(slow)
        client = client_of(left, right)
        client.ask_all([question(rollout=str(number)) for number in range(6)])
        assert len(left.asked) == len(right.asked) == 3
        left.react = right.react = always(GOOD)
        for _ in range(3):
            ask(client, rollout="0")
        assert {len(left.asked), len(right.asked)} == {3, 6}


def test_another_replica_answers_for_one_that_is_gone(client_of: Any):
    with stand_in_server() as left, stand_in_server() as right:
        client = client_of(left, right)
        ask(client, rollout="a")
        gone = left if left.asked else right
        gone.close()

        assert isinstance(ask(client, rollout="a"), Completion)


def test_what_was_answered_is_counted(server: StandIn, client_of: Any):
    server.react = in_turn(Reaction(status=500))
    client = client_of(server)
    client.ask_all([question()] * 3)

    assert client.usage.num_calls == 3
    assert client.usage.num_retries == 1
    assert (client.usage.prompt_tokens, client.usage.completion_tokens) == (33, 21)


# What is said of it


def test_no_message_and_no_log_has_the_key_or_the_prompt(
    server: StandIn, client_of: Any, caplog: pytest.LogCaptureFixture
):
    """Not even where a server repeats them."""
    caplog.set_level(logging.DEBUG)
    rude = error_body(f"{KEY} asked: {PROMPT}", kind=KEY, param=PROMPT, code=KEY)
    for status in (200, 400, 401, 404, 418, 429, 500):
        server.react = always(Reaction(status=status, body=rude))
        reply = ask(client_of(server, patience_seconds=0.05))
        assert KEY not in repr(reply) + str(reply)
        assert PROMPT not in repr(reply) + str(reply)
    ask(client_of(server))

    assert KEY not in caplog.text
    assert PROMPT not in caplog.text


def test_a_client_that_is_closed_leaves_no_thread(server: StandIn, client_of: Any):
    server.react = always(Reaction(body=GOOD.body, delay_seconds=0.3))
    before = set(threading.enumerate())
    client = client_of(server)
    client.submit(question())
    client.close()

    left = set(threading.enumerate()) - before
    assert "endpoint critic" not in {thread.name for thread in left}
