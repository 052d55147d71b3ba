"""Numbers as one word each, before phrases are read; and what only looks like one.

`twenty one` is 21, `half a dozen` is 6. `Three or four` and `at least two` are no number that a
picture could be held to, and in `a six string guitar` no guitars are counted.
"""

import re
from collections.abc import Iterator, Sequence

from pipeline.prompts.lexicon import Lexicon

_SOME = "some"  # a number that nobody knows
_MULTIPLES = {"dozen": 12, "hundred": 100, "thousand": 1000}
_SAID: dict[tuple[str, ...], str] = {
    ("half", "a", "dozen"): "6",
    **dict.fromkeys((("half", "a"), ("half", "an"), ("a", "few"), ("few",)), _SOME),
}
_BOUNDS = frozenset(
    (
        *(("at", "least"), ("at", "most"), ("no", "more", "than"), ("no", "less", "than")),
        *(("no", "fewer", "than"), ("more", "than"), ("less", "than"), ("fewer", "than")),
        *(("not", "more", "than"), ("not", "less", "than"), ("up", "to")),
    )
)
_OPEN_END = frozenset(("more", "fewer", "less", "so"))  # "or more"
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


def _read(words: Sequence[str], lexicon: Lexicon) -> Iterator[str]:
    at = 0
    while at < len(words):
        said = next(
            (phrase for phrase in _SAID if tuple(words[at : at + len(phrase)]) == phrase), ()
        )
        if f"half-{''.join(words[at + 1 : at + 2])}" in lexicon.attributes and words[at] == "half":
            yield f"half-{words[at + 1]}"
            at += 2
            continue
        if said:
            yield _SAID[said]
            at += len(said)
            continue
        bound = next((n for n in (3, 2) if tuple(words[at : at + n]) in _BOUNDS), 0)
        number, stop = _number(words, at + bound, lexicon)
        if number is None:
            yield _SOME if _RANGE.fullmatch(words[at]) else words[at]
            at += 1
        elif words[at - 1 : at] == ["number"] or _FRACTION.fullmatch(
            "".join(words[stop : stop + 1])
        ):
            at = stop  # a name, or a part of one thing
        elif words[at - 1 : at] in (["few"], ["several"], ["many"]):
            at = stop  # "a few dozen"
        elif bound or (end := _end_of_range(words, stop, lexicon)) > stop:
            yield _SOME
            at = stop if bound else end
        elif _is_measure(words, at, stop, lexicon):
            yield f"{number}-{words[stop]}"
            at = stop + 1
        else:
            yield words[at] if stop == at + 1 else str(number) if number <= _MOST else _SOME
            at = stop


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
