"""From what the user wrote to a frozen config: a TOML file, `key=value` pairs, and the defaults.

In a config file the model and the template pack are names; here they get their digests.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.file_names import check_is_text
from pipeline.plan.models import ModelFacts, describe_model, fake_facts
from pipeline.plan.packs import load_pack
from pipeline.twig.schedules import equal_bands
from pipeline.twig.templates import TemplatePack
from schemas.config import (
    Dtype,
    ExecutionConfig,
    FakeConfig,
    Frozen,
    MethodConfig,
    ModelConfig,
    PackConfig,
    Program,
    RunConfig,
    SamplingConfig,
)
from schemas.errors import InputError
from schemas.json_values import JsonMapping, JsonObject, JsonValue
from schemas.small_files import parse_toml, read_toml_file
from schemas.trace import Role

DEFAULT_MODEL = "toy"
DEFAULTS = Path(__file__).parent / "defaults.toml"
"""A config file with every setting at its default, and what it means."""

_FOUND_BY_PLANNING = "model_files"
_ALIKE = 0.6  # of names, from where on the other is told
_LEAST_AMOUNT = 0.0001  # Ray counts in such steps
_MOST_AMOUNT = 1e6
_MOST_CACHE_GIGABYTES = 100_000
_LEAST_SAMPLING = 1e-6  # logits over it are within float32
_MOST_CFG = 1e4
_OWN_RESOURCES = {
    "CPU": "say execution.cpus_per_actor instead",
    "GPU": "say execution.gpus_per_actor instead",
    "memory": "Ray keeps that for itself; give an actor more CPUs instead, for fewer on a node",
    "object_store_memory": "Ray keeps that for itself",
}
_OF_MODELS: dict[str, JsonValue] = {  # and their defaults
    "method.dtype": None,
    "method.strict": MethodConfig.model_fields["strict"].default,
    **{
        f"execution.{name}": ExecutionConfig.model_fields[name].default
        for name in ("compile", "rows_per_actor", "cache_gigabytes")
    },
}
Table = TypeVar("Table", bound=Frozen)
Tables: TypeAlias = JsonObject
"""A config as nested tables, as TOML has them. A date of TOML's is no value of ours: refused."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """A config whose model and pack have been found and checked."""

    config: RunConfig
    facts: ModelFacts
    pack: TemplatePack


def read_config_file(path: str) -> Tables:
    """The tables of a TOML file. Raises InputError."""
    tables = read_toml_file(path, "config file")
    if _FOUND_BY_PLANNING in tables:
        raise InputError(
            f"config file {path} has a table {_FOUND_BY_PLANNING}, which planning finds by itself; "
            "leave it out"
        )
    return tables


def with_settings(tables: Tables, pairs: Iterable[str]) -> Tables:
    """The tables with `method.sampling.cfg_weight=4` and the like put in. Values are TOML.

    Returns new tables. Raises InputError for what is no pair, or would go into a value, and for
    pairs of which one undoes another.
    """
    told: list[tuple[str, JsonValue]] = []
    for pair in pairs:
        name, equals_sign, value = pair.partition("=")
        if not equals_sign or "." not in name:
            raise InputError(
                f"--set {pair}: expected a dotted name and a value, such as "
                "method.sampling.cfg_weight=4 or execution.num_actors=2"
            )
        path, setting = name.strip().split("."), _value(value.strip())
        tables = _with(tables, path, setting)
        for earlier, before in told:
            if not _holds(before, _at(tables, earlier.split("."))):
                raise InputError(
                    f"{earlier} is given twice, with other values, by --set or by an option of its "
                    "own such as --seed: give it once"
                )
        told.append((name.strip(), setting))
    return tables


def check_fake(tables: Tables, told: Tables) -> None:
    """Refuse what is told of how a model computes where the fake answers. Raises InputError.

    A default counts as not told: config files may have them all.
    """
    if _at(tables, ["method", "backend"]) != "fake":
        return
    for name, default in _OF_MODELS.items():
        if _at(told, name.split(".")) not in (None, default):
            raise InputError(
                f"{name} says how a model computes, and the fake has none: leave it out, or name "
                "the backend that computes it with --backend"
            )


def resolve(
    tables: Tables, planned: MethodConfig | None = None, *, default_pack: str = "default"
) -> Resolved:
    """Find the model and the pack, and check everything. Raises InputError.

    Reads the model's small files and takes the digest of its weights, but does not load it. Where
    no dtype is named, it is that of the run that is `planned` already, or else the model's own;
    where neither a pack is named nor the model's card names one, it is the default one.
    """
    method = tables.get("method", {})
    if not isinstance(method, dict):
        raise InputError(f"the config cannot be used: method is no table (found {method!r:.60})")
    facts = _facts(method)
    named = _name(method, "pack")
    pack = load_pack(named or facts.pack or default_pack)
    pack_config = PackConfig(name=named or pack.name, digest=pack.digest)
    resolved: JsonObject = {
        "model": facts.model.model_dump(),
        "pack": pack_config.model_dump(),
        "dtype": _dtype(method, facts, planned),
    }
    files: JsonObject = {**facts.files}
    config = validated(
        RunConfig, {**tables, "method": {**method, **resolved}, "model_files": files}
    )
    check_resources(config.execution)
    _check_sampling(config.method.sampling)
    _check_fit(config, facts, pack)
    return Resolved(config=config, facts=facts, pack=pack)


