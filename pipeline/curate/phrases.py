"""Cuts a prompt into noun phrases and the words between them. Rules over word lists, no model.

What ends a noun phrase is mostly a verb, and English verbs look like nouns. Agreement decides: in
"the rubber gloves rest on", a plural takes the bare form, so `rest` is the verb.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pipeline.curate.lexicon import Lexicon, Preposition
from schemas.specs import Attribute, AttributeKind

_TOKEN = re.compile(r"[^\W_]+(?:[-\u2010\u2011][^\W_]+)*|'s\b|'(?=\s)|[^\w\s]")
_MAX_PREPOSITION_WORDS = 5
_MAX_COMPOUND_WORDS = 3
_COUNTED_PARTITIVES = {"pair": 2, "couple": 2, "trio": 3, "dozen": 12}


class Join(StrEnum):
    """Words that are neither thing nor relation, for what they do to a sentence."""

    AND = "and"
    COMMA = "comma"
    AUXILIARY = "auxiliary"
    MODAL = "modal"
    PRONOUN = "pronoun"
    POSSESSIVE = "possessive"
    STOP = "stop"


@dataclass(frozen=True, kw_only=True, slots=True)
class NounPhrase:
    """A thing, or attributes alone ("in pink", "is red") where there is no noun."""

    nouns: tuple[str, ...]  # the last is the head, singular
    attributes: tuple[Attribute, ...]
    count: int | None
    is_one: bool  # said with a or an
    is_plural: bool
    is_abstract: bool

    @property
    def noun(self) -> str:
        return " ".join(self.nouns)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verb:
    """An action, as the bare verb."""

    verb: str


Piece = NounPhrase | Verb | Preposition | Join


def tokens(text: str) -> list[str]:
    """Words in lower case, punctuation marks one by one, and a possessive 's on its own."""
    return _TOKEN.findall(text.casefold().replace("\u2019", "'"))


