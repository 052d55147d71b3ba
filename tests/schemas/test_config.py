import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from schemas.config import (
    ExecutionConfig,
    FakeConfig,
    MethodConfig,
    ReflectionConfig,
    RunConfig,
    SamplingConfig,
    ScheduleConfig,
    canonical_json,
    differences,
    fingerprint,
)
from schemas.trace import Role

BASE: dict[str, Any] = {
    "model": {"name": "janus-tiny", "digest": "0123456789abcdef"},
    "pack": {"name": "default", "digest": "fedcba9876543210"},
}

# Another value for every field of the method.
CHANGES: dict[str, Any] = {
    "model.name": "janus-large",
    "model.digest": "0123456789abcdee",
    "backend": "fake",
    "backends.reflect": "fake",
    "program": "plain",
    "thoughts": "given",
    "pack.name": "terse",
    "pack.digest": "fedcba9876543211",
    "schedule.kind": "adaptive",
    "schedule.num_regions": 4,
    "schedule.ratios": [1.0, 2.0, 1.0],
    "reflection.max_revisions": 2,
    "reflection.theta": 91,
    "reflection.on_unparseable": "ask_again",
    "sampling.cfg_weight": 5.5,
    "sampling.image_temperature": 0.9,
    "sampling.text_temperature": 0.1,
    "sampling.text_top_p": 0.9,
    "sampling.max_text_tokens": 511,
    "sampling.with_logp": False,
    "seed": 1,
    "dtype": "bfloat16",
    "strict": True,
    "pictures": "all",
    "fake.image_size": 128,
    "fake.patch_size": 8,
    "fake.num_codes": 99,
    "fake.num_text_tokens": 41,
    "fake.revise_share": 0.6,
    "fake.unparseable_share": 0.1,
    "fake.dead_share": 0.1,
    "fake.delay_seconds": 0.1,
}


def method(**changes: Any) -> MethodConfig:
    return MethodConfig.model_validate(BASE | changes)


def changed(name: str) -> MethodConfig:
    """The base method with another value for the field of this dotted name."""
    tree = method().model_dump(mode="json")
    *tables, field = name.split(".")
    table = tree
    for key in tables:
        table = table[key]
    table[field] = CHANGES[name]
    if name == "schedule.ratios":  # given if, and only if, the kind is "ratios"
        tree["schedule"]["kind"] = "ratios"
    return MethodConfig.model_validate(tree)


def fields_of(table: type[BaseModel], prefix: str = "") -> set[str]:
    """The dotted names of all settings of a config table."""
    names: set[str] = set()
    for name, field in table.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            names |= fields_of(inner, f"{prefix}{name}.")
        else:
            names.add(f"{prefix}{name}")
    return names


# What is refused


@pytest.mark.parametrize(
    "tree",
    [
        {"method": BASE | {"colour": "red"}},
        {"method": BASE | {"sampling": {"temperature": 1.0}}},
        {"method": BASE | {"model": {"name": "a", "digest": "b", "revision": "c"}}},
        {"method": BASE | {"backends": {"paint": "fake"}}},
        {"method": BASE, "execution": {"num_gpus": 1}},
        {"method": BASE, "seed": 1},
    ],
)
def test_an_unknown_key_is_refused(tree: dict[str, Any]):
    with pytest.raises(ValidationError):
        RunConfig.model_validate(tree)


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": {"num_regions": 0}},
        {"schedule": {"kind": "ratios"}},
        {"schedule": {"ratios": [1, 1, 1]}},
        {"schedule": {"kind": "ratios", "ratios": [1, 1]}},
        {"schedule": {"kind": "ratios", "ratios": [1, 0, 1]}},
        {"schedule": {"kind": "ratios", "ratios": [1, float("nan"), 1]}},
        {"schedule": {"kind": "ratios", "ratios": [1, float("inf"), 1]}},
        {"reflection": {"theta": 101}},
        {"reflection": {"max_revisions": -1}},
        {"sampling": {"cfg_weight": float("nan")}},
        {"sampling": {"image_temperature": -0.1}},
        {"sampling": {"text_top_p": 0}},
        {"sampling": {"max_text_tokens": 0}},
        {"fake": {"image_size": 100, "patch_size": 16}},
        {"fake": {"dead_share": 1.1}},
        {"backend": "engin"},
        {"program": "think"},
        {"seed": -1},
        {"seed": 2**63},
    ],
)
def test_a_value_that_makes_no_sense_is_refused(changes: dict[str, Any]):
    with pytest.raises(ValidationError):
        method(**changes)


