"""What cannot be read with certainty: sentences with a phrase of `words/doubts.txt` are left out.

"All animals but the lion" and "a statue whose nose is missing" name what is not to be shown, in
more ways than rules could follow. It is better to ask for too little.
"""

from collections.abc import Iterator, Sequence

from pipeline.prompts.lexicon import Lexicon

_ENDS = frozenset(".!?;")


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
