"""Settings of scorers: as a command line or a TOML file gives them, checked, and as a version.

A scorer that can be set says so by a class of its own, `Settings`, or by the parameters of its
constructor. What is not given is as the scorer says. Settings become part of the version, so scores
by other settings lie in another folder: `scores/hps@1-9f86d081`.
"""

import hashlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import Field, ValidationError, create_model

from schemas.config import Frozen
from schemas.errors import InputError
from schemas.json_values import JsonMapping, JsonObject, JsonValue, canonical_json
from schemas.small_files import parse_toml, read_toml_file

_BRACKETED = re.compile(r"(?P<name>[^\[\]]+)(?:\[(?P<pairs>.*)\])?", re.DOTALL)
_OPEN, _CLOSED = "[{(", "]})"


class ScorerSettings(Frozen):
    """What a scorer can be told. Frozen, and an unknown name is an error.

    Give every new setting a default that means what the scorer did before: only what differs from
    the defaults counts in the digest, so that the scores that are there keep their folder.
    """

    NOT_COMPARED: ClassVar[frozenset[str]] = frozenset()
    """Settings that say how fast and where, and change no score: they stay out of the digest."""

    def pinned(self) -> Self:
        """These settings with all that moves made fast, such as a hub id by its commit.

        Called once before any work, and never where scores are made. Raises InputError.
        """
        return self

    @property
    def told(self) -> JsonObject:
        """What is not as by default, and may change a score."""
        return self.model_dump(mode="json", exclude=set(self.NOT_COMPARED), exclude_defaults=True)

    @property
    def digest(self) -> str:
        """8 hex digits of what is told."""
        return hashlib.sha256(canonical_json(self.told).encode()).hexdigest()[:8]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorerRequest:
    """A scorer as a user asks for it: its name, perhaps with an @ and a version, and settings."""

    name: str  # bundled, or module:object
    settings: JsonObject

    def __str__(self) -> str:
        return self.name if not self.settings else f"{self.name}[{pairs_of(self.settings)}]"


def parse_request(text: str) -> ScorerRequest:
    """`NAME` or `NAME[key=value,...]`; a value is TOML, or a word. Raises InputError."""
    match = _BRACKETED.fullmatch(text.strip())
    if match is None:
        raise InputError(
            f"{text!r:.200} is no scorer; expected NAME or NAME[key=value,...], such as "
            "'hps[dtype=float32]'"
        )
    settings: JsonObject = {}
    for pair in _split(match["pairs"] or "", text):
        key, equals_sign, value = (part.strip() for part in pair.partition("="))
        if not equals_sign or not key.isidentifier():
            raise InputError(
                f"{text!r:.200}: {pair.strip()!r:.100} is no setting; expected key=value, and "
                "quotes around a value that has a comma or a bracket"
            )
        if key in settings:
            raise InputError(f"{text!r:.200} sets {key} twice")
        settings[key] = _value(value)
    return ScorerRequest(name=match["name"].strip(), settings=settings)


def pairs_of(settings: JsonMapping) -> str:
    """`key=value,...` as `parse_request` reads it."""
    return ",".join(f"{key}={_toml(value)}" for key, value in settings.items())


def read_scorer_tables(path: str, *, is_needed: bool = True) -> dict[str, JsonObject]:
    """The `[scorers.NAME]` tables of a TOML file, by name, in order. Raises InputError, also for a
    file without any if it is needed.
    """
    tables = read_toml_file(path, "config file")
    named = tables.get("scorers", {} if not is_needed else None)
    if not isinstance(named, dict) or (is_needed and not named):
        raise InputError(f"config file {path} has no [scorers.NAME] table")
    scorers: dict[str, JsonObject] = {}
    for name, table in named.items():
        if not isinstance(table, dict):
            raise InputError(
                f"config file {path}: scorers.{name} is no table; expected [scorers.{name}] with "
                "settings below it"
            )
        scorers[name] = table
    return scorers


def requests_for(names: Sequence[str], config: str | None) -> list[ScorerRequest]:
    """What is asked for: the scorers named, or without any all of the config file, in order.

    The tables of the file hold for the scorers that they name; brackets come before them. Raises
    InputError.
    """
    tables = read_scorer_tables(config, is_needed=not names) if config is not None else {}
    named = [parse_request(name) for name in names or tables]
    if not named:
        raise InputError("name a scorer with --scorer, or a file with --config")
    return [
        ScorerRequest(
            name=request.name,
            settings={**tables.get(request.name.partition("@")[0], {}), **request.settings},
        )
        for request in named
    ]


def validated_settings(
    kind: type[ScorerSettings], settings: JsonMapping, *, scorer: str
) -> ScorerSettings:
    """The settings as this kind. Raises InputError that names every bad one, and those known."""
    try:
        return kind.model_validate(dict(settings))
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, problem['loc'])) or 'all of them'}: {problem['msg']}"
            + (f" (found {problem['input']!r:.60})" if problem["type"] != "missing" else "")
            for problem in error.errors()
        ]
        known = ", ".join(kind.model_fields) or "none"
        raise InputError(
            f"the settings of scorer {scorer} cannot be used: {'; '.join(lines)}; it has: {known}"
        ) from error


def settings_from_signature(make: type, name: str) -> type[ScorerSettings]:
    """The settings that a constructor takes, as its parameters say. Raises InputError for one that
    takes any number of them.
    """
    fields: dict[str, Any] = {}  # as `create_model` takes them
    try:
        parameters = inspect.signature(make, eval_str=True).parameters.values()
    except (NameError, TypeError, ValueError) as error:
        raise InputError(f"the parameters of {name} cannot be read: {error}") from error
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if parameter.kind == parameter.POSITIONAL_ONLY:
            raise InputError(f"{name} takes {parameter.name} by position; settings have names")
        annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
        has_default = parameter.default is not parameter.empty
        fields[parameter.name] = (annotation, Field(parameter.default if has_default else ...))
    try:
        return create_model("Settings", __base__=ScorerSettings, **fields)
    except Exception as error:  # pydantic names no class for what it cannot check
        raise InputError(
            f"the parameters of {name} cannot be settings: {error!s:.200}; annotate them with "
            "numbers, words or lists, or give the class a Settings of its own"
        ) from error


def _split(pairs: str, text: str) -> Iterator[str]:
    """Pairs at the commas that stand in no quotes and no brackets."""
    depth, quote, start, is_escaped = 0, "", 0, False
    for position, char in enumerate(pairs):
        if is_escaped:
            is_escaped = False
        elif quote:
            is_escaped = char == "\\" and quote == '"'
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in _OPEN:
            depth += 1
        elif char in _CLOSED:
            depth -= 1
        elif char == "," and not depth:
            yield pairs[start:position]
            start = position + 1
    if quote or depth:
        raise InputError(f"{text!r:.200}: a quote or a bracket is not closed")
    if pairs[start:].strip():
        yield pairs[start:]


def _value(text: str) -> JsonValue:
    """A TOML value; what is none (a bare word) is the text itself."""
    try:
        tables = parse_toml(f"value = {text}")
    except ValueError:
        return text
    return tables["value"] if len(tables) == 1 else text  # no line of its own behind it


def _toml(value: JsonValue) -> str:
    """A JSON value as TOML has it. None has no form there and is left to the default."""
    if isinstance(value, Mapping):
        return (
            "{" + ", ".join(f"{_toml(key)} = {_toml(inner)}" for key, inner in value.items()) + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return canonical_json(value)