def check_resources(execution: ExecutionConfig) -> None:
    """Refuse what no Ray gives to an actor, however large it is. Raises InputError.

    What it may come to have one day is not refused: a run waits for it. A plan of an older version
    may hold what is refused here, so it is no part of the config's own rules.
    """
    gpus = execution.gpus_per_actor
    amounts = {
        "gpus_per_actor": gpus,
        "cpus_per_actor": execution.cpus_per_actor,
        **{f"resources.{name}": amount for name, amount in execution.resources.items()},
    }
    problems = [
        f"execution.{name} is {amount:g}: expected {_LEAST_AMOUNT:g} to {_MOST_AMOUNT:,.0f}"
        for name, amount in amounts.items()
        if not _LEAST_AMOUNT <= amount <= _MOST_AMOUNT
    ]
    if gpus > 1 and gpus != int(gpus):
        problems.append(
            f"execution.gpus_per_actor is {gpus:g}: expected a whole number of GPUs, or a share "
            "of one that is at most 1"
        )
    problems += [
        f"execution.resources has {name}: {_OWN_RESOURCES[name]}"
        for name in execution.resources
        if name in _OWN_RESOURCES
    ]
    if execution.resources and not all(map(_is_resource_name, execution.resources)):
        problems.append("execution.resources has a name that is empty or white space")
    least, most = execution.min_actors, execution.num_actors
    if least and most and least > most:
        problems.append(f"execution.min_actors is {least}, and num_actors, the most, is {most}")
    cache = execution.cache_gigabytes
    if cache is not None and not cache <= _MOST_CACHE_GIGABYTES:
        problems.append(
            f"execution.cache_gigabytes is {cache:g}: expected at most {_MOST_CACHE_GIGABYTES:,.0f}"
        )
    _refuse(problems)


def _check_sampling(sampling: SamplingConfig) -> None:
    """Refuse numbers that sound weights would give infinities or nothing by. Raises InputError.

    A plan of an older version may hold them, so this is no part of the config's own rules.
    """
    bounds = {
        "image_temperature": (sampling.image_temperature or 1.0, "0, or at least"),
        "text_temperature": (sampling.text_temperature or 1.0, "0, or at least"),
        "text_top_p": (sampling.text_top_p, "at least"),
    }
    problems = [
        f"method.sampling.{name} is {value:g}: expected {words} {_LEAST_SAMPLING:g}"
        for name, (value, words) in bounds.items()
        if value < _LEAST_SAMPLING
    ]
    if sampling.cfg_weight > _MOST_CFG:
        problems.append(
            f"method.sampling.cfg_weight is {sampling.cfg_weight:g}: expected at most {_MOST_CFG:g}"
        )
    _refuse(problems)


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise InputError("the config cannot be used:\n" + "\n".join(f"  {p}" for p in problems))


def _is_resource_name(name: str) -> bool:
    return bool(name.strip())


def _facts(method: JsonMapping) -> ModelFacts:
    if method.get("backend") == "fake":
        facts = fake_facts(validated(FakeConfig, method.get("fake", {})))
        if _name(method, "model") not in (None, facts.model.name):
            raise InputError(
                f"method.model is {_name(method, 'model')!r:.80}, and the fake has no model: leave "
                "--model out, or name the backend that computes it with --backend"
            )
        return facts
    return describe_model(_name(method, "model") or DEFAULT_MODEL)


def _dtype(method: JsonMapping, facts: ModelFacts, planned: MethodConfig | None) -> JsonValue:
    """Raises InputError for a word that is not among ours: nothing is computed in another dtype."""
    named = method.get("dtype")
    if named is None and planned is not None:
        return planned.dtype
    if method.get("backend") == "fake" and named not in (None, "float32"):
        raise InputError("--dtype says how a model is computed, and the fake has none")
    if named in get_args(Dtype):
        return named
    if named is None and facts.own_dtype in get_args(Dtype):
        return facts.own_dtype
    whose = (
        f"method.dtype is {named!r:.60}"
        if named is not None
        else (f"{facts.model.name} is made for {facts.own_dtype!r:.60}")
    )
    raise InputError(
        f"the config cannot be used: {whose}, which Coppice does not compute in; "
        "name bfloat16 or float32 instead, with --dtype"
    )


