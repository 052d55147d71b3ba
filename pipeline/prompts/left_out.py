"""What is left out before phrases are read: sentences that no rule can read, and what is no thing.

"All animals but the lion" and "a statue whose nose is missing" name what is not to be shown, in
more ways than rules could follow (`words/doubts.txt`): it is better to ask for too little. A sign
that says "two cats" shows none, and a dog named Apple is no fruit.
"""

import re
from collections.abc import Iterator, Sequence

from pipeline.prompts.lexicon import Lexicon

_ENDS = frozenset(".!?;")
_SPELLED = (
    r"\"[^\"]*\"|\u201c[^\u201c\u201d]*\u201d|\u2018[^\u2018\u2019]*\u2019(?!\w)"
    r"|(?<!\w)'(?:[^']|(?<=\w)'(?=\w))*'(?!\w)"
)
_SAYS = (
    r"(?:says?|saying|reads?|reading|spells?|spelling|labell?ed|titled|entitled|named|called|with"
    r"|that|which)"
)
_TEXT = r"(?:the\s+|a\s+)?(?:words?|text|letters|lettering|phrase|slogan|inscription|caption|title)"
_QUOTED = re.compile(rf"(?:\b{_SAYS}\s+){{0,2}}(?:\b{_TEXT}\s+)?(?<!\d)(?:{_SPELLED})", re.I)
_WHOLE = re.compile(rf"\s*(?:{_SPELLED})\s*(?:$|[,.])")  # a prompt in quotes, perhaps with a style
_CALLED = frozenset(("named", "called", "nicknamed", "titled", "entitled", "says", "saying"))


def without_doubtful(words: Sequence[str], lexicon: Lexicon) -> list[str]:
    """The sentences that hold no doubtful phrase, as one list of words."""
    return [
        word
        for sentence in sentences(words)
        if not _is_doubtful(sentence, lexicon)
        for word in sentence
    ]


def sentences(words: Sequence[str]) -> Iterator[Sequence[str]]:
    """The words cut behind each mark that ends a sentence."""
    start = 0
    for at, word in enumerate(words, start=1):
        if word in _ENDS or at == len(words):
            yield words[start:at]
            start = at


def _is_doubtful(sentence: Sequence[str], lexicon: Lexicon) -> bool:
    ended = [word for word in sentence if word not in _ENDS] + ["."]
    return lexicon.doubts.search(f" {' '.join(ended)} ") is not None


def without_quoted(text: str) -> str:
    """A text without what stands in quotation marks, unless that is the prompt itself."""
    if _WHOLE.match(text):
        return text
    return _QUOTED.sub(lambda quoted: " " if quoted.start() else "words ", text)


def without_names(words: Sequence[str], lexicon: Lexicon) -> list[str]:
    """Words, lower case, without "named Apple" and its like."""
    return list(_unnamed(words, lexicon))


def _unnamed(words: Sequence[str], lexicon: Lexicon) -> Iterator[str]:
    at = 0
    while at < len(words):
        stop = _end_of_name(words, at + 1, lexicon) if words[at] in _CALLED else at
        if stop <= at + 1:
            yield words[at]
            stop = at + 1
        at = stop


def _end_of_name(words: Sequence[str], start: int, lexicon: Lexicon) -> int:
    """Behind the words from there that are a name; the first of them may be any."""
    at = start
    while at < len(words) and _is_of_name(words[at], lexicon, is_first=at == start):
        at += 1
    is_two = words[at : at + 1] == ["and"] and at > start  # "Salt and Pepper"
    return _end_of_name(words, at + 1, lexicon) if is_two and _ends(words, at + 1, lexicon) else at


def _is_of_name(word: str, lexicon: Lexicon, *, is_first: bool) -> bool:
    if not word[0].isalnum() or lexicon.is_function(word):
        return False
    is_doing = word in lexicon.verbs and word.endswith(("s", "ing"))
    return is_first or not is_doing


def _ends(words: Sequence[str], at: int, lexicon: Lexicon) -> bool:
    return at < len(words) and _is_of_name(words[at], lexicon, is_first=False)
