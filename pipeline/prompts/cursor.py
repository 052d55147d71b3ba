"""A place in a list of words, and what can be told of the words around it."""

from collections.abc import Sequence

from pipeline.prompts.lexicon import Lexicon, Preposition
from pipeline.prompts.quantities import number_of

_MAX_PREPOSITION_WORDS = 5
_MAX_NEGATION_WORDS = 4


class Cursor:
    """Words, read from left to right; `at` is the next one."""

    def __init__(self, words: Sequence[str], lexicon: Lexicon) -> None:
        self.words = words
        self.lexicon = lexicon
        self.at = 0

    def word(self, ahead: int = 0) -> str:
        """The word so far ahead; empty behind the end."""
        at = self.at + ahead
        return self.words[at] if at < len(self.words) else ""

    def preposition(self, ahead: int = 0) -> tuple[Preposition, int] | None:
        """The longest relation phrase that begins there, and its length."""
        at = self.at + ahead
        for length in range(_MAX_PREPOSITION_WORDS, 0, -1):
            phrase = tuple(self.words[at : at + length])
            if len(phrase) == length and phrase in self.lexicon.prepositions:
                return self.lexicon.prepositions[phrase], length
        return None

    def negation(self) -> int:
        """How many words here say that what follows is absent; 0: none."""
        is_sign = "sign" in (self.word(1), self.word(2)) and self.word(2) != "of"
        if self.word() == "no" and is_sign:
            return 0  # "a no parking sign"
        for length in range(_MAX_NEGATION_WORDS, 0, -1):
            if tuple(self.words[self.at : self.at + length]) in self.lexicon.negations:
                return length
        return self._comparison()

    def _comparison(self) -> int:
        """How many words here compare: what follows them is not asked for, either. "Taller than",
        "as white as", "red as (blood)"; but "as the cars pass" tells what is shown.
        """
        word, follows, third = self.word(), self.word(1), self.word(2)
        if word == "as" and third == "as" and follows != "well":
            return 3
        if third == "than" and word in ("more", "less"):
            return 3
        if follows == "than" and word.endswith("er"):
            return 2
        before = self.words[max(self.at - 1, 0) : self.at]
        is_joined = list(before) in (["such"], ["well"]) or follows == "well"
        return int(word == "than" or (word == "as" and not is_joined and not self._is_clause()))

    def _is_clause(self) -> bool:
        """Whether a verb follows before the next mark."""
        for word in self.words[self.at + 1 :]:
            if not word[0].isalnum() and word != "'s":
                return False
            if word in self.lexicon.verbs or word in self.lexicon.auxiliaries:
                return True
        return False

    def is_modal(self) -> bool:
        """Whether "can" here is no thing that holds beans."""
        follows = self.word(1)
        return follows in ("be", "not") or (
            self.lexicon.verbs.get(follows) == follows and not self.lexicon.is_noun(follows)
        )

    def is_nominal(self, word: str) -> bool:
        """Whether it may stand inside a noun phrase, after its first word."""
        if not word or not word[0].isalnum() or self.lexicon.is_function(word):
            return False
        if self.number(word) is not None:
            return False
        if self.lexicon.is_noun(word) or word in self.lexicon.attributes:
            return True
        return word not in self.lexicon.verbs or word.endswith(("ed", "ing", "en"))

    def noun_goes_on(self, ahead: int = 1) -> bool:
        """Whether the word there is one of the noun phrase that is being read."""
        word, after = self.word(ahead), self.word(ahead + 1)
        if not self.is_nominal(word) or self.preposition(ahead):
            return False
        is_other = self.lexicon.is_noun(word) or word in self.lexicon.attributes
        is_verb = word.endswith(("ed", "ing")) and not is_other  # "the lavender filled the"
        is_followed = self._is_link(after) or self.number(after) is not None
        return not (is_verb and is_followed)

    def _is_link(self, word: str) -> bool:
        joins = (self.lexicon.conjunctions, self.lexicon.auxiliaries)
        return self.lexicon.is_function(word) and not any(word in words for words in joins)

    def is_clause_word(self, word: str) -> bool:
        """Whether it is what commonly follows a verb, and hardly a noun."""
        return (
            self._is_link(word)
            or word in self.lexicon.numbers
            or (word in self.lexicon.attributes and not self.lexicon.is_noun(word))
            or (word.endswith("ly") and not self.lexicon.is_noun(word))
        )

    def number(self, word: str) -> int | None:
        """The number that a word or digits name."""
        return number_of(word, self.lexicon)

    def is_adverb(self, word: str) -> bool:
        """Whether it says how, and carries nothing for a spec."""
        if word in self.lexicon.adverbs or word in self.lexicon.particles:
            return True
        return word.endswith("ly") and not (
            self.lexicon.is_noun(word)
            or word in self.lexicon.attributes
            or word in self.lexicon.verbs
        )

    def is_before_subject(self) -> bool:
        """Whether the word here is a verb, and a subject may follow: "in a tree sings a bird"."""
        is_begun = self.word(1) in self.lexicon.determiners or self.number(self.word(1)) is not None
        return self.word() in self.lexicon.verbs and is_begun

    def is_verb_after(
        self, *, is_plural: bool, is_list: bool, is_one: bool, is_wanted: bool
    ) -> bool:
        """Whether the verb form here agrees with the noun before it, or with a list of nouns.

        `is_one`: the noun is said with "a"; `is_wanted`: its clause has no verb yet.
        """
        word, follows = self.word(), self.word(1)
        is_plural = is_plural and not is_one  # "a deer drinks", "a sports watch"
        is_attribute = word in self.lexicon.attributes
        if not self.lexicon.is_noun(word) and not is_attribute:
            return True
        is_followed = self.is_clause_word(follows)
        if word == self.lexicon.verbs[word]:
            # No plural stands before another noun: "women ride horses".
            is_with_object = not is_attribute or self.is_nominal(follows)
            return (is_plural and (is_followed or is_with_object)) or (
                is_list and (is_followed or self.is_nominal(follows))
            )
        if word.endswith("s"):
            return not is_plural and (
                is_followed
                or self._has_object()
                or ((is_one or is_wanted) and not self.is_nominal(follows))
            )
        return is_followed

    def _has_object(self) -> bool:
        """Whether a noun follows. A plural stands last: "a hat slices vegetables"."""
        follows = self.word(1)
        is_other = follows not in self.lexicon.verbs or self.lexicon.is_plural(follows)
        return self.is_nominal(follows) and is_other
