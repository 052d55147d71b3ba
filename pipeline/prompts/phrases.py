"""Cuts a prompt into noun phrases and the words between them. Rules over word lists, no model.

`cursor.py` tells what the words around a place are, `noun_phrases.py` reads one phrase; here stands
what comes next after what.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from pipeline.prompts.cursor import Cursor
from pipeline.prompts.lexicon import Lexicon, Preposition
from pipeline.prompts.noun_phrases import Before, NounPhrase, NounPhraseReader
from pipeline.prompts.quantities import with_numbers, without_shares
from schemas.specs import Attribute, AttributeKind

_IS = re.compile(r"\b(who|that|which|there|it|he|she|here|what|where)'s\b")
_CONTRACTED = {
    **{"can't": "can not", "cannot": "can not", "won't": "will not", "shan't": "shall not"},
    **{"n't": " not", "'re": " are", "'ve": " have", "'ll": " will", "'d": " would"},
}
_CONTRACTION = re.compile(r"\b(?:can't|cannot|won't|shan't)\b|(?<=\w)(?:n't|'re|'ve|'ll|'d)\b")
_HIMSELF = ("him", "it", "them")
_TOKEN = re.compile(r"[^\W_]+(?:[-\u2010\u2011][^\W_]+)*|'s\b|'(?=\s)|[^\w\s]")
_MAX_COMPOUND_WORDS = 3
_MAX_ADVERBIAL_WORDS = 5
_ONLY_PARTICIPLES = ("en", "wn", "rn")  # driven, thrown, worn; "chased" may be the past
_OUT_OF = {("of",), ("from",), ("out", "of"), ("with",)}


class Join(StrEnum):
    """Words that are neither thing nor relation, for what they do to a sentence."""

    AND = "and"
    OR = "or"
    NO = "no"  # what follows is absent
    RELATIVE = "relative"  # that, which
    WHO = "who"
    WHOSE = "whose"
    IT = "it"  # a thing that was named: it, them
    COMMA = "comma"
    AUXILIARY = "auxiliary"
    MODAL = "modal"
    PRONOUN = "pronoun"
    POSSESSIVE = "possessive"
    STOP = "stop"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verb:
    """An action, as the bare verb."""

    verb: str
    is_finite: bool = False  # holds, not holding: it has a subject of its own
    is_active: bool = False  # the subject does it, and not: perhaps it is done to the subject
    is_passive: bool = False  # it is done to the subject: "is held", "driven"


Piece = NounPhrase | Verb | Preposition | Join


def tokens(text: str) -> list[str]:
    """Words in lower case, punctuation marks one by one, and a possessive 's on its own."""
    plain = text.casefold().replace("\u2019", "'")
    whole = _CONTRACTION.sub(lambda short: _CONTRACTED[short[0]], plain)
    return _TOKEN.findall(_IS.sub(r"\1 is", whole))


def pieces(words: Sequence[str], lexicon: Lexicon) -> list[Piece]:
    """The words as phrases, in order. Adverbs are left out."""
    shown = _without_adverbials(with_numbers(words, lexicon), lexicon)
    return _Reader(_with_compounds(without_shares(shown, lexicon), lexicon), lexicon).read()


def _without_adverbials(words: Sequence[str], lexicon: Lexicon) -> list[str]:
    """Without `side by side` and its like, unless "of" follows: "on the left of a tree"."""
    kept: list[str] = []
    at = 0
    while at < len(words):
        lengths = range(_MAX_ADVERBIAL_WORDS, 1, -1)
        length = next((n for n in lengths if tuple(words[at : at + n]) in lexicon.adverbials), 0)
        follows = words[at + length] if at + length < len(words) else ""
        is_last = not follows.isalpha() or lexicon.is_function(follows) or follows in lexicon.verbs
        if length and is_last and follows not in ("of", "with"):
            at += length
        else:
            kept.append(words[at])
            at += 1
    return kept


