"""`coppice config` prints every setting, with the default that it has, in a form that is taken."""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from pipeline.plan.configs import DEFAULTS, read_config_file, resolve, setting_names
from schemas.config import ExecutionConfig, MethodConfig, RunConfig
from schemas.endpoints import EndpointExecution, EndpointMethod, ServeConfig
from schemas.errors import InputError

TEXT = DEFAULTS.read_text()
OPEN = re.compile(r"^# (\w+ = )", re.MULTILINE)  # settings without a default


def names_in(table: dict, prefix: str = "") -> set[str]:
    """The dotted names of a config's values; a table in braces is a value."""
    inner = {name for name, value in table.items() if isinstance(value, dict) and value}
    names = {f"{prefix}{name}" for name in table.keys() - inner}
    return names.union(*(names_in(table[name], f"{prefix}{name}.") for name in inner))


def test_every_setting_is_in_it_and_nothing_else():
    listed = names_in(tomllib.loads(OPEN.sub(r"\1", TEXT)))

    assert listed == set(setting_names(RunConfig))


@pytest.mark.parametrize("table", [EndpointMethod, EndpointExecution, ServeConfig])
def test_every_setting_of_an_endpoint_is_in_it(table: type[BaseModel]):
    listed = set(re.findall(r"^#   (\w+) = ", TEXT, re.MULTILINE)) | {"serve"}

    assert table.model_fields.keys() <= listed


def test_what_it_says_are_the_defaults():
    told = tomllib.loads(TEXT)

    def check(table: dict, model: BaseModel) -> None:
        for name, value in table.items():
            default = getattr(model, name)
            if isinstance(default, BaseModel):
                check(value, default)
            else:
                assert value == default, name

    method = MethodConfig.model_construct()  # with the defaults alone
    assert told["method"].pop("model") == "toy"
    check(told["method"], method)
    check(told["execution"], ExecutionConfig())


def test_it_is_taken_as_a_config_and_changes_nothing():
    assert resolve(read_config_file(str(DEFAULTS))).config == resolve({}).config


def test_every_line_says_what_its_setting_means_or_its_table_does():
    bare = [line for line in TEXT.splitlines() if " = " in line and line.count("#") < 1]

    assert bare == ["image_temperature = 1.0", "text_temperature = 0.0"]


@pytest.mark.parametrize(
    ("setting", "meant"),
    [
        ("method.sed", "method.seed"),
        ("method.sampling.cfg", "method.sampling.cfg_weight"),
        ("execution.actors", "execution.num_actors"),
        ("execution.timeout", "execution.rollout_timeout_seconds"),
        ("metod.seed", "method"),
    ],
)
def test_a_setting_that_is_none_is_told_what_was_meant(setting: str, meant: str):
    table, _, name = setting.rpartition(".")
    tables: dict = {}
    inner = tables
    for part in table.split("."):
        inner = inner.setdefault(part, {})
    inner[name] = 1

    with pytest.raises(InputError, match=re.escape(f"Did you mean {meant}?")):
        resolve({**tables, "method": {"backend": "fake", **tables.get("method", {})}})


def test_the_file_ships(tmp_path: Path):
    pyproject = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())

    shipped = pyproject["tool"]["setuptools"]["package-data"]["pipeline.plan"]
    assert shipped == [DEFAULTS.name]
