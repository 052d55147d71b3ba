"""Meeting a server: what it says of itself, what it can do, and whether it is the right one."""

from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.endpoints.keys import check_keys
from pipeline.endpoints.opening import open_client
from schemas.config import RunConfig
from schemas.errors import EndpointAway, InputError
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
from tests.support import fake_config, fake_method


@pytest.fixture
def server() -> Iterator[StandIn]:
    with stand_in_server() as running:
        running.answers_probes = False
        yield running


def config_of(
    *servers: StandIn, critic: dict[str, Any] | None = None, **execution: Any
) -> RunConfig:
    told = {"url": [server.url for server in servers], "patience_seconds": 0.2} | execution
    method = fake_method(
        endpoints={"critic": {"model": MODEL} | (critic or {})}, backends={"reflect": "critic"}
    )
    return fake_config(method, endpoints={"critic": told})


def meet(config: RunConfig, **more: Any) -> Any:
    method, execution = config.method.endpoints["critic"], config.execution.endpoints["critic"]
    sampling = config.method.sampling_of("critic")
    client, facts = open_client("critic", method, execution, sampling, **more)
    client.close()
    return facts


def test_a_server_says_what_it_is(server: StandIn):
    facts = meet(config_of(server))

    assert str(facts) == "critic: stand-in 0.0.1 /m 512 tokens"
    assert facts.binds_schema


def test_a_server_that_ignores_schemas_is_found_out(server: StandIn):
    """Without a word of it, as vLLM does with fields that it does not know."""
    server.react = lambda asked: Reaction(body=completion("Hello!"))

    assert not meet(config_of(server)).binds_schema
    with pytest.raises(InputError, match="structured_output is require"):
        meet(config_of(server, critic={"structured_output": "require"}))


def test_a_server_that_refuses_schemas_is_asked_without(server: StandIn):
    def react(asked: Asked) -> Reaction:
        return Reaction(status=400, body=error_body("?")) if asked.schema else good_answer(asked)

    server.react = react
    assert not meet(config_of(server)).binds_schema


def test_the_first_question_is_asked_as_the_run_will_ask(server: StandIn):
    meet(config_of(server, critic={"temperature": 0.7, "extra": {"top_k": 5}}), with_picture=True)
    body = server.asked[0].body

    assert (body["temperature"], body["top_k"], body["logprobs"]) == (0.7, 5, True)
    assert body["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/png;base64")


@pytest.mark.parametrize(
    ("reaction", "words"),
    [
        (Reaction(status=400, body=error_body("no pictures here")), "takes no pictures"),
        (Reaction(body=completion("Hello!", model="other")), "answers as 'other'"),
    ],
)
def test_a_server_that_cannot_do_it_is_refused_before_work(
    reaction: Reaction, words: str, server: StandIn
):
    server.react = lambda asked: reaction

    with pytest.raises(InputError, match=words):
        meet(config_of(server), with_picture=True)


def test_a_model_that_is_not_served_is_refused_with_those_that_are(server: StandIn):
    server.models = ["qwen", "llama"]

    with pytest.raises(InputError, match="it has: 'llama, qwen'"):
        meet(config_of(server))


def test_a_dated_name_of_the_same_model_is_no_other_one(server: StandIn):
    server.react = lambda asked: Reaction(body=completion("Hello!", model=f"{MODEL}-2026-08-06"))

    assert meet(config_of(server)).model == MODEL


def test_a_server_that_wants_a_key_says_where_to_put_it(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
):
    server.key = "swordfish"
    with pytest.raises(InputError, match="refuses the key, or asks for one"):
        meet(config_of(server))
    monkeypatch.setenv("CRITIC_KEY", "swordfish")
    assert meet(config_of(server, api_key_env="CRITIC_KEY")).binds_schema


def test_a_server_that_is_not_there_is_waited_for_and_given_up(server: StandIn):
    server.close()

    with pytest.raises(EndpointAway, match="does not answer"):
        meet(config_of(server, connect_timeout_seconds=0.2))


@pytest.mark.parametrize("key", [None, "", " ", "two words", "caf\u00e9"])
def test_a_key_that_is_not_there_is_refused_without_showing_it(
    key: str | None, server: StandIn, monkeypatch: pytest.MonkeyPatch
):
    if key is not None:
        monkeypatch.setenv("CRITIC_KEY", key)
    with pytest.raises(InputError, match="CRITIC_KEY") as refused:
        check_keys(config_of(server, api_key_env="CRITIC_KEY"))

    assert not key or not key.strip() or key not in str(refused.value)
