"""Specs by a model, where the parser is at its end: long captions, other languages, negations.

The model says of each claim which words of the prompt it is from. A reading with a claim whose
words are not there, or of what the prompt says is absent, is set aside whole, with the reason: then
the parser's own reading stays, if it has one, and else the spec is unknown.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.endpoints.chat import Schema
from pipeline.prompts.curated import CuratedPrompt, CuratedSet
from pipeline.prompts.language import is_latin
from pipeline.prompts.parser import Unread, guess_category
from schemas.json_values import JsonObject
from schemas.specs import (
    Attribute,
    AttributeKind,
    Confidence,
    PromptSpec,
    Relation,
    RelationKind,
    SpecObject,
    SpecSource,
)

QUESTION = (
    "A picture is to be made for the text below. List what it must show, and nothing that the text "
    "does not ask for. Leave out what it says is absent, and what no picture shows. For every "
    "claim copy the words of the text that it is from, letter by letter, in the text's own "
    "language; write nouns, values and relations in English, nouns in the singular. A count is "
    "null unless the text names a number. Subjects and objects of relations are positions in the "
    "list of objects, from 0; object is null for what a thing does by itself. If you cannot tell, "
    "say so with is_sure false.\n\nText: "
)
_NEGATED = r"(?<!\w)(?:no|not|never|without|nor|neither|free of|n't)\s+(?:[\w-]+\s+){0,2}?"
_TEXT: JsonObject = {"type": "string", "minLength": 1, "maxLength": 200}
_INDEX: JsonObject = {"type": "integer", "minimum": 0}


def _table(**properties: JsonObject) -> JsonObject:
    return {
        "type": "object",
        "properties": {**properties},
        "required": [*properties],
        "additionalProperties": False,
    }


def _list_of(items: JsonObject) -> JsonObject:
    return {"type": "array", "items": items, "maxItems": 40}


def _or_null(kind: JsonObject) -> JsonObject:
    return {"anyOf": [kind, {"type": "null"}]}


_ATTRIBUTE = _table(words=_TEXT, kind={"type": "string", "enum": [*AttributeKind]}, value=_TEXT)
_OBJECT = _table(
    words=_TEXT,
    noun=_TEXT,
    count=_or_null({"type": "integer", "minimum": 1}),
    count_words=_or_null(_TEXT),
    attributes=_list_of(_ATTRIBUTE),
)
_RELATION = _table(
    words=_TEXT,
    subject=_INDEX,
    relation=_TEXT,
    object=_or_null(_INDEX),
    kind={"type": "string", "enum": [*RelationKind]},
)
SPEC = Schema(
    name="prompt_spec",
    body=_table(
        is_sure={"type": "boolean"}, objects=_list_of(_OBJECT), relations=_list_of(_RELATION)
    ),
)


class _Claim(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    words: str


class _Attribute(_Claim):
    kind: AttributeKind
    value: str


class _Object(_Claim):
    noun: str
    count: int | None = Field(ge=1)
    count_words: str | None
    attributes: list[_Attribute]


class _Relation(_Claim):
    subject: int
    relation: str
    object: int | None
    kind: RelationKind


class _Reading(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    is_sure: bool
    objects: list[_Object]
    relations: list[_Relation]


class SetAside(Exception):
    """A model's reading does not fit its prompt; the message says how."""


def read_by_model(
    curated: CuratedSet, model: str, ask: Callable[[Sequence[str]], Sequence[str | None]]
) -> CuratedSet:
    """The set with a model's specs where the parser is out of its depth. `ask` gives an answer a
    prompt, or None for one that has none.
    """
    wanted = [each for each in curated.prompts if is_beyond_the_parser(each)]
    answers = ask([each.prompt.text for each in wanted])
    read = {
        each.prompt.text: _with_answer(each, answer, model)
        for each, answer in zip(wanted, answers, strict=True)
    }
    return replace(
        curated,
        kept=[read.get(each.prompt.text, each) for each in curated.kept],
        dropped=[read.get(each.prompt.text, each) for each in curated.dropped],
    )


def is_beyond_the_parser(curated: CuratedPrompt) -> bool:
    """Whether rules read too little of a prompt, or may have read too much."""
    spec = curated.spec
    if spec is None:
        return curated.unread is not None and curated.unread is not Unread.NO_OBJECT
    is_guess = spec.confidence is Confidence.LOW or "negation" in spec.reason
    return spec.source is SpecSource.PARSER and is_guess


def _with_answer(curated: CuratedPrompt, answer: str | None, model: str) -> CuratedPrompt:
    try:
        spec = spec_of_answer(curated, answer, model)
    except SetAside as fault:
        return replace(curated, model_fault=str(fault))
    return replace(curated, spec=spec, unread=None, category=curated.category or spec.category)


def spec_of_answer(curated: CuratedPrompt, answer: str | None, model: str) -> PromptSpec:
    """The spec that a model's answer says. Raises SetAside."""
    if answer is None:
        raise SetAside("the endpoint had no answer")
    try:
        reading = _Reading.model_validate_json(answer)
        if not reading.is_sure:
            raise SetAside("the model is not sure")
        _check_words(reading, curated.prompt.text)
        objects = tuple(map(_spec_object, reading.objects))
        relations = tuple(
            Relation(
                subject=claim.subject,
                relation=claim.relation.casefold(),
                object=claim.object,
                kind=claim.kind,
            )
            for claim in reading.relations
        )
        return PromptSpec(
            category=curated.category or guess_category(objects, relations),
            source=SpecSource.MODEL,
            confidence=Confidence.MEDIUM,
            reason=f"read by {model}, every claim of it in words of the prompt",
            objects=objects,
            relations=relations,
        )
    except ValidationError as error:
        raise SetAside(f"no reading: {error.errors()[0]['msg']}") from error


def _spec_object(claim: _Object) -> SpecObject:
    attributes = tuple(
        Attribute(kind=attribute.kind, value=attribute.value.casefold().strip())
        for attribute in claim.attributes
    )
    return SpecObject(noun=claim.noun.casefold().strip(), count=claim.count, attributes=attributes)


def _check_words(reading: _Reading, prompt: str) -> None:
    """Raises SetAside for a claim that is not in the prompt's words, or of what is absent."""
    text = _plain(prompt)
    claims: list[_Claim] = [*reading.objects, *reading.relations]
    claims += [attribute for shown in reading.objects for attribute in shown.attributes]
    numbers = [shown.count_words for shown in reading.objects if shown.count is not None]
    for words in [*(claim.words for claim in claims), *numbers]:
        if words is None or not _is_in(_plain(words), text):
            raise SetAside(f"it names {words!r:.60}, which is not in the prompt")
    for shown in reading.objects:
        if re.search(_NEGATED + re.escape(_plain(shown.words)), text):
            raise SetAside(f"it asks for {shown.words!r:.60}, which is said to be absent")


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _is_in(words: str, text: str) -> bool:
    """Whether these words stand in the text: as whole words, in scripts that have spaces."""
    if not words:
        return False
    return (
        re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None
        if is_latin(words)
        else words in text
    )