def _check_fit(config: RunConfig, facts: ModelFacts, pack: TemplatePack) -> None:
    """What no single field shows: regions against rows, questions against the pack."""
    if config.method.program is Program.THINK_WHILE:
        equal_bands(facts.geometry, config.method.schedule.num_regions)
    names = {role: config.method.backend_of(role) for role in Role}
    asked = {name for role in Role for name in config.method.backends_of(role)}
    if config.method.backend == "fake" and asked & {"engine", "reference"}:
        raise InputError(
            "method.backend is fake, so there is no model for the other backends of "
            "method.backends: name the model's backend there, and the fake for single roles"
        )
    if "fake" not in names.values() and config.method.fake != FakeConfig():
        raise InputError(
            "method.fake says what the fake pretends, and no role is answered by it: leave these "
            "settings out, or give --backend fake"
        )
    if names[Role.DRAW] == "fake" != config.method.backend:
        raise InputError(
            "the fake draws pictures of its own size, which no model can look at; "
            "make method.backend fake, or draw with the model"
        )
    needed = {"schedule": config.method.schedule.kind == "adaptive"}
    needed["reflect"] = _judges(config.method)
    needed["ask_again"] = config.method.reflection.on_unparseable == "ask_again"
    for question, is_needed in needed.items():
        if is_needed and question not in pack.questions:
            raise InputError(f'template pack {pack.name} lacks the question "{question}"')


def _judges(method: MethodConfig) -> bool:
    """Whether anything drawn is judged."""
    is_judging = method.program in (Program.THINK_WHILE, Program.THINK_AFTER)
    return is_judging and method.reflection.max_revisions > 0


def _name(method: JsonMapping, key: str) -> str | None:
    """The name under a key: a word in a config file, a table in a planned config."""
    value = method.get(key)
    if value is None:
        return None
    name = value.get("name") if isinstance(value, dict) else value
    if not isinstance(name, str) or not name.strip():
        raise InputError(
            f"the config cannot be used: method.{key} is no name (found {value!r:.60}); to have "
            "the default one, leave it out"
        )
    check_is_text(name, f"method.{key}")
    return name


def _with(tables: Tables, path: list[str], value: JsonValue) -> Tables:
    head, *rest = path
    if not rest:
        return {**tables, head: value}
    inner = tables.get(head, {})
    if not isinstance(inner, dict):
        raise InputError(f"--set: {head} is a value, not a table")
    return {**tables, head: _with(inner, rest, value)}


def _at(tables: JsonValue, path: Sequence[str]) -> JsonValue:
    """What stands at a dotted name; None of nothing."""
    for name in path:
        if not isinstance(tables, dict):
            return None
        tables = tables.get(name)
    return tables


def _holds(told: JsonValue, value: JsonValue) -> bool:
    """Whether what was told stands; a table may have grown."""
    if isinstance(told, dict) and isinstance(value, dict):
        return all(name in value and _holds(told[name], value[name]) for name in told)
    return told == value


def _value(text: str) -> JsonValue:
    """A TOML value; what is none (a bare word) is the text itself."""
    try:
        tables = parse_toml(f"value = {text}")
    except ValueError:
        return text
    return tables["value"] if len(tables) == 1 else text  # no line of its own behind it


def validated(kind: type[Table], tables: JsonValue) -> Table:
    """The tables as a config of that kind. Raises InputError that names every bad field."""
    try:
        return kind.model_validate(tables)
    except ValidationError as error:
        lines = [f"  {_describe_problem(problem, kind)}" for problem in error.errors()]
        raise InputError("the config cannot be used:\n" + "\n".join(lines)) from None


def _describe_problem(problem: ErrorDetails, kind: type[Frozen]) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        return f"{name}: {problem['msg']}{_found(problem)}"
    names = list(setting_names(kind))
    tables = dict.fromkeys(known.rpartition(".")[0] for known in names if "." in known)
    best = max([*names, *tables], key=partial(_likeness, name))
    hint = f" Did you mean {best}?" if _likeness(name, best) >= _ALIKE else ""
    return f"{name}: no such setting{_found(problem)}.{hint} See: coppice config"


def _found(problem: ErrorDetails) -> str:
    """What was there, unless it may be a key: those of endpoints are told by their place alone."""
    value, is_of_endpoint = problem["input"], "endpoints" in problem["loc"]
    if problem["type"] == "missing" or is_of_endpoint or isinstance(value, dict):
        return ""
    return f" (found {value!r:.60})"


def _likeness(name: str, other: str) -> float:
    """How well a name fits another: 0 to 1 by letters, and 1 more where its last word is in it."""
    word, in_other = (each.rpartition(".")[2] for each in (name, other))
    return SequenceMatcher(None, name, other).ratio() + (word in in_other)


def setting_names(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted names of all settings of a config table and the tables in it."""
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if inner in (ModelConfig, PackConfig):  # a user names them, and planning takes digests
            yield f"{prefix}{name}"
        elif isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from setting_names(inner, f"{prefix}{name}.")
        elif name != _FOUND_BY_PLANNING:
            yield f"{prefix}{name}"
