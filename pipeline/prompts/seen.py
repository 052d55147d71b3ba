"""What a prompt is taken apart into while it is read: objects, relations, and clauses that wait."""

from dataclasses import dataclass, field

from schemas.specs import Attribute, RelationKind


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


@dataclass(kw_only=True, slots=True)
class Clause:
    """A relative clause, and whom the words after it speak of."""

    outer: list[int]
    object_of: list[int] = field(default_factory=list)  # "the ball that the boy throws"
    is_whose: bool = False  # its own subject is still to come
    is_done: bool = False  # it has said what it says
