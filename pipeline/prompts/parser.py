"""From a prompt to its spec, by rules: English only, no model, the same answer everywhere.

What it cannot read is None, with a reason: a prompt in another language has no spec, and nothing
may take that for a spec that any picture fits.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from pipeline.prompts.language import is_english, is_latin, known_share
from pipeline.prompts.lexicon import Lexicon, Preposition, lexicon
from pipeline.prompts.noun_phrases import NounPhrase
from pipeline.prompts.phrases import Join, Piece, Verb, pieces, tokens
from pipeline.prompts.wording import strip_wording
from schemas.ids import normalise
from schemas.specs import (
    Attribute,
    AttributeKind,
    Category,
    PromptSpec,
    Relation,
    RelationKind,
    SpecObject,
    SpecSource,
)

_MAX_WORDS = 400  # relations of lists grow with the square of their length
_MIN_KNOWN_SHARE = 0.6  # of the words, for a prompt to count as English
_GEOMETRY = frozenset(
    ("left of", "right of", "above", "below", "next to", "in front of", "behind", "hidden by")
)
_CLINGS = frozenset(("of", "with", "without", "from"))  # to the noun right before it
_COMPLETES = frozenset(("to", "with", "for", "from", "about"))  # "add a touch to"
_FORMS = (AttributeKind.COLOUR, AttributeKind.SHAPE, AttributeKind.TEXTURE)


class Unread(StrEnum):
    """Why a prompt has no spec."""

    LENGTH = f"more than {_MAX_WORDS} words"
    SCRIPT = "letters that are not Latin"
    LANGUAGE = "words that are not English"
    NO_OBJECT = "no object that a picture could show"


@dataclass(frozen=True, kw_only=True, slots=True)
class Parse:
    """A spec, or why there is none."""

    spec: PromptSpec | None
    unread: Unread | None = None


def parse(prompt: str, category: Category | None = None) -> Parse:
    """Read a prompt. The category is guessed from what it says unless the caller knows it."""
    reading = _read(prompt)
    if isinstance(reading, Unread):
        return Parse(spec=None, unread=reading)
    objects, relations = reading
    return Parse(
        spec=PromptSpec(
            category=category or guess_category(objects, relations),
            source=SpecSource.PARSER,
            objects=objects,
            relations=relations,
        )
    )


@lru_cache(maxsize=16)  # a prompt is read for its annotation, its spec and its leaks in turn
def _read(prompt: str) -> tuple[tuple[SpecObject, ...], tuple[Relation, ...]] | Unread:
    words_of = lexicon()
    text = strip_wording(normalise(unicodedata.normalize("NFKC", prompt)))
    words = tokens(text)
    if len(words) > _MAX_WORDS:
        return Unread.LENGTH
    if reason := _foreign(text, words, words_of):
        return reason
    reading = _Reading(words_of)
    phrases = pieces(words, words_of)
    for index, phrase in enumerate(phrases):
        reading.take(phrase, phrases[index + 1 :])
    reading.end_clause()
    if not reading.seen:
        return Unread.NO_OBJECT
    return reading.objects(), tuple(dict.fromkeys(reading.relations))


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


@dataclass(kw_only=True, slots=True)
class _SeenObject:
    """An object while the prompt is read: its attributes may come later ("the cat is black")."""

    noun: str
    attributes: list[Attribute]
    count: int | None
    is_one: bool


@dataclass(kw_only=True, slots=True)
class _Link:
    """A relation that waits for its object."""

    subjects: list[int]
    relation: str
    kind: RelationKind
    is_verb: bool
    is_direct: bool = False  # "holds a book", not "sits on a chair"


@dataclass(slots=True)
class _Reading:
    """What is known after each phrase."""

    words: Lexicon
    seen: list[_SeenObject] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)
    _subject: list[int] = field(default_factory=list)  # of the clause
    _group: list[int] = field(default_factory=list)  # the last noun phrases, joined by "and"
    _group_link: _Link | None = None  # what made the group an object
    _open: _Link | None = None
    _last: Piece | None = None
    _is_joined: bool = False
    _has_verb: bool = False

    def objects(self) -> tuple[SpecObject, ...]:
        """`a` counts as one only beside other numbers: "two dogs and a cat"."""
        is_counted = any(seen.count for seen in self.seen)
        return tuple(
            SpecObject(
                noun=seen.noun,
                attributes=tuple(dict.fromkeys(seen.attributes)),
                count=seen.count or (1 if is_counted and seen.is_one else None),
            )
            for seen in self.seen
        )

    def take(self, piece: Piece, ahead: Sequence[Piece]) -> None:
        """Read on by one phrase; `ahead` is the rest."""
        match piece:
            case NounPhrase(nouns=()):
                self._describe(piece)
            case NounPhrase(is_abstract=True):
                self._take_abstract(piece, ahead)
            case NounPhrase():
                self._take_object(piece, ahead)
            case Verb():
                self._take_verb(piece)
            case Preposition():
                self._take_preposition(piece)
            case Join():
                self._take_join(piece, ahead)
        self._last = piece

    def end_clause(self) -> None:
        """Write down what waits for an object in vain, and forget the subject."""
        self._close_verb()
        self._open = self._group_link = None
        self._group, self._subject = [], []
        self._is_joined = self._has_verb = False

    # Objects

    def _take_object(self, phrase: NounPhrase, ahead: Sequence[Piece]) -> None:
        index = len(self.seen)
        self.seen.append(
            _SeenObject(
                noun=phrase.noun,
                attributes=list(phrase.attributes),
                count=phrase.count,
                is_one=phrase.is_one,
            )
        )
        if self._open:
            self._relate(self._open, index)
            self._group, self._group_link, self._open = [index], self._open, None
        elif self._is_joined and self._group and not self._begins_clause(ahead):
            self._group.append(index)
            if self._group_link:
                self._relate(self._group_link, index)
        else:
            self._group, self._group_link = [index], None
            if self._has_verb or not self._subject:
                self._subject, self._has_verb = self._group, False
        self._is_joined = False

    def _begins_clause(self, ahead: Sequence[Piece]) -> bool:
        """Whether this noun, though joined, is the subject of what follows."""
        return self._group_link is not None and bool(ahead) and ahead[0] is Join.AUXILIARY

    def _take_abstract(self, phrase: NounPhrase, ahead: Sequence[Piece]) -> None:
        """What cannot be shown ends a relation, or carries it on: "on the edge of the table"."""
        self._is_joined = False
        if self._open and self._open.is_verb:
            self._open.relation += f" {phrase.noun}"  # "take a nap"
        elif not (ahead and isinstance(ahead[0], Preposition) and ahead[0].name == "of"):
            self._open = None

    def _describe(self, phrase: NounPhrase) -> None:
        """Attributes without a noun belong to the subject ("is red") or the last noun."""
        is_said = self._last is Join.AUXILIARY
        described = self._subject if is_said else self._group[-1:]
        for index in described:
            self.seen[index].attributes.extend(phrase.attributes)
        self._open = None
        self._is_joined = False

    # Relations

    def _take_verb(self, verb: Verb) -> None:
        self._close_verb()
        if self._group_link is None and self._group and not self._has_verb:
            self._subject = self._group
        self._has_verb = True
        self._is_joined = False
        is_having = verb.verb == "have"
        self._open = _Link(
            subjects=list(self._subject or self._group),
            relation="with" if is_having else verb.verb,
            kind=RelationKind.NON_SPATIAL,
            is_verb=not is_having,
            is_direct=True,
        )

    def _take_preposition(self, preposition: Preposition) -> None:
        if self._open and isinstance(self._last, Verb):
            self._follow_verb(preposition, self._last.verb)
            return
        if self._open and isinstance(self._last, NounPhrase) and self._last.is_abstract:
            self._follow_abstract(preposition)
            return
        self._close_verb()
        self._open = _Link(
            subjects=self._nearest(preposition),
            relation=preposition.name,
            kind=preposition.kind,
            is_verb=False,
        )
        self._is_joined = False

    def _follow_verb(self, preposition: Preposition, verb: str) -> None:
        """`sits on` says where, `looks at` is an action, `runs behind` is both."""
        assert self._open
        self._open.is_direct = False
        is_place = preposition.kind is not RelationKind.NON_SPATIAL
        is_at = verb in self.words.place_verbs and is_place
        if is_at or preposition.name in _GEOMETRY:
            if not is_at:
                self._close_verb_of(self._open)
            self._open.relation, self._open.kind = preposition.name, preposition.kind
            self._open.is_verb = False
        else:
            self._open.relation += f" {preposition.name}"

    def _follow_abstract(self, preposition: Preposition) -> None:
        """`on the edge of`, `add a touch to`; but "take a nap on" is an action, then a place."""
        assert self._open
        if preposition.name == "of":
            return
        link = self._open
        if link.is_verb and preposition.name in _COMPLETES:
            link.relation += f" {preposition.name}"
            return
        self._close_verb()
        self._open = _Link(
            subjects=link.subjects,
            relation=preposition.name,
            kind=preposition.kind,
            is_verb=False,
        )

    def _nearest(self, preposition: Preposition) -> list[int]:
        """Who a preposition after a noun speaks of."""
        if isinstance(self._last, Join):
            return list(self._subject) if self._last is not Join.STOP else []
        is_direct = self._group_link is not None and self._group_link.is_direct
        is_actor = any(self.seen[i].noun in self.words.people for i in self._subject)
        if is_direct and is_actor and preposition.name not in _CLINGS:
            return list(self._subject)  # "a man holds a book at the beach"
        return self._group[-1:]

    def _relate(self, link: _Link, index: int) -> None:
        for subject in link.subjects:
            if subject != index:
                self.relations.append(
                    Relation(subject=subject, relation=link.relation, object=index, kind=link.kind)
                )

    def _close_verb(self) -> None:
        if self._open and self._open.is_verb:
            self._close_verb_of(self._open)
            self._open = None

    def _close_verb_of(self, link: _Link) -> None:
        self.relations.extend(
            Relation(subject=subject, relation=link.relation, kind=link.kind)
            for subject in link.subjects
            if link.relation != "be"
        )

    # The rest

    def _take_join(self, join: Join, ahead: Sequence[Piece]) -> None:
        match join:
            case Join.AND:
                self._close_verb()
                self._is_joined = True
            case Join.COMMA:
                self._close_verb()
                self._is_joined = self._is_list(ahead)
            case Join.AUXILIARY:
                if self._group and self._group_link is None:
                    self._subject = self._group
                self._has_verb = True
            case Join.PRONOUN:
                self._close_verb()
                self._open = None
            case Join.POSSESSIVE:
                self._take_owner()
            case Join.STOP:
                subject = self._subject
                self.end_clause()
                self._subject = subject  # "while walking" is said of the same one
            case Join.MODAL:
                self._close_verb()

    def _take_owner(self) -> None:
        """What is done to "the dog's belly" is done to both; "the dog's tail wags" is not."""
        if self._group_link:
            self._is_joined = True
        else:
            del self._group[-1:]  # in place: the subject is the same list

    def _is_list(self, ahead: Sequence[Piece]) -> bool:
        """Whether a comma is one of a list of nouns, and not the end of what was said."""
        if self._group_link is None and not self._has_verb:
            return True
        for piece in ahead:
            if piece is Join.AND:
                return True
            if not isinstance(piece, NounPhrase) and piece is not Join.COMMA:
                return False
        return False
