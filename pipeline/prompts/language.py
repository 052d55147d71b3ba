"""Whether a text is English, by word lists: names and borrowed words of other languages are none.

A word that two languages share says nothing, so one foreign word does not make a text foreign; it
takes more than a quarter of the words, or words that are mostly unknown.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from itertools import groupby

from pipeline.prompts.lexicon import Lexicon, lexicon

_MAX_FOREIGN_SHARE = 0.25  # of the words
_MIN_KNOWN_SHARE = 0.6  # of the words, where one is foreign
_MIN_KNOWN_SHARE_ALONE = 1 / 3  # where none is
_WORD = re.compile(r"[^\W\d_]+(?:[-'\u2019][^\W\d_]+)*")
_FRAME = 3  # words of English in a row, around what is none
_MOST_BORROWED = 4  # words
_MOST_NAMED = 2
_OF_NAMES = frozenset(("de", "da", "do", "di", "von", "van", "of"))  # between two words of a name


def is_latin(text: str) -> bool:
    """Whether all letters are Latin ones, with or without accents."""
    return text.isascii() or all(_is_latin(letter) for letter in text if letter.isalpha())


def is_english(text: str) -> bool:
    """Whether nothing says that a text is in another language."""
    if not is_latin(text):
        return False
    words = _WORD.findall(_borrowed().sub(" ", unicodedata.normalize("NFKC", text)))
    if not words:
        return True
    has_case = any(word.islower() for word in words)
    is_foreign = [
        _is_foreign(word, after, has_case=has_case)
        for word, after in zip(words, [*words[1:], ""], strict=True)
    ]
    share = known_share([word.casefold() for word in words], lexicon())
    if not any(is_foreign):
        return share >= _MIN_KNOWN_SHARE_ALONE or _is_name(words)
    if sum(is_foreign) <= _MAX_FOREIGN_SHARE * len(words) and share >= _MIN_KNOWN_SHARE:
        return True
    return _is_framed(
        not foreign and _is_known(word.casefold(), lexicon())
        for word, foreign in zip(words, is_foreign, strict=True)
    )


def _is_name(words: list[str]) -> bool:
    """San Francisco, Rio de Janeiro: names are of no language."""
    inner = [word for word in words[1:-1] if word not in _OF_NAMES]
    named = [words[0], *inner, *words[1:][-1:]]
    return len(named) <= _MOST_NAMED and all(word.istitle() for word in named)


def _is_framed(is_of_english: Iterable[bool]) -> bool:
    """Whether all words that are not of English stand together, in a sentence that else is."""
    runs = [(known, len(list(run))) for known, run in groupby(is_of_english)]
    borrowed = [length for known, length in runs if not known]
    frames = [length for known, length in runs if known]
    return (
        len(borrowed) == 1
        and borrowed[0] <= min(_MOST_BORROWED, sum(frames))
        and max(frames) >= _FRAME
    )


@cache
def _borrowed() -> re.Pattern[str]:
    """Before a word in capitals any other may be part of a name, too: see `_is_foreign`."""
    longest_first = sorted(lexicon().borrowed, key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})\b", re.IGNORECASE)


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