def test_a_config_cannot_be_changed():
    config = RunConfig(method=method())

    with pytest.raises(ValidationError):
        config.method.seed = 1  # type: ignore[misc]


def test_a_config_survives_being_written_and_read():
    for name in CHANGES:
        config = RunConfig(method=changed(name))
        assert RunConfig.model_validate_json(config.model_dump_json()) == config


def test_each_role_has_its_backend_or_that_of_all_the_others():
    mixed = method(backends={"reflect": "fake"})

    assert {role: mixed.backend_of(role) for role in Role} == {
        Role.SCHEDULE: "engine",
        Role.THINK: "engine",
        Role.DRAW: "engine",
        Role.REFLECT: "fake",
    }


# The fingerprint


def test_fingerprints_never_change():
    assert fingerprint(method()) == "6fd40e8fa2a7f7db"
    assert fingerprint(method(seed=7, schedule={"num_regions": 2})) == "f27711730b6dce57"


def test_every_field_of_the_method_is_tried_here():
    elsewhere = {"endpoints", "reflection.combine"}  # tests/schemas/test_endpoints.py
    tried = {name.replace("backends.reflect", "backends") for name in CHANGES} | elsewhere

    assert tried == fields_of(MethodConfig)


@pytest.mark.parametrize("name", CHANGES)
def test_every_field_of_the_method_changes_the_fingerprint(name: str):
    assert fingerprint(changed(name)) != fingerprint(method())


def test_no_two_of_the_changes_have_one_fingerprint():
    assert len({fingerprint(changed(name)) for name in CHANGES}) == len(CHANGES)


def test_execution_is_no_part_of_the_fingerprint():
    execution = ExecutionConfig(num_actors=9, live_rollouts_per_actor=1, max_shard_attempts=7)
    slow, fast = RunConfig(method=method()), RunConfig(method=method(), execution=execution)

    assert slow != fast
    assert fingerprint(slow.method) == fingerprint(fast.method)


def test_writing_a_default_or_an_equal_number_out_changes_nothing():
    spelled_out = method(
        schedule=ScheduleConfig(),
        reflection=ReflectionConfig(theta=90),
        sampling={"cfg_weight": 5, "image_temperature": 1},
        fake=FakeConfig(),
    )

    assert spelled_out == method(sampling=SamplingConfig())
    assert fingerprint(spelled_out) == fingerprint(method())


def test_the_order_in_which_backends_are_given_changes_nothing():
    one = method(backends={"think": "fake", "reflect": "fake"})
    other = method(backends={"reflect": "fake", "think": "fake"})

    assert fingerprint(one) == fingerprint(other)


# Differences


@pytest.mark.parametrize("name", sorted(CHANGES.keys() - {"schedule.ratios"}))
def test_a_difference_names_the_field_and_both_values(name: str):
    tree: Any = method().model_dump(mode="json")
    for key in name.split("."):
        tree = tree.get(key)

    assert differences(method(), changed(name)) == [f"{name}: {tree} -> {CHANGES[name]}"]
    assert differences(changed(name), method()) == [f"{name}: {CHANGES[name]} -> {tree}"]


def test_all_differences_are_told():
    one, other = method(), changed("schedule.ratios").model_copy(update={"seed": 3})

    assert differences(one, other) == [
        "schedule.kind: equal -> ratios",
        "schedule.ratios: None -> [1.0, 2.0, 1.0]",
        "seed: 0 -> 3",
    ]


def test_equal_methods_have_no_differences():
    assert differences(method(), method()) == []


# Canonical JSON


def test_one_value_has_one_text():
    value = {"b": [1, 2.5, None, True], "a": {"d": "caf\u00e9", "c": []}}

    assert canonical_json(value) == '{"a":{"c":[],"d":"caf\\u00e9"},"b":[1,2.5,null,true]}'
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)
    assert json.loads(canonical_json(value)) == value


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_does_not_have_are_refused(number: float):
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"scores": [1.0, number]})
