"""What is known after each phrase of a prompt: objects, who stands how to whom, what is sure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.prompts.absence import (
    Absence,
    Share,
    goes_on_as_list,
    is_owner_of_thing,
)
from pipeline.prompts.lexicon import Lexicon, Preposition
from pipeline.prompts.noun_phrases import NounPhrase
from pipeline.prompts.phrases import Join, Piece, Verb, is_subject_and_verb
from pipeline.prompts.seen import Clause, Link, SeenObject, Told, named_before, seen_object
from schemas.specs import RelationKind

_GEOMETRY = frozenset(
    ("left of", "right of", "above", "below", "next to", "in front of", "behind", "hidden by")
)
_CLINGS = frozenset(("of", "with", "without", "from"))  # to the noun right before it
_COMPLETES = frozenset(("to", "with", "for", "from", "about"))  # "add a touch to"
_SAID = RelationKind.NON_SPATIAL
_GOES_ON = (Join.AUXILIARY, Join.MODAL, Join.RELATIVE, Join.WHO, Join.AND, Join.OR, Join.COMMA)


@dataclass(slots=True)
class Reading:
    """Takes phrases one after the other; `seen` and `told` are what they said."""

    words: Lexicon
    seen: list[SeenObject] = field(default_factory=list)
    told: Told = field(default_factory=Told)
    had_doubt: bool = False  # a sentence was left out
    had_negation: bool = False
    had_clause: bool = False
    _absence: Absence = field(default_factory=Absence)
    _share: Share = field(default_factory=Share)
    _subject: list[int] = field(default_factory=list)  # of the clause
    _group: list[int] = field(default_factory=list)  # the last noun phrases, joined by "and"
    _group_link: Link | None = None  # what made the group an object
    _open: Link | None = None
    _clause: Clause | None = None
    _verb: Verb | None = None  # the last of the clause
    _last: Piece | None = None
    _before_last: Piece | None = None
    _is_joined: bool = False
    _has_verb: bool = False

    def take(self, piece: Piece, ahead: Sequence[Piece]) -> None:
        """Read on by one phrase; `ahead` is the rest."""
        if piece is Join.NO:
            self.had_negation = True
            self._open = None  # "holding no umbrella" says nothing of what is held
            self._absence.begin()
        elif self.seen and self._share.swallows(piece, self._last):
            self._open = None
        elif not (self._absence.is_open and self._absence.swallows(piece, ahead)):
            self._take(piece, ahead)
        self._before_last, self._last = self._last, piece

    def _take(self, piece: Piece, ahead: Sequence[Piece]) -> None:
        match piece:
            case NounPhrase(nouns=()):
                self._describe(piece)
            case NounPhrase(nouns=("one",)) if self.had_negation or not self.seen:
                self._open = None  # of what was named as absent: "no red cars, only blue ones"
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

    def end_clause(self) -> None:
        """Write down what waits for an object in vain, and forget the subject."""
        self._close_verb()
        self._open = self._group_link = self._clause = self._verb = None
        self._group, self._subject = [], []
        self._is_joined = self._has_verb = self._share.is_open = False

    # Objects

    def _take_object(self, phrase: NounPhrase, ahead: Sequence[Piece]) -> None:
        index = self._index_of(phrase)
        if self._open and is_owner_of_thing(ahead, self.words):
            return  # "beside the queen's chair" is not beside the queen
        if self._open:
            self._hand_to_wearer(self._open, phrase)
            self._relate(self._open, index)
            self._group, self._group_link, self._open = [index], self._open, None
        elif self._is_joined and self._group and not self._begins_clause(phrase, ahead):
            self._group.append(index)
            if self._group_link:
                self._relate(self._group_link, index)
        else:
            is_new = self._is_joined and bool(self._group)
            self._group, self._group_link = [index], None
            if self._has_verb or is_new or not self._subject:
                self._subject, self._has_verb = self._group, False
        self._is_joined = False
        if self._clause and self._clause.is_waiting:
            self._clause.is_waiting = False
            self._subject, self._group, self._group_link = [index], [index], None

    def _hand_to_wearer(self, link: Link, phrase: NounPhrase) -> None:
        """`a man in a suit beside a car`: the man is. But "with a hat on its head"."""
        worn = self._group_link
        if not worn or worn.relation not in ("in", "with") or link.kind is _SAID:
            return
        is_of_last = link.subjects == self._group[-1:] and not link.is_verb
        is_worn = self.seen[self._group[-1]].noun.split()[-1] in self.words.worn
        if is_of_last and is_worn and phrase.nouns[-1] not in self.words.body_parts:
            link.subjects, link.is_sure = list(worn.subjects), False

    def _index_of(self, phrase: NounPhrase) -> int:
        """Where its object stands: a new one, or for "the boat" the boat that was named."""
        if phrase.is_definite:
            named = named_before(self.seen, phrase)
            if named is not None and not (self._open and named in self._open.subjects):
                return named
        last = self.seen[-1].noun if self.seen else phrase.noun
        self.seen.append(seen_object(phrase, noun=last if phrase.noun == "one" else phrase.noun))
        return len(self.seen) - 1

    def _begins_clause(self, phrase: NounPhrase, ahead: Sequence[Piece]) -> bool:
        """Whether this noun, though joined, is the subject of what follows."""
        follows = ahead[0] if ahead else None
        is_object = self._group_link is not None
        if follows is Join.AUXILIARY:
            return is_object or self._has_verb
        if isinstance(follows, Verb):
            return (is_object or self._has_verb) and (
                follows.is_finite or self._before_last is Join.COMMA
            )
        if isinstance(follows, Preposition) and self._group_link and not self._group_link.is_verb:
            # "a knight on a horse and a princess in a gown"
            is_own = follows.name != "of" and self._group_link.relation != "of"
            return is_own and self.words.acts(phrase.noun) and self._has_actor()
        return False

    def _has_actor(self) -> bool:
        return any(self.words.acts(self.seen[index].noun) for index in self._subject)

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
        if self._clause:
            self._clause.is_done = True

    # Clauses

    def _take_relative(self, join: Join, ahead: Sequence[Piece]) -> None:
        """What follows is said of the nearest noun; of `who`, of the nearest person."""
        self._close_verb()
        self._open = None
        self.had_clause = True
        head = self._nearest_person() if join is Join.WHO else self._group[-1:]
        if self._clause and self._last is Join.AND:
            head = self._clause.head  # "whose hat is blue and whose car is red"
        outer = self._subject if self._subject and not self._has_verb else head
        is_whose = join is Join.WHOSE
        self._clause = Clause(outer=list(outer), head=head, is_whose=is_whose, is_waiting=is_whose)
        self._group, self._subject, self._group_link = list(head), list(head), None
        self._is_joined = self._has_verb = False
        if is_whose:
            self._open = Link(subjects=list(head), relation="with", kind=_SAID, is_verb=False)
        elif is_subject_and_verb(ahead):
            self._clause.object_of = list(head)
            self._group, self._subject = [], []

    def _nearest_person(self) -> list[int]:
        near = [*self._group[-1:], *self._subject]
        people = [index for index in near if self.words.acts(self.seen[index].noun)]
        return people[:1] or self._subject[-1:] or self._group[-1:]

    def _leave_clause(self) -> None:
        """The words that follow are said of whom the words before the clause spoke."""
        assert self._clause
        self._subject = list(self._clause.outer)
        self._group, self._group_link = list(self._clause.outer), None
        self._has_verb, self._clause = False, None

    # Relations

    def _take_verb(self, verb: Verb) -> None:
        self._close_verb()
        if self._clause and self._clause.object_of:
            self._relate_clause(self._clause, verb)
            return
        if self._clause and self._clause.is_done and self._last not in _GOES_ON:
            self._leave_clause()
        if self._group_link is None and self._group and not self._has_verb:
            self._subject = self._group
        if self._group_link and self._group_link.is_passive and self._last is not Join.AUXILIARY:
            self._subject = self._group  # "chased by a dog wearing a hat"
        is_fronted = self._is_fronted()  # "under the tree sleeps a lion"
        self._has_verb, self._verb = True, verb
        self._is_joined = False
        is_having = verb.verb == "have"
        self._open = Link(
            subjects=[] if is_fronted else list(self._subject or self._group),
            relation="with" if is_having else verb.verb,
            kind=_SAID,
            is_verb=not is_having,
            is_direct=True,
            is_done_to=verb.is_passive,
            is_sure=self._is_after_subject() and self._group_link is None,
        )
        if self._clause:
            self._clause.is_done = True

    def _is_after_subject(self) -> bool:
        is_said = self._last is Join.AUXILIARY and isinstance(self._before_last, NounPhrase)
        return is_said or isinstance(self._last, NounPhrase)

    def _relate_clause(self, clause: Clause, verb: Verb) -> None:
        """`the ball that the boy throws`: the boy throws the ball."""
        link = Link(
            subjects=list(self._group),
            relation="with" if verb.verb == "have" else verb.verb,
            kind=_SAID,
            is_verb=True,
        )
        for index in clause.object_of:
            self._relate(link, index)
        self._leave_clause()

    def _take_preposition(self, preposition: Preposition) -> None:
        if self._open and isinstance(self._last, Verb):
            self._follow_verb(preposition, self._last)
            return
        if self._open and isinstance(self._last, NounPhrase) and self._last.is_abstract:
            self._follow_abstract(preposition)
            return
        self._close_verb()
        is_described = isinstance(self._last, NounPhrase) and not self._last.nouns
        if self._clause and self._clause.is_whose and is_described:
            self._leave_clause()  # "a car whose doors are open next to a tree"
        is_done_by = preposition.is_agent and self._may_be_done(self._verb)
        self._open = Link(
            subjects=[] if is_done_by else self._nearest(preposition),
            relation=preposition.name,
            kind=preposition.kind,
            is_verb=False,
            is_sure=isinstance(self._last, NounPhrase)
            and bool(self._last.nouns)
            and not preposition.moves
            and (self._group_link is None or preposition.name == "of"),
        )
        self._is_joined = False

    def _follow_verb(self, preposition: Preposition, verb: Verb) -> None:
        """`sits on` says where, `looks at` is an action, `runs behind` is both."""
        assert self._open
        self._open.is_direct = False
        self._open.is_sure &= not preposition.moves
        is_place = preposition.kind is not _SAID
        is_at = verb.verb in self.words.place_verbs and is_place
        if preposition.is_agent and self._may_be_done(verb):
            self._open.is_verb, self._open.is_passive = False, True
            if not (verb.is_passive or verb.verb in self.words.done_to):  # "a cat walked by a dog"
                self._open.subjects = []
        elif is_at or preposition.name in _GEOMETRY:
            if not is_at:
                self.told.act(self._open)
            self._open.relation, self._open.kind = preposition.name, preposition.kind
            self._open.is_verb = False
        else:
            self._open.relation += f" {preposition.name}"

    def _may_be_done(self, verb: Verb | None) -> bool:
        """Whether somebody may do it to the subject: "chased", not "parked" or "walking"."""
        return verb is not None and not verb.is_active and verb.verb not in self.words.place_verbs

    def _follow_abstract(self, preposition: Preposition) -> None:
        """`on the edge of`, `add a touch to`; but "take a nap on" is an action, then a place."""
        assert self._open
        if preposition.name == "of":
            self._open.is_sure = False
            return
        link = self._open
        if link.is_verb and preposition.name in _COMPLETES:
            link.relation += f" {preposition.name}"
            return
        self._close_verb()
        self._open = Link(
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
        if is_direct and self._has_actor() and preposition.name not in _CLINGS:
            return list(self._subject)  # "a man holds a book at the beach"
        is_place = preposition.kind is not _SAID
        if self._group_link is None and is_place and not self._has_verb:
            return list(self._group)  # "a cat and a dog on a sofa"
        return self._group[-1:]

    def _relate(self, link: Link, index: int) -> None:
        if link.is_passive and not self.words.acts(self.seen[index].noun):
            return  # "built by a river"
        self.told.relate(link, index, is_sure=isinstance(self._last, Verb | Preposition))

    def _close_verb(self) -> None:
        if self._open and self._open.is_verb:
            self.told.act(self._open)
            self._open = None

    # The rest

    def _take_join(self, join: Join, ahead: Sequence[Piece]) -> None:
        match join:
            case Join.AND | Join.OR:
                self._close_verb()
                self._is_joined = True
            case Join.COMMA:
                self._take_comma(ahead)
            case Join.AUXILIARY:
                self._take_auxiliary()
            case Join.RELATIVE | Join.WHO | Join.WHOSE:
                self._take_relative(join, ahead)
            case Join.IT:
                self._take_it()
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

    def _take_comma(self, ahead: Sequence[Piece]) -> None:
        self._close_verb()
        if self._clause and self._clause.is_done and isinstance([*ahead, None][0], Verb):
            self._leave_clause()  # "a cat, whose eyes are green, looking at a fish"
        if self._is_fronted():
            self._group, self._group_link = [], None  # "in a garden, a dog"
        is_free = self._group_link is None and not self._has_verb
        self._is_joined = is_free or goes_on_as_list(ahead)

    def _is_fronted(self) -> bool:
        """Whether the last noun, where a subject might stand, is only a place: "in a garden"."""
        link = self._group_link
        is_place = link is not None and not link.is_verb and link.relation != "of"
        return is_place and not (self._has_verb or (link and link.subjects))

    def _take_auxiliary(self) -> None:
        if self._clause and self._clause.is_done and self._last not in _GOES_ON:
            self._leave_clause()
        if self._group and self._group_link is None:
            self._subject = self._group
        self._has_verb = True

    def _take_it(self) -> None:
        """`a plate with a fork on it`: the fork is on the plate. Of other uses nothing is said."""
        link, self._open = self._open, None
        named = self._group_link.subjects if self._group_link else []
        if link and not link.is_verb and len(named) == 1 and link.kind is not _SAID:
            self._relate(link, named[0])
        self._is_joined = False

    def _take_owner(self) -> None:
        """What is done to "the dog's belly" is done to both; "the dog's tail wags" is not."""
        if self._open:
            return
        if self._group_link:
            self._is_joined = True
        else:
            del self._group[-1:]  # in place: the subject is the same list
