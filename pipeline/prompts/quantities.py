"""Numbers as one word each, before phrases are read; and what only looks like one.

`twenty one` is 21, `half a dozen` is 6. `Three or four` and `at least two` are no number that a
picture could be held to, and in `a six string guitar` no guitars are counted.
"""

import re
from collections.abc import Iterator, Sequence

from pipeline.prompts.left_out import sentences
from pipeline.prompts.lexicon import Lexicon

_SOME = "some"  # a number that nobody knows
_MULTIPLES = {"dozen": 12, "hundred": 100, "thousand": 1000}
_SAID: dict[tuple[str, ...], str] = {
    ("half", "a", "dozen"): "6",
    **{("couple", *of, many): _SOME for of in (("of",), ()) for many in _MULTIPLES},
    **dict.fromkeys((("half", "a"), ("half", "an"), ("a", "few"), ("few",)), _SOME),
}
_BOUNDS = frozenset(
    (
        *(("at", "least"), ("at", "most"), ("no", "more", "than"), ("no", "less", "than")),
        *(("no", "fewer", "than"), ("more", "than"), ("less", "than"), ("fewer", "than")),
        *(("not", "more", "than"), ("not", "less", "than"), ("up", "to")),
    )
)
_ROUGHLY = frozenset(("nearly", "almost", "approximately", "roughly", "circa", "some"))
_PERHAPS_ROUGHLY = frozenset(("about", "around", "over", "under", "above", "below"))
_EXACT = 10  # up to it, "over two houses" and "some five birds" may be meant as said
_BEFORE_NUMBER = frozenset(("", "of", "with", "and", "or", "are", "has", "have", "holds", ",", "."))
_OPEN_END = frozenset(("more", "fewer", "less", "so"))  # "or more"
_EACH = frozenset(("each", "every", "apiece"))
_MOST = 9999  # beyond it nobody counts
_FRACTION = re.compile(r"(?:hal(?:f|ves)|thirds?|quarters?|fourths?|fifths?|eighths?|tenths?)")
_GLUED = re.compile(r"(\d+)((?:girl|boy)s?)")  # as tags have it
_CENTURY = re.compile(r"\b(\d+(?:st|nd|rd|th)) century\b")
_RANGE = re.compile(r"\d+[-\u2010\u2011]\d+")


def number_of(word: str, lexicon: Lexicon) -> int | None:
    """The number that a word or digits name."""
    if word in lexicon.numbers:
        return lexicon.numbers[word]
    tens, _, units = word.partition("-")
    if tens in lexicon.numbers and units in lexicon.numbers:  # twenty-five
        return lexicon.numbers[tens] + lexicon.numbers[units]
    is_small = word.isascii() and word.isdigit() and len(word) <= len(str(_MOST))
    return int(word) or None if is_small else None


def with_numbers(words: Sequence[str], lexicon: Lexicon) -> list[str]:
    """The words, lower case, with numbers of several words as digits."""
    apart: list[str] = []
    for word in words:
        glued = _GLUED.fullmatch(word)
        apart += glued.groups() if glued else ["zero" if word == "0" else word]
    apart = _CENTURY.sub(r"\1-century", " ".join(apart)).split(" ")
    return list(_read(apart, lexicon))


def without_shares(words: Sequence[str], lexicon: Lexicon) -> list[str]:
    """The words, numbers read, without those numbers that are of each, sentence by sentence."""
    return [word for part in sentences(words) for word in _without_shares(part, lexicon)]


def _without_shares(sentence: Sequence[str], lexicon: Lexicon) -> list[str]:
    """Without the numbers that are of each: of "two plates with four cookies each" only the two are
    sure, and nothing of "two birds on each branch".
    """
    ats = [at for at, word in enumerate(sentence) if word in _EACH]
    if not ats:
        return list(sentence)
    numbers = [at for at, word in enumerate(sentence) if (number_of(word, lexicon) or 0) > 1]
    is_sure = numbers[:1] and numbers[0] < ats[0] and _is_of_subject(sentence, ats[0], lexicon)
    kept = numbers[0] if is_sure else None
    return [
        _SOME if at != kept and _is_counting(sentence, at, lexicon) else word
        for at, word in enumerate(sentence)
    ]


def _is_of_subject(sentence: Sequence[str], at: int, lexicon: Lexicon) -> bool:
    """Whether "each" is each of what was counted: "each holding", "each of them", "in each."."""
    follows, then = (*sentence[at + 1 : at + 3], "", "")[:2]
    if follows == "of":
        return then in ("them", "which", "whom")
    is_noun = lexicon.is_noun(follows) or follows in lexicon.attributes
    return sentence[at] in ("each", "apiece") and not is_noun


def _is_counting(sentence: Sequence[str], at: int, lexicon: Lexicon) -> bool:
    word = sentence[at]
    is_each_one = word == "one" and sentence[at - 1 : at] == ["each"]
    return (word in ("a", "an") or number_of(word, lexicon) is not None) and not is_each_one


def _read(words: Sequence[str], lexicon: Lexicon) -> Iterator[str]:
    at = 0
    while at < len(words):
        word, stop = _said(words, at, lexicon) or _counted(words, at, lexicon)
        if word:
            yield word
        at = stop


