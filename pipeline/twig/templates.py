"""Template packs: the wording of every question, as data.

A pack is one TOML text (see `templates/default.toml`). Placeholders stand in braces and are checked
when the pack is read. A part in double square brackets is left out when one of its placeholders is
empty: `[[Sentences before: "{previous}". ]]` vanishes from the first region's question. Characters
that are meant as such are doubled: `{{` for a brace, `[[[[` for two brackets.
"""

import hashlib
import re
from collections.abc import Mapping
from string import Formatter

from pydantic import Field, ValidationError, field_validator

from schemas.config import Frozen
from schemas.errors import InputError
from schemas.small_files import parse_toml

_REGION = frozenset({"prompt", "region_name", "region_number", "num_regions"})
PLACEHOLDERS: Mapping[str, frozenset[str]] = {
    "schedule": frozenset({"prompt", "num_regions", "num_rows"}),
    "think_first": _REGION,
    "think_next": _REGION | {"previous"},
    "reflect_first": _REGION | {"thought"},  # optional: said of the first region instead
    "reflect": _REGION | {"previous", "thought"},  # needed where drawings are judged
    "ask_again": frozenset(),
}
"""Every question that a pack can hold, and the placeholders it may use."""

_REQUIRED = ("think_first", "think_next")
_OPTIONAL_PART = re.compile(r"\[\[(?!\[)(.*?)\]\]", re.DOTALL)
_LITERALS = {"[[[[": ("\0", "[["), "]]]]": ("\1", "]]")}  # TOML text has no control characters


class TemplatePack(Frozen):
    """The wording that a model is asked in."""

    name: str
    system: str | None = None  # replaces the model's own system prompt where there is a picture
    questions: dict[str, str]
    region_names: dict[int, tuple[str, ...]] = Field(default_factory=dict)  # by number of regions
    digest: str  # of the text that the pack was read from

    @field_validator("questions")
    @classmethod
    def _only_known_placeholders(cls, questions: dict[str, str]) -> dict[str, str]:
        problems = [f'question "{key}" is missing' for key in _REQUIRED if key not in questions]
        for key, body in questions.items():
            problems += _problems(key, body)
        if problems:
            raise ValueError("; ".join(problems))
        return {key: body.strip("\n") for key, body in questions.items()}

    @field_validator("region_names")
    @classmethod
    def _a_name_a_region(cls, names: dict[int, tuple[str, ...]]) -> dict[int, tuple[str, ...]]:
        for num_regions, row in names.items():
            if len(row) != num_regions:
                raise ValueError(f"{len(row)} names for {num_regions} regions")
        return names

    def render(self, question: str, values: Mapping[str, str | int]) -> str:
        """The question with its placeholders filled. Values are never read as templates.

        Raises KeyError for a question that the pack lacks, and for a placeholder without a value.
        """

        def keep_or_drop(part: re.Match[str]) -> str:
            return part[1] if all(str(values[name]) for name in _placeholders(part[1])) else ""

        body = self.questions[question]
        for literal, (mark, _) in _LITERALS.items():
            body = body.replace(literal, mark)
        body = _OPTIONAL_PART.sub(keep_or_drop, body)
        for mark, meant in _LITERALS.values():
            body = body.replace(mark, meant)
        return body.format_map(dict(values))

    def region_name(self, region: int, num_regions: int) -> str:
        """What a region is called in a question, from 0: "top third", or "band 5 of 7"."""
        names = self.region_names.get(num_regions)
        return names[region] if names else f"band {region + 1} of {num_regions}"


def read_pack(text: str, *, origin: str) -> TemplatePack:
    """Check and read a pack. `origin` (a path or a bundled name) is for the error message."""
    try:
        table = parse_toml(text)
        if "digest" in table:
            raise ValueError("digest is taken of its text, and not said in it")
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return TemplatePack.model_validate({**table, "digest": digest})
    except ValidationError as error:
        raise InputError(f"template pack {origin} cannot be used: {error}") from error
    except ValueError as error:
        raise InputError(f"template pack {origin} cannot be read: {error}") from error


def _problems(key: str, body: str) -> list[str]:
    """What keeps this text from being that question, in words."""
    if key not in PLACEHOLDERS:
        return [f'unknown question "{key}" (known: {", ".join(PLACEHOLDERS)})']
    if not body.strip():
        return [f'question "{key}" is empty']
    try:
        unknown = _placeholders(body) - PLACEHOLDERS[key]
    except ValueError as error:
        return [f'question "{key}": {error}']
    known = ", ".join(sorted(PLACEHOLDERS[key])) or "none"
    return [f'question "{key}" has no placeholder {{{name}}} (it has: {known})' for name in unknown]


def _placeholders(body: str) -> set[str]:
    """The names in braces. Raises ValueError for anything that is not a plain name."""
    names = set()
    for _, name, spec, conversion in Formatter().parse(body):
        if name is None:
            continue
        if not name.isidentifier() or spec or conversion:
            raise ValueError(f'"{{{name}}}" is not a plain placeholder')
        names.add(name)
    return names
