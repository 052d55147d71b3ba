"""What a prompt is taken apart into while it is read: objects, relations, and clauses that wait."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.prompts.noun_phrases import NounPhrase
from schemas.specs import Attribute, Relation, RelationKind


@dataclass(kw_only=True, slots=True)
class SeenObject:
    """An object while the prompt is read: its attributes may come later ("the cat is black")."""

    noun: str
    attributes: list[Attribute]
    count: int | None
    is_one: bool
    num_own_attributes: int  # that stood before the noun; they come first
    is_introduced: bool  # by an article, a number or an attribute: hardly a verb
    is_doubtful: bool  # its noun holds a plural, so perhaps a verb


@dataclass(kw_only=True, slots=True)
class Link:
    """A relation that waits for its object."""

    subjects: list[int]
    relation: str
    kind: RelationKind
    is_verb: bool
    is_direct: bool = False  # "holds a book", not "sits on a chair"
    is_sure: bool = False  # its subject stands right before it
    is_done_to: bool = False  # its subject suffers it: "is thrown"
    is_passive: bool = False  # "is chased by": who comes now does it to the subjects


@dataclass(kw_only=True, slots=True)
class Clause:
    """A relative clause, and whom the words after it speak of."""

    outer: list[int]
    head: list[int]  # whom it is said of
    object_of: list[int] = field(default_factory=list)  # "the ball that the boy throws"
    is_whose: bool = False  # it has a subject of its own
    is_waiting: bool = False  # which is still to come
    is_done: bool = False  # it has said what it says


@dataclass(kw_only=True, slots=True)
class Told:
    """The relations that were said, and of which of them nothing makes unsure."""

    relations: list[Relation] = field(default_factory=list)
    sure: set[Relation] = field(default_factory=set)  # nothing stood between

    def relate(self, link: Link, index: int, *, is_sure: bool) -> None:
        """Write down a link that has its object."""
        for subject in link.subjects:
            if subject == index:
                continue
            first, second = (index, subject) if link.is_passive else (subject, index)
            relation = Relation(
                subject=first, relation=link.relation, object=second, kind=link.kind
            )
            self.relations.append(relation)
            if is_sure and link.is_sure:
                self.sure.add(relation)

    def act(self, link: Link) -> None:
        """Write down an action that has no object."""
        self.relations.extend(
            Relation(subject=subject, relation=link.relation, kind=link.kind)
            for subject in link.subjects
            if link.relation != "be" and not link.is_done_to
        )


def seen_object(phrase: NounPhrase, noun: str) -> SeenObject:
    """The object of a noun phrase."""
    return SeenObject(
        noun=noun,
        attributes=list(phrase.attributes),
        count=phrase.count,
        is_one=phrase.is_one,
        num_own_attributes=len(phrase.attributes),
        is_introduced=bool(
            phrase.is_one or phrase.is_definite or phrase.count or phrase.attributes
        ),
        is_doubtful=phrase.is_doubtful,
    )


def named_before(objects: Sequence[SeenObject], phrase: NounPhrase) -> int | None:
    """The only object called so. Attributes that it lacks make another object of it."""
    named = [
        index
        for index, seen in enumerate(objects)
        if seen.noun == phrase.noun or seen.noun.split()[-1] == phrase.noun
    ]
    if len(named) == 1 and set(phrase.attributes) <= set(objects[named[0]].attributes):
        return named[0]
    return None
