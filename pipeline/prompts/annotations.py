"""What a prompt file already says of its prompts: the category, and T2I-R1's annotations.

An annotation adds to what the parser reads and overrules its counts. It is not taken on faith: the
published file names things that are not in the prompt, and "side" as the object of "on side of a
key". Then it is set aside whole, and the reason is reported.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pydantic import TypeAdapter, ValidationError

from pipeline.prompts.lexicon import lexicon
from pipeline.prompts.parser import parse
from pipeline.prompts.phrases import tokens
from schemas.config import Frozen
from schemas.json_values import JsonMapping, JsonValue
from schemas.specs import (
    CATEGORY_KEY,
    Attribute,
    Category,
    Confidence,
    PromptSpec,
    Relation,
    SpecObject,
    SpecSource,
)

_SPLITS = ("_train", "_val")  # T2I-CompBench names its files category_split.txt
_TASK_TYPES = {"non": Category.NON_SPATIAL}  # T2I-R1's other names are ours


class _Spatial(Frozen):
    obj1: str
    obj2: str
    locality: str


class _Count(Frozen):
    obj_name: str
    num: int


class _Annotation(Frozen):
    """The annotations of one row of T2I-R1's prompt file."""

    nouns: tuple[str, ...]
    attr_nouns: tuple[str, ...] | None = None
    spatial_info: _Spatial | None = None
    numeracy_info: tuple[_Count, ...] | None = None


_ANNOTATION = TypeAdapter(_Annotation)


class BadAnnotation(Exception):
    """An annotation does not fit its prompt; the message says how."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotated:
    """What came of a row's annotation. Both are None where it has none."""

    spec: PromptSpec | None = None
    fault: str | None = None  # why it was set aside


def known_category(source: str, metadata: JsonMapping) -> Category | None:
    """What the prompt's file says that it tests: a column, T2I-R1's `task_type`, or its name."""
    for column in (CATEGORY_KEY, "task_type"):
        if (category := _category(metadata.get(column))) is not None:
            return category
    stem = PurePosixPath(source).stem
    return next(
        (_category(stem.removesuffix(split)) for split in _SPLITS if stem.endswith(split)), None
    )


def read_annotation(prompt: str, metadata: JsonMapping, category: Category | None) -> Annotated:
    """The spec that a row's annotation and the parser make together."""
    if "nouns" not in metadata:
        return Annotated()
    columns = {name: metadata[name] for name in _Annotation.model_fields if name in metadata}
    try:
        annotation = _ANNOTATION.validate_python(columns)
        return Annotated(spec=_spec(prompt, annotation, category))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        return Annotated(fault=f"the annotation's {field}: {first['msg']}")
    except BadAnnotation as bad:
        return Annotated(fault=str(bad))


def _category(name: JsonValue) -> Category | None:
    if not isinstance(name, str):
        return None
    return _TASK_TYPES.get(name) or next((c for c in Category if c.value == name), None)


def _spec(prompt: str, annotation: _Annotation, category: Category | None) -> PromptSpec:
    parsed = parse(prompt, category).spec
    objects = _Objects(prompt, parsed.objects if parsed else ())
    for noun in annotation.nouns:
        objects.add(noun)
    for phrase in annotation.attr_nouns or ():
        objects.describe(phrase)
    for count in annotation.numeracy_info or ():
        objects.set_count(count.obj_name, count.num)
    relations = parsed.relations if parsed else ()
    if annotation.spatial_info:
        relations = (*relations, _relation(annotation.spatial_info, objects))
    if not objects.listed:
        raise BadAnnotation("the annotation names nothing that a picture could show")
    return PromptSpec(
        category=category or (parsed.category if parsed else Category.OBJECT),
        source=SpecSource.ANNOTATION,
        confidence=Confidence.HIGH,
        reason="an annotation that fits the prompt",
        objects=tuple(objects.listed),
        relations=tuple(dict.fromkeys(relations)),
    )


def _relation(spatial: _Spatial, objects: "_Objects") -> Relation:
    preposition = lexicon().prepositions.get(tuple(tokens(spatial.locality)))
    if preposition is None:
        raise BadAnnotation(f"the annotation's locality {spatial.locality!r} is unknown")
    subject = objects.index(spatial.obj1)
    return Relation(
        subject=subject,
        relation=preposition.name,
        object=objects.index(spatial.obj2, other_than=subject),
        kind=preposition.kind,
    )


class _Objects:
    """The objects of a prompt: those that were parsed, and what the annotation adds."""

    def __init__(self, prompt: str, parsed: Sequence[SpecObject]) -> None:
        self.listed = list(parsed)
        self._words = {form for word in tokens(prompt) for form in _forms(word)}

    def add(self, noun: str) -> None:
        """An annotated noun, unless it was parsed too or cannot be shown."""
        words = tokens(noun)
        if not words or not self._words.issuperset(words):
            raise BadAnnotation(f"the annotation names {noun!r}, which is not in the prompt")
        if self._try_index(noun) is None and not lexicon().is_abstract(words[-1]):
            self.listed.append(SpecObject(noun=" ".join((*words[:-1], _singular(words[-1])))))

    def describe(self, phrase: str) -> None:
        """Give `wooden chair`'s attribute to the chair. Words that the prompt lacks are left out:
        the file says `soft pillow` of "a fabric pillow"."""
        words = tokens(phrase)
        index = self._try_index(phrase)
        if index is None:
            return
        described = self.listed[index]
        known = {attribute.value for attribute in described.attributes}
        known |= set(described.noun.split())
        new = [word for word in words[:-1] if word not in known and word in self._words]
        attributes = (*described.attributes, *_attributes(new))
        self.listed[index] = described.model_copy(update={"attributes": attributes})

    def set_count(self, noun: str, count: int) -> None:
        if count < 1:
            raise BadAnnotation(f"the annotation counts {count} of {noun!r}")
        index = self.index(noun)
        self.listed[index] = self.listed[index].model_copy(update={"count": count})

    def index(self, noun: str, *, other_than: int | None = None) -> int:
        """Where the object of this name stands. Raises BadAnnotation if there is none."""
        index = self._try_index(noun, other_than=other_than)
        if index is None:
            raise BadAnnotation(f"the annotation relates {noun!r}, which is no object")
        return index

    def _try_index(self, noun: str, *, other_than: int | None = None) -> int | None:
        words = tokens(noun)
        for is_same in (_is_whole, _is_head, _is_part):
            for index, listed in enumerate(self.listed):
                if index != other_than and words and is_same(words, listed.noun.split()):
                    return index
        return None


def _is_whole(words: Sequence[str], noun: Sequence[str]) -> bool:
    return list(words) == list(noun)


def _is_head(words: Sequence[str], noun: Sequence[str]) -> bool:
    return not _forms(words[-1]).isdisjoint(_forms(noun[-1]))


def _is_part(words: Sequence[str], noun: Sequence[str]) -> bool:
    return any(_is_head(words, [word]) for word in noun)


def _attributes(words: Sequence[str]) -> Iterator[Attribute]:
    kinds = lexicon().attributes
    return (Attribute(kind=kinds[word], value=word) for word in words if word in kinds)


def _forms(word: str) -> set[str]:
    """The word and what it may be the plural of; the published file also has `headphoneses`."""
    return {word, _singular(word), word.removesuffix("s"), word.removesuffix("es")}


def _singular(word: str) -> str:
    return lexicon().singular(word)
