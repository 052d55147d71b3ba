"""Whether a text is English, by word lists: names and borrowed words of other languages are none.

A word that two languages share says nothing, so one foreign word does not make a text foreign; it
takes more than a quarter of the words, or words that are mostly unknown.
"""

import re
import unicodedata

from pipeline.prompts.lexicon import Lexicon, lexicon

_MAX_FOREIGN_SHARE = 0.25  # of the words
_MIN_KNOWN_SHARE = 0.6  # of the words, where one is foreign
_MIN_KNOWN_SHARE_ALONE = 1 / 3  # where none is
_WORD = re.compile(r"[^\W\d_]+(?:[-'\u2019][^\W\d_]+)*")
# Names and dishes with words of other languages. Before a word in capitals any is part of a name.
_BORROWED = re.compile(
    r"\b(?:los angeles|las vegas|el paso|la paz|el greco|el capitan|el dorado|del mar|big sur"
    r"|sous chefs?|sous vide|moulin rouge|cordon bleu|bleu cheese|salsa verde|a la (?:carte|mode)"
    r"|chilli? con carne|cafe con leche|caf\u00e9 con leche|les paul|la scala|el ni[n\u00f1]o"
    r"|mesa verde|las palmas|du jour|vis \u00e0 vis)\b",
    re.I,
)


def is_latin(text: str) -> bool:
    """Whether all letters are Latin ones, with or without accents."""
    return text.isascii() or all(_is_latin(letter) for letter in text if letter.isalpha())


def is_english(text: str) -> bool:
    """Whether nothing says that a text is in another language."""
    if not is_latin(text):
        return False
    words = _WORD.findall(_BORROWED.sub(" ", unicodedata.normalize("NFKC", text)))
    if not words:
        return True
    has_case = any(word.islower() for word in words)
    num_foreign = sum(
        _is_foreign(word, after, has_case=has_case)
        for word, after in zip(words, [*words[1:], ""], strict=True)
    )
    share = known_share([word.casefold() for word in words], lexicon())
    if num_foreign:
        return num_foreign <= _MAX_FOREIGN_SHARE * len(words) and share >= _MIN_KNOWN_SHARE
    return share >= _MIN_KNOWN_SHARE_ALONE


def known_share(words: list[str], words_of: Lexicon) -> float:
    """The share of words, lower case, that the lists know; 1 of none."""
    if not words:
        return 1.0
    return sum(_is_known(word, words_of) for word in words) / len(words)


def _is_latin(letter: str) -> bool:
    return letter.isascii() or unicodedata.name(letter, "").startswith("LATIN")


def _is_foreign(word: str, after: str, *, has_case: bool) -> bool:
    is_name = has_case and word.istitle() and after.istitle()
    return word.casefold() in lexicon().foreign and not is_name


def _is_known(word: str, words_of: Lexicon) -> bool:
    return words_of.knows(word) or ("-" in word and any(map(words_of.knows, word.split("-"))))
