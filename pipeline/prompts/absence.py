"""What a prompt says of nothing, or of one of several: how far a "no", "not" or "one" reaches."""

from collections.abc import Sequence

from pipeline.prompts.lexicon import Lexicon, Preposition
from pipeline.prompts.noun_phrases import NounPhrase
from pipeline.prompts.phrases import Join, Piece, Verb
from schemas.specs import RelationKind


class Absence:
    """Swallows the phrases that a negation speaks of: the noun, attribute, place or action after
    it, and what is joined to that. In doubt more than that: it is better not asked for.
    """

    def __init__(self) -> None:
        self.is_open = False
        self._is_listed = False  # after the negation, "and", "or" or a comma that goes on
        self._has_taken = False  # a noun or an attribute
        self._is_action = False
        self._had_article = False

    def begin(self) -> None:
        """A negation is read: what comes next is absent."""
        if not self.is_open:
            self._has_taken = self._is_action = self._had_article = False
        self.is_open = self._is_listed = True

    def swallows(self, piece: Piece, ahead: Sequence[Piece]) -> bool:
        """Whether this piece is part of what is absent. The first that is not ends the absence."""
        self.is_open = self.is_open and self._reaches(piece, ahead)
        return self.is_open

    def _reaches(self, piece: Piece, ahead: Sequence[Piece]) -> bool:
        match piece:
            case NounPhrase():
                return self._reaches_phrase(piece)
            case Verb():
                self._is_action = self._is_listed = True
                return True
            case Preposition():
                is_place = piece.kind is not RelationKind.NON_SPATIAL
                if self._has_taken and not self._is_action and is_place:
                    return False  # "no cars on the street": the street is asked for
                self._is_listed = True
                return True
            case Join.AND | Join.OR | Join.COMMA:
                return self._reaches_on(piece, ahead)
            case Join.STOP | Join.RELATIVE | Join.WHO | Join.WHOSE:
                return False
        return True

    def _reaches_phrase(self, phrase: NounPhrase) -> bool:
        if not self._is_listed:
            return False
        self._had_article = self._had_article or phrase.is_one
        self._has_taken, self._is_listed = True, False
        return True

    def _reaches_on(self, join: Piece, ahead: Sequence[Piece]) -> bool:
        """Whether what is joined is absent, too."""
        follows = ahead[0] if ahead else None
        if join is Join.COMMA:
            if follows is Join.AND or not _has_or(ahead):
                return False
        elif isinstance(follows, NounPhrase) and join is Join.AND:
            after = ahead[1] if len(ahead) > 1 else None
            is_clause = after is Join.AUXILIARY or (isinstance(after, Verb) and after.is_finite)
            is_shown = (follows.is_one or follows.count is not None) and not self._had_article
            if is_clause or is_shown or follows.is_definite:
                return False
        self._is_listed = True
        return True


class Share:
    """Swallows what is said of one of several things, since it does not hold for all of them: "two
    cats, one black and one sleeping on a mat". Another thing that is joined ends it.
    """

    def __init__(self) -> None:
        self.is_open = False

    def swallows(self, piece: Piece, last: Piece | None) -> bool:
        """Whether this piece, which comes after `last`, is part of what is said of one."""
        match piece:
            case NounPhrase(nouns=(), count=1):
                self.is_open = True
            case NounPhrase(nouns=()) | Verb() | Join.AUXILIARY:
                pass
            case Preposition():
                return self.is_open and not isinstance(last, Join)
            case NounPhrase() if isinstance(last, Join):
                self.is_open = False
            case _:
                return False
        return self.is_open


def without_unseen_owners(pieces: Sequence[Piece], lexicon: Lexicon) -> list[Piece]:
    """Without names, and kinds of owners: "James's guitar", "men's shoes" are things alone."""
    kept: list[Piece] = []
    for at, piece in enumerate(pieces):
        if piece is Join.POSSESSIVE and kept and _is_unseen(kept[-1], pieces[at + 1 :], lexicon):
            del kept[-1]
        else:
            kept.append(piece)
    return kept


def _is_unseen(owner: Piece, ahead: Sequence[Piece], lexicon: Lexicon) -> bool:
    if not isinstance(owner, NounPhrase) or not owner.nouns:
        return False
    is_kind = owner.is_plural and not owner.is_definite and not owner.is_one
    is_name = not lexicon.is_noun(owner.nouns[-1])
    return is_name or (is_kind and not _is_body_part(ahead, lexicon))


def is_owner_of_thing(ahead: Sequence[Piece], lexicon: Lexicon) -> bool:
    """Whether "'s" and a thing follow, which is hardly where its owner is: "a girl's car"; but "a
    girl's head".
    """
    return ahead[:1] == [Join.POSSESSIVE] and not _is_body_part(ahead[1:], lexicon)


def _is_body_part(ahead: Sequence[Piece], lexicon: Lexicon) -> bool:
    owned = ahead[0] if ahead else None
    return isinstance(owned, NounPhrase) and not lexicon.body_parts.isdisjoint(owned.nouns[-1:])


def goes_on_as_list(ahead: Sequence[Piece]) -> bool:
    """Whether nouns and commas lead to an "and"."""
    return _leads_to(ahead, (Join.AND, Join.OR))


def _has_or(ahead: Sequence[Piece]) -> bool:
    """Whether a list goes on to an "or": "no cats, dogs or birds"."""
    return _leads_to(ahead, (Join.OR, Join.NO))


def _leads_to(ahead: Sequence[Piece], ends: Sequence[Join]) -> bool:
    """Whether nothing but nouns and commas stand before one of these."""
    for piece in ahead:
        if piece in ends:
            return True
        if not isinstance(piece, NounPhrase) and piece is not Join.COMMA:
            return False
    return False
