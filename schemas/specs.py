"""What a prompt asks for, in a form that a scorer can check: objects, attributes, relations.

A spec is metadata of its record, under `SPEC_KEY`, so every run carries it. A prompt that could not
be read has null there: that is unknown, never a spec that anything would satisfy.
"""

from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from schemas.config import Frozen
from schemas.errors import InputError
from schemas.json_values import JsonMapping, JsonObject

SPEC_VERSION = 2
"""Raised when a field changes its meaning, so that older specs are not read as newer ones."""

SPEC_KEY = "prompt_spec"
LEAKS_KEY = "prompt_leaks"
CATEGORY_KEY = "category"
ORIGIN_KEY = "prompt_origin"


class PromptOrigin(Frozen):
    """Where a prompt comes from, under `ORIGIN_KEY` of its metadata. None: nobody said."""

    name: str | None = None
    revision: str | None = None
    licence: str | None = None

    @classmethod
    def of(cls, metadata: JsonMapping) -> Self:
        """As the metadata of a record has it; an origin in another form says nothing."""
        try:
            return cls.model_validate(metadata.get(ORIGIN_KEY) or {})
        except ValidationError:
            return cls()


class Category(StrEnum):
    """What a prompt tests, in the words of T2I-CompBench; `OBJECT` is a bare list of things."""

    COLOR = "color"
    SHAPE = "shape"
    TEXTURE = "texture"
    SPATIAL = "spatial"
    SPATIAL_3D = "3d_spatial"
    NON_SPATIAL = "non_spatial"
    NUMERACY = "numeracy"
    COMPLEX = "complex"
    OBJECT = "object"


class AttributeKind(StrEnum):
    """What an attribute speaks of. A detector can be asked for all but the last."""

    COLOUR = "colour"
    SHAPE = "shape"
    TEXTURE = "texture"  # what it is made of, and how its surface looks or feels
    SIZE = "size"
    STATE = "state"  # what it is doing or what was done to it: parked, sliced, wet
    QUALITY = "quality"  # what a picture hardly shows: delicious, expensive


class RelationKind(StrEnum):
    """How a relation could be checked."""

    SPATIAL_2D = "2d-spatial"  # by boxes
    SPATIAL_3D = "3d-spatial"  # by depth, or by what is inside or hidden
    NON_SPATIAL = "non-spatial"  # an action, or belonging


class SpecSource(StrEnum):
    """Where the objects of a spec come from."""

    ANNOTATION = "annotation"  # the prompt file; what it does not state was parsed
    PARSER = "parser"
    MODEL = "model"  # of an endpoint, where the parser is out of its depth


class Confidence(StrEnum):
    """How far a spec may be trusted to say what its prompt asks for."""

    HIGH = "high"  # a short prompt of known words, or an annotation
    MEDIUM = "medium"  # the rules had to guess: an unknown noun, a relative clause, a negation
    LOW = "low"  # a long caption: what is there is likely right, and much is missing


class Attribute(Frozen):
    """One property of an object."""

    kind: AttributeKind
    value: str = Field(min_length=1)


class SpecObject(Frozen):
    """One thing that a picture of the prompt shows, or several of a kind."""

    noun: str = Field(min_length=1)  # singular, compounds whole: `coffee table`
    attributes: tuple[Attribute, ...] = ()  # in the order of the prompt
    count: int | None = Field(default=None, ge=1)  # None: the prompt names no number

    @property
    def phrase(self) -> str:
        """What to ask a detector for: `red book`, `black and white cat`."""
        words = ""
        last = None
        for attribute in self.attributes:
            if attribute.kind is not AttributeKind.QUALITY:
                both = attribute.kind is last is AttributeKind.COLOUR
                words += ("and " if both else "") + attribute.value + " "
                last = attribute.kind
        return words + self.noun


class Relation(Frozen):
    """How one object stands to another; without an object, what it does: (dog, bark)."""

    subject: int = Field(ge=0)  # an index into the objects
    relation: str = Field(min_length=1)  # `left of`, `behind`, `hold`, `look at`
    object: int | None = Field(default=None, ge=0)
    kind: RelationKind


class PromptSpec(Frozen):
    """What a picture must show to fit its prompt."""

    version: Literal[2] = 2  # SPEC_VERSION
    category: Category
    source: SpecSource
    confidence: Confidence | None = None  # None: of version 1, which did not say
    reason: str = ""  # for that confidence
    objects: tuple[SpecObject, ...] = Field(min_length=1)
    relations: tuple[Relation, ...] = ()

    @model_validator(mode="after")
    def _relations_name_objects(self) -> Self:
        for relation in self.relations:
            if max(relation.subject, relation.object or 0) >= len(self.objects):
                raise ValueError(f"{relation} of only {len(self.objects)} objects")
        return self

    @property
    def detector_phrases(self) -> tuple[str, ...]:
        """One phrase an object, each once, in the order of the objects."""
        return tuple(dict.fromkeys(spec_object.phrase for spec_object in self.objects))

    def to_json(self) -> JsonObject:
        """As metadata of a record, with the derived phrases for readers that have no code."""
        phrases = list(self.detector_phrases)
        return self.model_dump(mode="json") | {"detector_phrases": phrases}

    @classmethod
    def from_json(cls, table: JsonMapping) -> Self:
        """The inverse of `to_json`. Reads version 1, too, which had no confidence.

        Raises InputError for what this version cannot read.
        """
        stored = {name: value for name, value in table.items() if name != "detector_phrases"}
        if stored.get("version") == 1:
            stored["version"] = SPEC_VERSION
        try:
            spec = cls.model_validate(stored)
        except ValidationError as error:
            raise InputError(
                f"expected a prompt spec of version {SPEC_VERSION}, found "
                f"{error.error_count()} faults, first {error.errors()[0]['msg']!r} at "
                f"{error.errors()[0]['loc']}; make it anew with `coppice prompts`"
            ) from error
        phrases = table.get("detector_phrases")
        if phrases is not None and phrases != list(spec.detector_phrases):
            raise InputError(
                f"expected detector phrases {spec.detector_phrases}, found {phrases}; change the "
                "objects, the phrases follow from them"
            )
        return spec