def _with_compounds(words: Sequence[str], lexicon: Lexicon) -> list[str]:
    """`sweet`, `potatoes` become one word, so that `sweet` is no attribute."""
    joined: list[str] = []
    at = 0
    while at < len(words):
        for length in range(_MAX_COMPOUND_WORDS, 0, -1):
            group = words[at : at + length]
            if length == 1 or lexicon.singular(" ".join(group)) in lexicon.compounds:
                break
        joined.append(" ".join(group))
        at += len(group)
    return joined


class _Reader:
    """Walks over the words once, from left to right."""

    def __init__(self, words: Sequence[str], lexicon: Lexicon) -> None:
        self._cursor = Cursor(words, lexicon)
        self._lexicon = lexicon
        self._pieces: list[Piece] = []
        self._has_verb = False
        self._is_clause = False  # behind "as", "while" and their like

    def read(self) -> list[Piece]:
        while self._cursor.word():
            start = self._cursor.at
            piece = self._next_piece()
            assert self._cursor.at > start
            if piece is not None:
                self._pieces.append(piece)
                self._has_verb |= isinstance(piece, Verb) or piece is Join.AUXILIARY
        return self._pieces

    @property
    def _last(self) -> Piece | None:
        return self._pieces[-1] if self._pieces else None

    def _is_fronted(self, before: Sequence[Piece]) -> bool:
        """Whether all that stands before, in this sentence, is a preposition."""
        is_first = len(before) == 1 or before[-2:-1] == [Join.STOP]
        return is_first and isinstance(before[-1], Preposition)

    def _wants_verb(self) -> bool:
        """Whether a conjunction began a clause that has no verb yet."""
        return self._is_clause and not self._has_verb

    def _word_before(self) -> str:
        return self._cursor.words[self._cursor.at - 1] if self._cursor.at else ""

    # What comes next

    def _next_piece(self) -> Piece | None:
        word = self._cursor.word()
        if not word[0].isalnum():
            is_owner = word == "'" and self._word_before().endswith("s")
            self._cursor.at += 1
            self._is_clause &= word not in ".!?;"
            return Join.POSSESSIVE if is_owner else _punctuation(word)
        if length := self._length_of_nothing():
            self._cursor.at += length
            return None
        if self._is_modal():
            self._cursor.at += 1
            return Join.MODAL
        if length := self._cursor.negation():
            self._cursor.at += length
            return Join.NO
        if material := self._material():
            return material
        if phrase := self._cursor.preposition():
            return self._take_preposition(*phrase)
        if (join := self._join(word)) is not None:
            self._cursor.at += 1
            return join
        if self._is_adverb(word):
            self._cursor.at += 1
            return None
        if self._is_verb():
            return self._take_verb()
        before = Before(
            is_auxiliary=self._last is Join.AUXILIARY,
            is_and=self._last in (Join.AND, Join.OR),
            is_after_actor=self._last is Join.AND and self._acts(-2),
            is_in=isinstance(self._last, Preposition) and self._last.name == "in",
            is_fronted=self._is_fronted(self._pieces),
            is_clause=self._wants_verb(),
        )
        noun_phrase = NounPhraseReader(self._cursor, before).take()
        is_verb = word.endswith("s") and word in self._lexicon.verbs  # "stacks of plates crowns"
        is_after_plural = isinstance(self._last, NounPhrase) and self._last.is_plural
        return (
            replace(noun_phrase, is_doubtful=True) if is_verb and is_after_plural else noun_phrase
        )

    def _length_of_nothing(self) -> int:
        """How many words here say nothing: "not only a cat", "no one is there"."""
        pair = (self._cursor.word(), self._cursor.word(1))
        return 2 * (pair in (("not", "only"), ("not", "just"), ("no", "one")))

    def _is_modal(self) -> bool:
        """Of what stands before a bare verb: `to`, `can`, and `do` before "not"."""
        word, follows = self._cursor.word(), self._cursor.word(1)
        if word == "can":
            return self._cursor.is_modal()
        is_doing = word in ("do", "does", "did") and follows in ("not", "never")
        return is_doing or self._is_infinitive()

    def _is_infinitive(self) -> bool:
        verb = self._cursor.word(1)
        return (
            self._cursor.word() == "to"
            and self._lexicon.verbs.get(verb) == verb
            and (
                not self._lexicon.is_noun(verb) or self._cursor.is_clause_word(self._cursor.word(2))
            )
        )

    def _material(self) -> NounPhrase | None:
        """`made of glass`, as what it says of the thing before it."""
        words = [self._cursor.word(ahead) for ahead in range(5)]
        if words[0] not in ("made", "built", "constructed", "carved", "woven", "crafted"):
            return None
        length = next((n for n in (2, 3) if tuple(words[1:n]) in _OUT_OF), 0)
        length += bool(length) and words[length] in ("entirely", "only", "pure", "solid")
        material = words[length]
        if not length or not self._cursor.is_nominal(material):
            return None
        if self._lexicon.is_plural(material) or self._cursor.is_nominal(words[length + 1]):
            return None
        self._cursor.at += length + 1
        attribute = Attribute(kind=AttributeKind.TEXTURE, value=material)
        return NounPhrase(
            nouns=(),
            attributes=(attribute,),
            count=None,
            is_one=False,
            is_plural=False,
            is_abstract=False,
            is_definite=False,
        )

    def _take_preposition(self, preposition: Preposition, length: int) -> Preposition | None:
        word = self._cursor.word()
        self._cursor.at += length
        follows = self._cursor.word()
        is_stranded = not follows or not (
            self._cursor.is_nominal(follows)
            or follows in self._lexicon.determiners
            or follows in self._lexicon.pronouns
            or follows in self._lexicon.numbers
            or follows in self._lexicon.verbs
        )
        is_particle = word in self._lexicon.particles or word in self._lexicon.adverbs
        return None if is_stranded and is_particle and length == 1 else preposition

    def _join(self, word: str) -> Join | None:
        if word in ("who", "whom"):
            return Join.WHO
        if word == "which" or (word == "that" and self._is_relative()):
            return Join.RELATIVE
        if word == "whose":
            return Join.WHOSE
        if word in _HIMSELF:
            return Join.IT
        if word == "and":
            return Join.AND
        if word == "or":
            return Join.OR
        if word in self._lexicon.conjunctions:
            self._has_verb, self._is_clause = False, True
            return Join.STOP
        if word in self._lexicon.auxiliaries:
            return Join.AUXILIARY
        if word in self._lexicon.modals:
            return Join.MODAL
        return Join.PRONOUN if word in self._lexicon.pronouns else None

    def _is_relative(self) -> bool:
        """Of "that": in "a bathroom that has", "the ball that the boy throws"; not "that dog"."""
        follows = self._cursor.word(1)
        return (
            follows in self._lexicon.verbs
            or self._lexicon.is_function(follows)
            or (isinstance(self._last, NounPhrase) and not self._is_list())
        )

    def _is_adverb(self, word: str) -> bool:
        is_bare = word not in self._lexicon.attributes and word not in self._lexicon.verbs
        if self._last is Join.AUXILIARY and is_bare and self._is_progressive(self._cursor.word(1)):
            return True  # "is ice skating"
        return self._cursor.is_adverb(word)

    # Verbs

    def _is_progressive(self, word: str) -> bool:
        return word.endswith("ing") and word in self._lexicon.verbs

    def _is_verb(self) -> bool:
        """Whether the word here is a verb, from its form and from what stands around it."""
        word, last = self._cursor.word(), self._last
        if last is Join.WHOSE:
            return False
        if word not in self._lexicon.verbs:
            return self._is_unknown_verb(word)
        is_other = self._lexicon.is_noun(word) or word in self._lexicon.attributes
        if last is Join.AUXILIARY:
            return word not in self._lexicon.attributes or self._cursor.is_clause_word(
                self._cursor.word(1)
            )
        if last in (Join.MODAL, Join.PRONOUN, Join.RELATIVE, Join.WHO, Join.IT):
            return True
        if last is Join.NO:
            return not is_other or self._pieces[-2:-1] == [Join.MODAL]  # "must not touch"
        if isinstance(last, NounPhrase):
            return self._is_verb_after(last)
        if last in (Join.AND, Join.OR, Join.COMMA):
            is_free = not is_other or self._cursor.is_clause_word(self._cursor.word(1))
            return self._has_verb and is_free and not self._is_participle_of_noun()
        if isinstance(last, Verb) and word.endswith("ed") and not is_other:
            return not self._cursor.is_nominal(self._cursor.word(1))  # "getting vaccinated"
        if isinstance(last, Verb | Preposition):
            return word.endswith("ing") and not self._is_participle_of_noun()
        is_begun = (
            last is None and not is_other and self._cursor.is_clause_word(self._cursor.word(1))
        )
        return (last is Join.STOP or is_begun) and word.endswith("ing")

    def _is_verb_after(self, subject: NounPhrase) -> bool:
        if self._is_fronted(self._pieces[:-1]) and self._cursor.is_before_subject():
            return True
        is_pair = self._is_list() and self._acts(-1) and self._acts(-3)
        return self._cursor.is_verb_after(
            is_plural=subject.is_plural or is_pair,
            is_list=self._is_list(),
            is_one=subject.is_one and not is_pair,
            is_wanted=self._wants_verb(),
        )

    def _acts(self, at: int) -> bool:
        """Whether the piece there, counted from the end, is somebody."""
        piece = self._pieces[at] if len(self._pieces) >= -at else None
        return isinstance(piece, NounPhrase) and self._lexicon.acts(piece.noun)

    def _is_unknown_verb(self, word: str) -> bool:
        if self._lexicon.is_noun(word) or word in self._lexicon.attributes:
            return False
        last = self._last
        if last in (Join.RELATIVE, Join.WHO):
            return word.endswith(("s", "ed")) and not word.endswith("ss")
        is_after_subject = last is Join.AUXILIARY or isinstance(last, NounPhrase)
        return is_after_subject and word.endswith(("ed", "ing")) and len(word) > 5

    def _is_participle_of_noun(self) -> bool:
        """Whether it is like `dining` in "dining table", not like `riding` in "riding a bike"."""
        word, follows = self._cursor.word(), self._cursor.word(1)
        is_gerund = word in self._lexicon.gerunds and self._lexicon.is_noun(follows)
        if isinstance(self._last, Verb) or self._has_verb:
            return is_gerund and self._last not in (Join.AND, Join.COMMA)
        return self._cursor.is_nominal(follows)

    def _is_list(self) -> bool:
        """Whether the noun phrase before is the end of a list."""
        return len(self._pieces) > 2 and self._pieces[-2] in (Join.AND, Join.OR, Join.COMMA)

    def _take_verb(self) -> Verb:
        word = self._cursor.word()
        self._cursor.at += 1
        verb = self._lexicon.verbs.get(word, word)
        is_said = self._last is Join.AUXILIARY
        is_bare_form = word.endswith(("ing", "ed", "en")) or is_said
        is_active = word.endswith(("ing", "s")) or (word == verb and not is_said)
        return Verb(
            verb=verb,
            is_finite=not is_bare_form,
            is_active=is_active,
            is_passive=not is_active and (is_said or word.endswith(_ONLY_PARTICIPLES)),
        )


def _punctuation(mark: str) -> Join | None:
    if mark.startswith("'"):
        return Join.POSSESSIVE if mark == "'s" else None
    return {",": Join.COMMA, "&": Join.AND, '"': None}.get(mark, Join.STOP)


def is_subject_and_verb(ahead: Sequence[Piece]) -> bool:
    """Whether a relative clause goes on with a subject of its own."""
    if len(ahead) < 2 or not isinstance(ahead[0], NounPhrase):
        return False
    return bool(ahead[0].nouns) and isinstance(ahead[1], Verb)
