"""From a prompt to its spec, by rules: English only, no model, the same answer everywhere.

What it cannot read is None, with a reason: a prompt in another language has no spec, and nothing
may take that for a spec that any picture fits. Of a long caption only what is sure is told.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from pipeline.prompts.absence import without_unseen_owners
from pipeline.prompts.language import is_english, is_latin, known_share
from pipeline.prompts.left_out import without_doubtful, without_names, without_quoted
from pipeline.prompts.lexicon import Lexicon, lexicon
from pipeline.prompts.phrases import pieces, tokens
from pipeline.prompts.reading import Reading
from pipeline.prompts.seen import SeenObject
from pipeline.prompts.sureness import confidence_of, sure_part
from pipeline.prompts.wording import strip_wording
from schemas.ids import normalise
from schemas.specs import (
    AttributeKind,
    Category,
    Confidence,
    PromptSpec,
    Relation,
    RelationKind,
    SpecObject,
    SpecSource,
)

_MAX_WORDS = 400  # relations of lists grow with the square of their length
_MIN_KNOWN_SHARE = 0.6  # of the words, for a prompt to count as English
_CLINGS = frozenset(("of", "with", "without", "from"))
_FORMS = (AttributeKind.COLOUR, AttributeKind.SHAPE, AttributeKind.TEXTURE)
# What a prompt begins with that says how a thing is drawn, though the drawing may be a thing, too.
_SHOWN_AS = re.compile(
    r"^(?:(?:an?|the)\s+)?(?:[\w-]+\s+){0,2}(?:logos?|icons?|emblems?|cross[- ]sections?"
    r"|silhouettes?|diagrams?|stickers?|depictions?)\s+of\s+"
    r"|^(?:an?\s+)?(?:pixel|line|clip|concept)[- ]art\s+",
    re.I,
)


class Unread(StrEnum):
    """Why a prompt has no spec."""

    LENGTH = f"more than {_MAX_WORDS} words"
    SCRIPT = "letters that are not Latin"
    LANGUAGE = "words that are not English"
    NO_OBJECT = "no object that a picture could show"
    DOUBT = "words that may be read in more than one way"
    UNSURE = "a long caption of which nothing is sure"


@dataclass(frozen=True, kw_only=True, slots=True)
class Parse:
    """A spec, or why there is none."""

    spec: PromptSpec | None
    unread: Unread | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Read:
    """What a prompt says, and how sure that is."""

    objects: tuple[SpecObject, ...]
    relations: tuple[Relation, ...]
    confidence: Confidence
    reason: str


def parse(prompt: str, category: Category | None = None) -> Parse:
    """Read a prompt. The category is guessed from what it says unless the caller knows it."""
    read = _read(prompt)
    if isinstance(read, Unread):
        return Parse(spec=None, unread=read)
    return Parse(
        spec=PromptSpec(
            category=category or guess_category(read.objects, read.relations),
            source=SpecSource.PARSER,
            confidence=read.confidence,
            reason=read.reason,
            objects=read.objects,
            relations=read.relations,
        )
    )


@lru_cache(maxsize=16)  # a prompt is read for its annotation, its spec and its leaks in turn
def _read(prompt: str) -> _Read | Unread:
    words_of = lexicon()
    text = without_quoted(normalise(unicodedata.normalize("NFKC", prompt)))
    text = strip_wording(text)
    text = _SHOWN_AS.sub("", text)
    words = tokens(text)
    if len(words) > _MAX_WORDS:
        return Unread.LENGTH
    if reason := _foreign(text, words, words_of):
        return reason
    sure_words = without_doubtful(words, words_of)
    if len(sure_words) < len(words) and not any(word[0].isalnum() for word in sure_words):
        return Unread.DOUBT
    reading = Reading(words_of, had_doubt=len(sure_words) < len(words))
    phrases = without_unseen_owners(pieces(without_names(sure_words, words_of), words_of), words_of)
    for index, phrase in enumerate(phrases):
        reading.take(phrase, phrases[index + 1 :])
    reading.end_clause()
    if not reading.seen:
        return Unread.NO_OBJECT
    confidence, why = confidence_of(words, reading, words_of)
    if confidence is not Confidence.LOW:
        if any(seen.is_doubtful for seen in reading.seen):
            return Unread.DOUBT
        return _Read(
            objects=_objects(reading.seen),
            relations=tuple(dict.fromkeys(reading.told.relations)),
            confidence=confidence,
            reason=why,
        )
    seen, relations = sure_part(reading, words_of)
    if not seen:
        return Unread.UNSURE
    return _Read(objects=_objects(seen), relations=relations, confidence=confidence, reason=why)


def _objects(seen_objects: Iterable[SeenObject]) -> tuple[SpecObject, ...]:
    """`a` counts as one only beside other numbers: "two dogs and a cat"."""
    listed = list(seen_objects)
    is_counted = any(seen.count for seen in listed)
    return tuple(
        SpecObject(
            noun=seen.noun,
            attributes=tuple(dict.fromkeys(seen.attributes)),
            count=seen.count or (1 if is_counted and seen.is_one else None),
        )
        for seen in listed
    )


def guess_category(objects: Sequence[SpecObject], relations: Sequence[Relation]) -> Category:
    """What a prompt seems to test, where its file does not say."""
    kinds = {attribute.kind for shown in objects for attribute in shown.attributes}
    forms = [kind for kind in _FORMS if kind in kinds]
    spatial_kinds = {relation.kind for relation in relations} - {RelationKind.NON_SPATIAL}
    if any(shown.count for shown in objects):
        return Category.NUMERACY
    if len(forms) > 1 or (forms and spatial_kinds):
        return Category.COMPLEX
    if forms:
        return Category[{"COLOUR": "COLOR"}.get(forms[0].name, forms[0].name)]
    if AttributeKind.SIZE in kinds:
        return Category.SHAPE
    if any(relation.relation not in _CLINGS and relation.object is None for relation in relations):
        return Category.NON_SPATIAL
    if spatial_kinds:
        is_deep = RelationKind.SPATIAL_3D in spatial_kinds
        return Category.SPATIAL_3D if is_deep else Category.SPATIAL
    return Category.NON_SPATIAL if relations else Category.OBJECT


def _foreign(text: str, words: Sequence[str], words_of: Lexicon) -> Unread | None:
    if not is_latin(text):
        return Unread.SCRIPT
    spelled = [word for word in words if word[0].isalpha()]
    is_known = known_share(spelled, words_of) >= _MIN_KNOWN_SHARE
    return None if is_known and is_english(text) else Unread.LANGUAGE