def pieces(words: Sequence[str], lexicon: Lexicon) -> list[Piece]:
    """The words as phrases, in order. Adverbs are left out."""
    return _Reader(_with_compounds(words, lexicon), lexicon).read()


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
        self._words = words
        self._lexicon = lexicon
        self._at = 0
        self._pieces: list[Piece] = []
        self._has_verb = False

    def read(self) -> list[Piece]:
        while self._at < len(self._words):
            start = self._at
            piece = self._next_piece()
            assert self._at > start
            if piece is not None:
                self._pieces.append(piece)
                self._has_verb |= isinstance(piece, Verb) or piece is Join.AUXILIARY
        return self._pieces

    # Looking around

    def _word(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._words[at] if at < len(self._words) else ""

    @property
    def _last(self) -> Piece | None:
        return self._pieces[-1] if self._pieces else None

    def _preposition(self, ahead: int = 0) -> tuple[Preposition, int] | None:
        """The longest relation phrase that begins there, and its length."""
        at = self._at + ahead
        for length in range(_MAX_PREPOSITION_WORDS, 0, -1):
            phrase = tuple(self._words[at : at + length])
            if len(phrase) == length and phrase in self._lexicon.prepositions:
                return self._lexicon.prepositions[phrase], length
        return None

    def _is_nominal(self, word: str) -> bool:
        """Whether it may stand inside a noun phrase, after its first word."""
        if not word or not word[0].isalnum() or self._lexicon.is_function(word):
            return False
        if self._lexicon.is_noun(word) or word in self._lexicon.attributes:
            return True
        return word not in self._lexicon.verbs or word.endswith(("ed", "ing", "en"))

    def _noun_goes_on(self, ahead: int = 1) -> bool:
        """Whether the word there is one of the noun phrase that is being read."""
        word, after = self._word(ahead), self._word(ahead + 1)
        if not self._is_nominal(word) or self._preposition(ahead):
            return False
        is_other = self._lexicon.is_noun(word) or word in self._lexicon.attributes
        is_past = word.endswith("ed") and not is_other
        return not (is_past and self._is_clause_word(after))  # "the lavender filled the"

    def _is_link(self, word: str) -> bool:
        joins = (self._lexicon.conjunctions, self._lexicon.auxiliaries)
        return self._lexicon.is_function(word) and not any(word in words for words in joins)

    def _is_clause_word(self, word: str) -> bool:
        """Whether it is what commonly follows a verb, and hardly a noun."""
        return (
            self._is_link(word)
            or word in self._lexicon.numbers
            or (word in self._lexicon.attributes and not self._lexicon.is_noun(word))
            or (word.endswith("ly") and not self._lexicon.is_noun(word))
        )

    # What comes next

    def _next_piece(self) -> Piece | None:
        word = self._word()
        if not word[0].isalnum():
            self._at += 1
            return _punctuation(word)
        if self._is_infinitive():
            self._at += 1
            return Join.MODAL
        if found := self._preposition():
            return self._take_preposition(*found)
        if (join := self._join(word)) is not None:
            self._at += 1
            return join
        if self._is_adverb(word):
            self._at += 1
            return None
        if self._is_verb():
            return self._take_verb()
        return self._take_noun_phrase()

    def _is_infinitive(self) -> bool:
        verb = self._word(1)
        return (
            self._word() == "to"
            and self._lexicon.verbs.get(verb) == verb
            and (not self._lexicon.is_noun(verb) or self._is_clause_word(self._word(2)))
        )

    def _take_preposition(self, preposition: Preposition, length: int) -> Preposition | None:
        word = self._word()
        self._at += length
        follows = self._word()
        is_stranded = not follows or not (
            self._is_nominal(follows)
            or follows in self._lexicon.determiners
            or follows in self._lexicon.pronouns
            or follows in self._lexicon.numbers
            or follows in self._lexicon.verbs
        )
        is_particle = word in self._lexicon.particles or word in self._lexicon.adverbs
        return None if is_stranded and is_particle and length == 1 else preposition

    def _join(self, word: str) -> Join | None:
        if word == "that" and self._word(1) in self._lexicon.verbs:
            return Join.PRONOUN  # "a bathroom that has"
        if word in ("and", "or"):
            return Join.AND
        if word in self._lexicon.conjunctions:
            self._has_verb = False
            return Join.STOP
        if word in self._lexicon.auxiliaries:
            return Join.AUXILIARY
        if word in self._lexicon.modals:
            return Join.MODAL
        return Join.PRONOUN if word in self._lexicon.pronouns else None

    def _is_adverb(self, word: str) -> bool:
        if word in self._lexicon.adverbs or word in self._lexicon.particles:
            return True
        if self._last is Join.AUXILIARY and word not in self._lexicon.attributes:
            follows = self._word(1)  # "is ice skating"
            return word not in self._lexicon.verbs and self._is_progressive(follows)
        return word.endswith("ly") and not (
            self._lexicon.is_noun(word)
            or word in self._lexicon.attributes
            or word in self._lexicon.verbs
        )

    # Verbs

    def _is_progressive(self, word: str) -> bool:
        return word.endswith("ing") and word in self._lexicon.verbs

    def _is_verb(self) -> bool:
        """Whether the word here is a verb, from its form and from what stands around it."""
        word = self._word()
        if word not in self._lexicon.verbs:
            return self._is_unknown_verb(word)
        last = self._last
        is_other = self._lexicon.is_noun(word) or word in self._lexicon.attributes
        if last is Join.AUXILIARY:
            return word not in self._lexicon.attributes or self._is_clause_word(self._word(1))
        if last in (Join.MODAL, Join.PRONOUN):
            return True
        if isinstance(last, NounPhrase):
            return self._is_verb_after(is_plural=last.is_plural, is_list=self._is_list())
        if last in (Join.AND, Join.COMMA):
            is_free = not is_other or self._is_clause_word(self._word(1))
            return self._has_verb and is_free and not self._is_participle_of_noun()
        if isinstance(last, Verb) and word.endswith("ed") and not is_other:
            return not self._is_nominal(self._word(1))  # "getting vaccinated"
        if isinstance(last, Verb | Preposition):
            return word.endswith("ing") and not self._is_participle_of_noun()
        return last is Join.STOP and word.endswith("ing")

    def _is_unknown_verb(self, word: str) -> bool:
        if self._lexicon.is_noun(word) or word in self._lexicon.attributes:
            return False
        last = self._last
        is_after_subject = last is Join.AUXILIARY or isinstance(last, NounPhrase)
        return is_after_subject and word.endswith(("ed", "ing")) and len(word) > 5

    def _is_verb_after(self, *, is_plural: bool, is_list: bool) -> bool:
        """Whether the verb form here agrees with the noun before it, or with a list of nouns."""
        word = self._word()
        bare = self._lexicon.verbs[word]
        if not self._lexicon.is_noun(word) and word not in self._lexicon.attributes:
            return True
        is_followed = self._is_clause_word(self._word(1))
        if word == bare:
            return (is_plural or is_list) and is_followed
        if word.endswith("s"):
            return not is_plural and is_followed
        return is_followed

    def _is_participle_of_noun(self) -> bool:
        """Whether it is like `dining` in "dining table", not like `riding` in "riding a bike"."""
        word, follows = self._word(), self._word(1)
        is_gerund = word in self._lexicon.gerunds and self._lexicon.is_noun(follows)
        if isinstance(self._last, Verb) or self._has_verb:
            return is_gerund and not word.endswith("riding") and self._last is not Join.AND
        return self._is_nominal(follows)

    def _is_list(self) -> bool:
        """Whether the noun phrase before is the end of a list."""
        return len(self._pieces) > 2 and self._pieces[-2] in (Join.AND, Join.COMMA)

    def _take_verb(self) -> Verb:
        word = self._word()
        self._at += 1
        return Verb(verb=self._lexicon.verbs.get(word, word))

    # Noun phrases

    def _take_noun_phrase(self) -> NounPhrase:
        if self._is_worn(self._word()):
            return self._take_worn()
        is_one, count = self._take_determiners()
        attributes, nouns = self._take_attributes()
        self._take_nouns(nouns)
        if nouns and self._word() == "of" and self._is_measure(nouns[-1]):
            return self._take_measured(nouns, attributes, count, is_one)
        return self._phrase(nouns, attributes, count, is_one)

    def _is_worn(self, word: str) -> bool:
        """Whether it is a colour alone: "a woman in pink"."""
        is_in = isinstance(self._last, Preposition) and self._last.name == "in"
        is_colour = self._lexicon.attributes.get(word) is AttributeKind.COLOUR
        return is_in and is_colour and not self._lexicon.is_noun(self._word(1))

    def _take_worn(self) -> NounPhrase:
        attributes: list[Attribute] = []
        self._add(attributes, self._word())
        self._at += 1
        return self._phrase([], attributes, None, False)

    def _take_determiners(self) -> tuple[bool, int | None]:
        is_one, count = False, None
        while (word := self._word()) in self._lexicon.determiners or self._number(word) is not None:
            is_one = is_one or word in ("a", "an", "another")
            count = self._number(word) or count
            self._at += 1
        return is_one, count

    def _number(self, word: str) -> int | None:
        if word in self._lexicon.numbers:
            return self._lexicon.numbers[word]
        is_small = word.isascii() and word.isdigit() and len(word) < 5
        return int(word) or None if is_small else None

    def _take_attributes(self) -> tuple[list[Attribute], list[str]]:
        """What stands before the nouns, and the words among it that belong to the noun."""
        attributes: list[Attribute] = []
        nouns: list[str] = []
        while word := self._word():
            is_last = not self._noun_goes_on()
            if self._is_between_attributes(word, is_last, bool(attributes)):
                pass
            elif word in self._lexicon.attributes and self._is_attribute(word, is_last):
                self._add(attributes, word)
                if is_last and not self._continues():
                    self._at += 1
                    break
            elif word in self._lexicon.gerunds and not is_last:
                nouns.append(word)
            elif self._is_participle(word) and (not is_last or self._continues()):
                self._add(attributes, word)
            else:
                break
            self._at += 1
        return attributes, nouns

    def _is_between_attributes(self, word: str, is_last: bool, has_attribute: bool) -> bool:
        if word in ("and", ","):
            return has_attribute and self._goes_on()
        return self._is_adverb(word) and not is_last

    def _add(self, attributes: list[Attribute], word: str) -> None:
        kind = self._lexicon.attributes.get(word, AttributeKind.STATE)
        attributes.append(Attribute(kind=kind, value=word))

    def _is_attribute(self, word: str, is_last: bool) -> bool:
        """Not in "a blue orange", where it is the noun, but in "the cat is orange"."""
        if not is_last or not self._lexicon.is_noun(word):
            return True
        return self._last is Join.AUXILIARY or self._continues()

    def _continues(self) -> bool:
        """Whether "and" or a comma after an attribute leads to another of the same noun."""
        if self._word(1) not in ("and", ","):
            return False
        self._at += 1
        goes_on = self._goes_on()
        self._at -= 1
        return goes_on

    def _goes_on(self) -> bool:
        """Whether, after the "and" or comma here, an attribute and then a noun follow."""
        ahead = 1
        while self._word(ahead) in ("and", ","):
            ahead += 1
        word = self._word(ahead)
        is_attribute = word in self._lexicon.attributes or self._is_participle(word)
        return is_attribute and (
            self._noun_goes_on(ahead + 1) or self._word(ahead + 1) in ("and", ",")
        )

    def _is_participle(self, word: str) -> bool:
        is_known = word in self._lexicon.verbs and not self._lexicon.is_noun(word)
        return ("-" in word and not self._lexicon.is_noun(word)) or (
            is_known and word.endswith(("ed", "ing"))
        )

    def _take_nouns(self, nouns: list[str]) -> None:
        while (word := self._word()) and word[0].isalnum():
            if self._lexicon.is_function(word) or (nouns and self._preposition()):
                break
            if nouns and word in self._lexicon.numbers:
                break
            if nouns and (self._ends_nouns(word, nouns) or self._is_adverb(word)):
                break
            nouns.append(word)
            self._at += 1

    def _ends_nouns(self, word: str, nouns: Sequence[str]) -> bool:
        if word in self._lexicon.attributes and not self._lexicon.is_noun(word):
            return word not in self._lexicon.partitives
        if word in self._lexicon.verbs:
            is_plural = self._lexicon.is_plural(nouns[-1])
            return self._is_verb_after(is_plural=is_plural, is_list=self._last is Join.AND)
        is_known = self._lexicon.is_noun(word)
        return not is_known and word.endswith(("ed", "ing")) and len(word) > 5

    def _is_measure(self, noun: str) -> bool:
        head = self._lexicon.singular(noun)
        follows = self._word(1)
        is_measure = head in self._lexicon.partitives | self._lexicon.portions
        return is_measure and (self._is_nominal(follows) or follows in self._lexicon.numbers)

    def _take_measured(
        self,
        nouns: list[str],
        attributes: list[Attribute],
        count: int | None,
        is_one: bool,
    ) -> NounPhrase:
        """`a group of friends` is friends; `a slice of pizza` is one thing."""
        self._at += 1
        inner_attributes, inner = self._take_attributes()
        self._take_nouns(inner)
        head = self._lexicon.singular(nouns[-1])
        attributes = [*attributes, *inner_attributes]
        if not inner:
            return self._phrase(nouns, attributes, count, is_one)
        if head in self._lexicon.partitives:
            is_sole = count in (None, 1)
            return self._phrase(
                inner, attributes, _COUNTED_PARTITIVES.get(head) if is_sole else None, False
            )
        material = [*inner[:-1], self._lexicon.singular(inner[-1])]
        whole = self._phrase([*nouns[:-1], head], attributes, count, is_one)
        return NounPhrase(
            nouns=(*whole.nouns, "of", *material),
            attributes=whole.attributes,
            count=count,
            is_one=is_one,
            is_plural=self._lexicon.is_plural(nouns[-1]),
            is_abstract=False,
        )

    def _phrase(
        self,
        nouns: Sequence[str],
        attributes: Sequence[Attribute],
        count: int | None,
        is_one: bool,
    ) -> NounPhrase:
        head = self._lexicon.singular(nouns[-1]) if nouns else ""
        return NounPhrase(
            nouns=(*nouns[:-1], head) if nouns else (),
            attributes=tuple(attributes),
            count=count,
            is_one=is_one,
            is_plural=bool(nouns) and self._lexicon.is_plural(nouns[-1]),
            is_abstract=bool(nouns) and self._lexicon.is_abstract(head),
        )


def _punctuation(mark: str) -> Join | None:
    if mark.startswith("'"):
        return Join.POSSESSIVE if mark == "'s" else None
    return {",": Join.COMMA, "&": Join.AND, '"': None}.get(mark, Join.STOP)
