"""Endpoints in a config: both halves, names, and no key anywhere."""

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.config import MethodConfig, RunConfig, fingerprint
from schemas.trace import Role

BASE: dict[str, Any] = {
    "model": {"name": "janus-tiny", "digest": "0123456789abcdef"},
    "pack": {"name": "default", "digest": "fedcba9876543210"},
}
URL = "http://127.0.0.1:8000/v1"


def method(**changes: Any) -> MethodConfig:
    return MethodConfig.model_validate(BASE | {"endpoints": {"critic": {"model": "m"}}} | changes)


def config(critic: dict[str, Any], **changes: Any) -> RunConfig:
    """A config whose critic is an endpoint with this second half."""
    changed = {"backends": {"reflect": "critic"}, "endpoints": {"critic": {"model": "m"}}} | changes
    return RunConfig.model_validate(
        {"method": BASE | changed, "execution": {"endpoints": {"critic": critic}}}
    )


def test_an_endpoint_answers_a_role_and_several_critics_one():
    both = {"critic": {"model": "m"}, "other": {"model": "n"}}
    several = method(backends={"reflect": ["critic", "other"], "think": "critic"}, endpoints=both)

    assert several.backends_of(Role.REFLECT) == ("critic", "other")
    assert several.backend_of(Role.THINK) == "critic"
    assert several.backends_of(Role.DRAW) == ("engine",)


@pytest.mark.parametrize("name", ["engine", "reference", "fake", "", "A", "a=b", "a]", "../a"])
def test_a_name_that_means_something_else_is_refused(name: str):
    with pytest.raises(ValidationError, match="no name for an endpoint"):
        method(endpoints={name: {"model": "m"}})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backends": {"reflect": "nobody"}}, "an endpoint of that name"),
        ({"backends": {"draw": "critic"}}, "only a model draws"),
        ({"backends": {"think": ["critic", "engine"]}}, "expected one"),
        ({"backends": {"reflect": []}}, "is empty"),
        ({"backends": {"reflect": ["critic", "critic"]}}, "names one twice"),
        ({"reflection": {"combine": "mean"}}, "there is one critic"),
        ({"endpoints": {"critic": {"model": "m", "extra": {"stream": True}}}}, "other settings"),
        ({"endpoints": {"critic": {"model": ""}}}, "at least 1"),
    ],
)
def test_what_no_endpoint_can_do_is_refused(changes: dict[str, Any], words: str):
    with pytest.raises(ValidationError, match=words):
        method(**changes)


@pytest.mark.parametrize(
    "critic",
    [
        {},
        {"url": URL, "serve": {"command": ["vllm", "serve"]}},
        {"url": "127.0.0.1:8000"},
        {"url": "ftp://127.0.0.1"},
        {"url": "http://user:swordfish@127.0.0.1/v1"},
        {"url": "http://127.0.0.1/v1?key=swordfish"},
        {"url": "http://127.0.0.1:99999/v1"},
        {"url": URL, "api_key_env": "sk-swordfish"},
        {"url": URL, "api_key_env": "hf_swordfish"},
        {"url": URL, "api_key_env": "AKIAIOSFODNN7EXAMPLE"},
        {"url": URL, "api_key": "swordfish"},
        {"serve": {"command": []}},
        {"serve": {"command": ["vllm", "serve"], "args": ["--api-key=swordfish"]}},
        {"url": URL, "concurrency": 0},
    ],
)
def test_an_address_or_a_key_that_cannot_be_used_is_refused(critic: dict[str, Any]):
    with pytest.raises(ValidationError) as refused:
        config(critic)

    assert all("swordfish" not in problem["msg"] for problem in refused.value.errors())


def test_both_halves_must_be_there():
    with pytest.raises(ValidationError, match="with url or serve"):
        RunConfig(method=method(backends={"reflect": "critic"}))
    with pytest.raises(ValidationError, match="which model it has"):
        config({"url": URL}, backends={}, endpoints={})


def test_one_url_or_one_a_replica():
    assert config({"url": f"{URL}/"}).execution.endpoints["critic"].url == (URL,)
    assert len(config({"url": [URL, "http://b/v1"]}).execution.endpoints["critic"].url) == 2


def test_a_config_with_endpoints_survives_being_written_and_read():
    planned = config({"url": URL, "api_key_env": "CRITIC_API_KEY", "input_price": 0.5})

    assert RunConfig.model_validate_json(planned.model_dump_json()) == planned


def test_an_endpoint_is_in_the_fingerprint_if_it_answers():
    plain = fingerprint(MethodConfig.model_validate(BASE))
    asked = method(backends={"reflect": "critic"})
    hotter = {"critic": {"model": "m", "temperature": 1.0}}

    assert fingerprint(method()) == plain
    assert fingerprint(asked) != plain
    assert fingerprint(asked) != fingerprint(method(backends=asked.backends, endpoints=hotter))


def test_how_critics_are_combined_is_in_the_fingerprint():
    both = {"endpoints": {"critic": {"model": "m"}, "other": {"model": "n"}}}
    critics = both | {"backends": {"reflect": ["critic", "other"]}}
    combined = [
        fingerprint(method(**critics, reflection={"combine": how}))
        for how in ("first", "mean", "all")
    ]

    assert len(set(combined)) == 3


def test_where_an_endpoint_is_does_not_matter_to_the_fingerprint():
    there, elsewhere = config({"url": URL}), config({"url": "http://b/v1", "concurrency": 9})

    assert fingerprint(there.method) == fingerprint(elsewhere.method)
