"""Reads one noun phrase: its number, its attributes, its nouns, and where it ends.

What ends it is mostly a verb, and English verbs look like nouns. Agreement decides: in "the rubber
gloves rest on", a plural takes the bare form, so `rest` is the verb.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.prompts.cursor import Cursor
from schemas.specs import Attribute, AttributeKind

_COUNTED_PARTITIVES = {"pair": 2, "couple": 2, "trio": 3, "dozen": 12, "duo": 2, "quartet": 4}
_PERIOD = re.compile(r"'?(?:\d\d)?\d0s|\d+(?:st|nd|rd|th)-century")  # "a 1960s kitchen"
_OF_OTHERS = frozenset(("sports", "clothes", "savings", "arms", "goods", "games", "sales"))
_OF_CARDS = frozenset(("set", "pack", "stack", "pile", "row", "line", "pair", "bundle"))
_ALSO_THINGS = frozenset(("team", "lot", "set", "school", "pack", "band", "line", "number"))


@dataclass(frozen=True, kw_only=True, slots=True)
class NounPhrase:
    """A thing, or attributes alone ("in pink", "is red") where there is no noun."""

    nouns: tuple[str, ...]  # the last is the head, singular
    attributes: tuple[Attribute, ...]
    count: int | None
    is_one: bool  # said with a or an
    is_plural: bool
    is_abstract: bool
    is_definite: bool  # said with the, this or that: perhaps named before
    is_doubtful: bool = False  # a plural stands in it: perhaps a verb follows that no list knows

    @property
    def noun(self) -> str:
        return " ".join(self.nouns)


@dataclass(frozen=True, kw_only=True, slots=True)
class Before:
    """What stands before a noun phrase, as far as it matters to it."""

    is_auxiliary: bool
    is_and: bool
    is_after_actor: bool  # "a dog and"
    is_in: bool
    is_fronted: bool  # a preposition that begins a sentence
    is_clause: bool  # a conjunction, so that a verb has to come


class NounPhraseReader:
    """Takes the noun phrase that begins where the cursor stands."""

    def __init__(self, cursor: Cursor, before: Before) -> None:
        self._cursor = cursor
        self._before = before
        self._lexicon = cursor.lexicon
        self._is_bare = True  # no determiner and no number
        self._is_one = False
        self._is_counted = False  # a number of several
        self._is_definite = False

    def take(self) -> NounPhrase:
        """The noun phrase here. Moves the cursor behind it."""
        if self._is_worn(self._cursor.word()):
            return self._take_worn()
        start = self._cursor.at
        is_one, count = self._take_determiners()
        self._is_bare = self._cursor.at == start
        self._is_one, self._is_counted = is_one, (count or 0) > 1
        attributes, nouns = self._take_attributes()
        if not (attributes and not nouns and self._is_said_of_subject()):
            self._take_nouns(nouns)
        if nouns and self._cursor.word() == "of" and self._is_measure(nouns[-1]):
            return self._take_measured(nouns, attributes, count, is_one)
        return self._phrase(nouns, attributes, count, is_one)

    def _is_said_of_subject(self) -> bool:
        """Whether attributes end before a verb: "whose coat is red stands on", "is red holding"."""
        word = self._cursor.word()
        if not (self._before.is_auxiliary and self._is_bare) or word not in self._lexicon.verbs:
            return False
        return not self._lexicon.is_noun(word) or self._cursor.is_clause_word(self._cursor.word(1))

    def _is_worn(self, word: str) -> bool:
        """Whether it is a colour alone: "a woman in pink"."""
        is_colour = self._lexicon.attributes.get(word) is AttributeKind.COLOUR
        return self._before.is_in and is_colour and not self._lexicon.is_noun(self._cursor.word(1))

    def _take_worn(self) -> NounPhrase:
        attributes: list[Attribute] = []
        self._add(attributes, self._cursor.word())
        self._cursor.at += 1
        return self._phrase([], attributes, None, False)

    def _take_determiners(self) -> tuple[bool, int | None]:
        is_one, count = False, None
        while word := self._cursor.word():
            number = self._cursor.number(word)
            if word not in self._lexicon.determiners and number is None:
                break
            is_one = is_one or word in ("a", "an", "another")
            self._is_definite = self._is_definite or word in ("the", "this", "that", "these")
            count = number or count
            self._cursor.at += 1
        return is_one, count

    def _take_attributes(self) -> tuple[list[Attribute], list[str]]:
        """What stands before the nouns, and the words among it that belong to the noun."""
        attributes: list[Attribute] = []
        nouns: list[str] = []
        while word := self._cursor.word():
            is_last = not self._cursor.noun_goes_on()
            if self._is_between_attributes(word, is_last, bool(attributes)):
                pass
            elif self._is_known(word) and self._is_attribute(word, is_last):
                self._add(attributes, word)
                if is_last and not self._continues():
                    self._cursor.at += 1
                    break
            elif self._is_shade(word):  # "mint green"
                value = f"{word} {self._cursor.word(1)}"
                attributes.append(Attribute(kind=AttributeKind.COLOUR, value=value))
                self._cursor.at += 1
            elif word in self._lexicon.gerunds and not is_last:
                nouns.append(word)
            elif self._is_participle(word) and (not is_last or self._continues()):
                self._add(attributes, word)
            else:
                break
            self._cursor.at += 1
        return attributes, nouns

    def _is_known(self, word: str) -> bool:
        return word in self._lexicon.attributes or _PERIOD.fullmatch(word) is not None

    def _is_between_attributes(self, word: str, is_last: bool, has_attribute: bool) -> bool:
        if word in ("and", ","):
            return has_attribute and self._goes_on()
        return self._cursor.is_adverb(word) and not is_last

    def _is_shade(self, word: str) -> bool:
        """Whether a noun here only says which colour follows."""
        colour = self._lexicon.attributes.get(self._cursor.word(1))
        is_shade = colour is AttributeKind.COLOUR and self._cursor.noun_goes_on(2)
        is_noun = self._cursor.is_nominal(word) and word not in self._lexicon.attributes
        return is_shade and is_noun and not self._is_participle(word)

    def _add(self, attributes: list[Attribute], word: str) -> None:
        is_period = _PERIOD.fullmatch(word)
        default = AttributeKind.QUALITY if is_period else AttributeKind.STATE
        kind = self._lexicon.attributes.get(word, default)
        attributes.append(Attribute(kind=kind, value=word))

    def _is_attribute(self, word: str, is_last: bool) -> bool:
        """Not in "a blue orange", where it is the noun, but in "the cat is orange"."""
        if not is_last or not self._lexicon.is_noun(word):
            return True
        return (self._before.is_auxiliary and self._is_bare) or self._continues()

    def _continues(self) -> bool:
        """Whether "and" or a comma after an attribute leads to another of the same noun."""
        if self._cursor.word(1) not in ("and", ","):
            return False
        self._cursor.at += 1
        goes_on = self._goes_on()
        self._cursor.at -= 1
        return goes_on

    def _goes_on(self) -> bool:
        """Whether, after the "and" or comma here, an attribute and then a noun follow."""
        ahead = 1
        while self._cursor.word(ahead) in ("and", ","):
            ahead += 1
        word = self._cursor.word(ahead)
        is_attribute = word in self._lexicon.attributes or self._is_participle(word)
        return is_attribute and (
            self._cursor.noun_goes_on(ahead + 1) or self._cursor.word(ahead + 1) in ("and", ",")
        )

    def _is_participle(self, word: str) -> bool:
        is_known = word in self._lexicon.verbs and not self._lexicon.is_noun(word)
        return ("-" in word and not self._lexicon.is_noun(word)) or (
            is_known and word.endswith(("ed", "ing"))
        )

    def _take_nouns(self, nouns: list[str]) -> None:
        while (word := self._cursor.word()) and word[0].isalnum():
            if self._lexicon.is_function(word) or (nouns and self._cursor.preposition()):
                break
            if nouns and (word in self._lexicon.numbers or self._cursor.negation()):
                break
            if word == "can" and self._cursor.is_modal():
                break
            if nouns and word.isdigit():  # "the number 7", but "a red car 2 dogs"
                if self._lexicon.is_plural(self._cursor.word(1)):
                    break
                self._cursor.at += 1
                continue
            if not nouns and not self._is_bare and self._is_doing(word):
                break  # "each one wearing a scarf"
            if nouns and (self._ends_nouns(word, nouns) or self._cursor.is_adverb(word)):
                break
            nouns.append(word)
            self._cursor.at += 1

    def _is_doing(self, word: str) -> bool:
        is_noun = self._lexicon.is_noun(word) or word in self._lexicon.gerunds
        is_progressive = word.endswith("ing") and word in self._lexicon.verbs
        follows = self._cursor.word(1)
        is_end = not follows or not follows[0].isalnum() or follows in ("and", "or")
        return is_progressive and not is_noun and (is_end or self._cursor.is_clause_word(follows))

    def _ends_nouns(self, word: str, nouns: Sequence[str]) -> bool:
        if word in self._lexicon.attributes and not self._lexicon.is_noun(word):
            return word not in self._lexicon.partitives
        if self._before.is_fronted and self._cursor.is_before_subject():
            return True
        if word in self._lexicon.verbs:
            is_pair = self._before.is_after_actor and self._lexicon.acts(nouns[-1])
            is_one = self._is_one and not is_pair  # "a dog and a cat play"
            is_list = self._before.is_and and not is_one
            is_plural = is_pair or (self._lexicon.is_plural(nouns[-1]) and not is_one)
            is_second_plural = word != self._lexicon.verbs[word] and word.endswith("s")
            follows = self._cursor.word(1)
            is_ended = (
                not follows or not follows[0].isalnum() or self._cursor.is_clause_word(follows)
            )
            if is_plural and is_second_plural and is_ended:
                return nouns[-1] not in self._lexicon.unchanging  # "rows of desks face(s) a"
            if self._is_counted and not is_plural and is_second_plural:
                return False  # "two door locks on a table"
            return self._cursor.is_verb_after(
                is_plural=is_plural,
                is_list=is_list,
                is_one=is_one,
                is_wanted=self._before.is_clause,
            )
        is_known = self._lexicon.is_noun(word)
        return not is_known and word.endswith(("ed", "ing")) and len(word) > 5

    def _is_measure(self, noun: str) -> bool:
        head = self._lexicon.singular(noun)
        follows = self._cursor.word(1)
        is_counted = self._cursor.number(follows) is not None
        if head in self._lexicon.formations and is_counted:
            return True
        if head in self._lexicon.partitives:
            is_theirs = follows in self._lexicon.determiners and head not in _ALSO_THINGS
            return is_counted or is_theirs or self._cursor.is_nominal(follows)
        is_plain = follows not in self._lexicon.attributes  # else both are things of their own
        return head in self._lexicon.portions and is_plain and self._cursor.is_nominal(follows)

    def _take_measured(
        self,
        nouns: list[str],
        attributes: list[Attribute],
        count: int | None,
        is_one: bool,
    ) -> NounPhrase:
        """`a group of friends` is friends; `a slice of pizza` is one thing."""
        self._cursor.at += 1
        head = self._lexicon.singular(nouns[-1])
        is_group = head in self._lexicon.partitives or head in self._lexicon.formations
        _, inner_count = self._take_determiners() if is_group else (False, None)
        self._is_one, self._is_counted = False, (inner_count or 0) > 1
        if inner_count and self._is_said_of_group(head):  # "a family of four eating pizza"
            alone = self._phrase(nouns, attributes, count, is_one)
            return replace(alone, is_doubtful=head not in self._lexicon.people)
        inner_attributes, inner = self._take_attributes()
        self._take_nouns(inner)
        if not inner:
            return self._phrase(nouns, [*attributes, *inner_attributes], count, is_one)
        if is_group:
            outer = attributes if head in ("pair", "couple") else []  # a tall stack of low tables
            is_plural = nouns[-1] != head
            count = self._number_of(head, count, inner_count, inner[-1], is_plural=is_plural)
            if inner[-1] == "glasses" and head != "pair":
                inner = [*inner[:-1], "glass"]
            return self._phrase(inner, [*outer, *inner_attributes], count, False)
        attributes = [*attributes, *inner_attributes]
        material = [*inner[:-1], self._lexicon.singular(inner[-1])]
        whole = self._phrase([*nouns[:-1], head], attributes, count, is_one)
        return NounPhrase(
            nouns=(*whole.nouns, "of", *material),
            attributes=whole.attributes,
            count=count,
            is_one=is_one,
            is_plural=self._lexicon.is_plural(nouns[-1]),
            is_abstract=False,
            is_definite=self._is_definite,
        )

    def _is_said_of_group(self, head: str) -> bool:
        """Whether what follows a number is done by so many, and no attribute of the noun behind."""
        word, follows = self._cursor.word(), self._cursor.word(1)
        if word in ("playing card", "playing cards"):
            return head not in _OF_CARDS
        is_form = word in self._lexicon.attributes or self._lexicon.is_noun(word)
        is_doing = word in self._lexicon.verbs and (
            word.endswith("ing") or not (is_form or self._is_participle(word))
        )
        is_attribute = word in self._lexicon.attributes and head not in self._lexicon.people
        is_before_noun = self._cursor.is_nominal(follows) and (
            is_attribute or self._lexicon.acts(follows)
        )
        return is_doing and not is_before_noun

    def _number_of(
        self,
        head: str,
        count: int | None,
        inner_count: int | None,
        noun: str,
        *,
        is_plural: bool,
    ) -> int | None:
        """`two pairs of shoes` are 4; `two groups of 3` are 6; of `two stacks` nobody knows."""
        if inner_count is not None:
            # Of "a couple of three boats" the number alone is sure.
            return inner_count * (count or 1)
        if head == "pair" and noun in self._lexicon.paired:
            return count
        size = _COUNTED_PARTITIVES.get(head)
        is_known = size is not None and (count is not None or not is_plural)  # not "dozens of"
        return size * (count or 1) if size and is_known else None

    def _phrase(
        self,
        nouns: Sequence[str],
        attributes: Sequence[Attribute],
        count: int | None,
        is_one: bool,
    ) -> NounPhrase:
        is_name = self._cursor.word() in ("'s", "'")
        is_new = bool(nouns) and (is_one or is_name) and not self._lexicon.is_noun(nouns[-1])
        head = self._lexicon.singular(nouns[-1]) if nouns and not is_new else "".join(nouns[-1:])
        if head == "glasses" and count:
            head = "glass"  # counted, they are for drinking
        return NounPhrase(
            nouns=(*nouns[:-1], head) if nouns else (),
            attributes=tuple(attributes),
            count=count,
            is_one=is_one,
            is_plural=bool(nouns) and not is_new and self._lexicon.is_plural(nouns[-1]),
            is_abstract=self._is_abstract(nouns, head, bool(attributes)),
            is_definite=self._is_definite,
            is_doubtful=not self._is_one and any(map(self._is_other_plural, nouns[:-1])),
        )

    def _is_other_plural(self, noun: str) -> bool:
        """Whether it hardly stands before another noun, as in "sports car" and "clothes rack"."""
        is_known = noun in self._lexicon.unchanging or noun in self._lexicon.paired
        return self._lexicon.is_plural(noun) and not is_known and noun not in _OF_OTHERS

    def _is_abstract(self, nouns: Sequence[str], head: str, is_described: bool) -> bool:
        """A word of both kinds is a thing if it is described: "at the top", "its oval top"."""
        if not nouns or self._lexicon.is_abstract(head):
            return bool(nouns)
        return len(nouns) == 1 and head in self._lexicon.abstract and not is_described