def _said(words: Sequence[str], at: int, lexicon: Lexicon) -> tuple[str, int] | None:
    """The word for a phrase that begins there and is no plain number, and where it ends."""
    half = "-".join(words[at : at + 2])
    if words[at] == "half" and half in lexicon.attributes:  # half-eaten
        return half, at + 2
    phrases = (phrase for phrase in _SAID if tuple(words[at : at + len(phrase)]) == phrase)
    if phrase := next(phrases, ()):
        return _SAID[phrase], at + len(phrase)
    stop = _end_of_span(words, at, lexicon)
    return (_SOME, stop) if stop > at else None


def _counted(words: Sequence[str], at: int, lexicon: Lexicon) -> tuple[str, int]:
    """The word there, or the number as one word or none, and where it ends."""
    bound = next((n for n in (3, 2) if tuple(words[at : at + n]) in _BOUNDS), 0)
    number, stop = _number(words, at + bound, lexicon)
    if number is None:
        return _SOME if _RANGE.fullmatch(words[at]) else words[at], at + 1
    before = "".join(words[at - 1 : at])
    if before == "number" or _FRACTION.fullmatch("".join(words[stop : stop + 1])):
        return "", stop  # a name, or a part of one thing
    if before in ("few", "several", "many"):
        return "", stop  # "a few dozen"
    end = stop if bound else _end_of_range(words, stop, lexicon)
    if bound or end > stop or (number >= _EXACT and _is_perhaps_rough(words, at)):
        return _SOME, end
    if _is_measure(words, at, stop, lexicon):
        return f"{number}-{words[stop]}", stop + 1
    if stop == at + 1:
        return words[at], stop
    return str(number) if number <= _MOST else _SOME, stop


def _end_of_span(words: Sequence[str], at: int, lexicon: Lexicon) -> int:
    """Behind "between four and six", "nearly a dozen" and "over twenty", if they stand there."""
    pair = {"between": "and", "from": "to"}.get(words[at])
    number, stop = _number(words, at + 1, lexicon)
    if pair and number is not None and words[stop : stop + 1] == [pair]:
        number, end = _number(words, stop + 1, lexicon)
        return end if number is not None else at
    if words[at + 1 : at + 2] == ["a"] and words[at + 2 : at + 3] and words[at + 2] in _MULTIPLES:
        number, stop = _number(words, at + 2, lexicon)
    is_begun = words[at] == "about" or (number or 0) >= _EXACT
    is_free = is_begun and (words[at - 1] if at else "") in _BEFORE_NUMBER
    is_rough = words[at] in _ROUGHLY or (words[at] in _PERHAPS_ROUGHLY and is_free)
    return stop if number is not None and is_rough else at


def _is_perhaps_rough(words: Sequence[str], at: int) -> bool:
    """Of "flying over twenty houses", where the number may be a bound, and the word a place."""
    return words[at - 1 : at] != [] and (
        words[at - 1] in _PERHAPS_ROUGHLY or words[max(at - 2, 0) : at] == ["close", "to"]
    )


def _number(words: Sequence[str], at: int, lexicon: Lexicon) -> tuple[int | None, int]:
    """The number that begins there, if one does, and where it ends."""
    number = number_of(words[at], lexicon) if at < len(words) else None
    if number is None:
        return None, at
    stop = at + 1
    follows = _below(words, stop, lexicon)
    if follows and number in range(20, 100, 10) and follows < 10:
        number, stop = number + follows, stop + 1
    while stop < len(words) and words[stop] in _MULTIPLES:
        number, stop = number * _MULTIPLES[words[stop]], stop + 1
    if number >= 100 and number % 100 == 0 and words[stop : stop + 1] == ["and"]:
        rest, end = _number(words, stop + 1, lexicon)
        if rest is not None and rest < 100:
            number, stop = number + rest, end
    return number, stop


def _below(words: Sequence[str], at: int, lexicon: Lexicon) -> int | None:
    return number_of(words[at], lexicon) if at < len(words) else None


def _end_of_range(words: Sequence[str], at: int, lexicon: Lexicon) -> int:
    """Behind `or four`, `to four` and `or more`, if they stand there."""
    link, follows = (*words[at : at + 2], "", "")[:2]
    if link == "or" and follows in _OPEN_END:
        return at + 2
    number, stop = _number(words, at + 1, lexicon)
    return stop if link in ("or", "to") and number is not None else at


def _is_measure(words: Sequence[str], at: int, stop: int, lexicon: Lexicon) -> bool:
    """Whether a number is of a part or a size, as in "a 5 year old girl": said with "a", before one
    thing, of another.
    """
    if at == 0 or words[at - 1] not in ("a", "an") or words[stop - 1] in _MULTIPLES:
        return False
    unit, head = (*words[stop : stop + 2], "", "")[:2]
    is_thing = unit.isalpha() and not lexicon.is_function(unit) and unit not in lexicon.attributes
    return (
        is_thing
        and not lexicon.is_plural(unit)
        and head.isalpha()
        and not lexicon.is_function(head)
    )
