"""The one normal form of a prompt: what counts as the same for duplicates, splits, prompts of which
the best are kept, and leaks.

`plain_text` undoes what nobody sees: compatibility forms, invisible characters, letters of other
scripts that look like Latin ones. `same_words` is level L0 of `leaks`, `same_meaning` level L1.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from html import unescape
from html.entities import html5

from pipeline.prompts.lexicon import lexicon, lookalikes
from pipeline.prompts.wording import strip_wording
from schemas.ids import normalise

_ARTICLES = frozenset(("a", "an", "the"))
# What is not seen, beside format characters (Cf): fillers, joiners, selectors of a glyph's form.
_UNSEEN = re.compile(
    "[\u034f\u0640\u115f\u1160\u17b4\u17b5\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
_APOSTROPHES = re.compile("['\u2018\u2019\u02bc\u02b9\u2032\u00b4`\u02bb\uff07]")
_HAS_LATIN = re.compile("[a-zA-Z]")
_LETTERS = re.compile(r"[^\W\d_]+")
# Before compatibility forms: letters white on black have none, those in parentheses keep these,
# and the fillers that are as wide as a letter are the same as those that are not seen.
_ENCLOSED = {
    first + offset: chr(0x61 + offset)
    for first in (0x249C, 0x1F110, 0x1F150, 0x1F170)
    for offset in range(26)
} | {0x3164: " ", 0xFFA0: " "}
_FLAG_LETTERS = {0x1F1E6 + offset: chr(0x61 + offset) for offset in range(26)}
_FLAGS = re.compile("[\U0001f1e6-\U0001f1ff]+")
_SEAMS = re.compile("[\u200b\u180e]+")  # not seen, but a line, or a word, may end there
_TOKEN = re.compile(r"\S+")
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,30});")
_TAG = re.compile(
    r"</?(?:(b|i|u|s|a|em|strong|span|font|small|big|mark|sup|sub)|br|hr|p|div|li|ul|ol)"
    r"(?:\s[^<>]{0,300})?/?>",
    re.IGNORECASE,
)
_MOST_ROUNDS = 4
_LIST_NUMBER = re.compile(r"\(?[0-9]{1,3}[.)]\s+(?=\S)")
_SPELLINGS = {  # British or longer forms
    "grey": "gray",
    "colour": "color",
    "coloured": "colored",
    "colourful": "colorful",
    "multicoloured": "multicolored",
    "armour": "armor",
    "harbour": "harbor",
    "moustache": "mustache",
    "doughnut": "donut",
    "pyjamas": "pajamas",
    "aeroplane": "airplane",
    "tyre": "tire",
    "centre": "center",
    "theatre": "theater",
    "neighbour": "neighbor",
    "jewellery": "jewelry",
    "plough": "plow",
    "woollen": "woolen",
    "aluminium": "aluminum",
    "flavour": "flavor",
    "yoghurt": "yogurt",
    "mould": "mold",
    "travelling": "traveling",
    "fibre": "fiber",
    "cosy": "cozy",
}


@lru_cache(maxsize=64)  # of one prompt several levels are asked in turn
def plain_text(prompt: str) -> str:
    """A prompt as it looks, in lower case: NFKC, without what is not seen, lookalikes as Latin, and
    HTML as it would be shown.

    Accents that have a letter of their own stay, and so do words in another script.
    """
    text = unicodedata.normalize("NFKC", prompt.translate(_ENCLOSED))
    for _ in range(_MOST_ROUNDS):  # what one uncovers another may undo: in lower case more is Latin
        before, text = text, _with_latin_words(_as_seen(_without_html(text)))
        text = unicodedata.normalize("NFKC", text.casefold())
        if text == before:
            break
    return normalise(text)


def same_words(prompt: str) -> list[str]:
    """The words, alike for prompts that differ in case, punctuation, white space, and what nobody
    sees. An apostrophe is dropped, since people leave it out; all other marks part words.
    """
    return _words(plain_text(prompt))


def same_meaning(prompt: str) -> list[str]:
    """The words, alike also for prompts that differ in articles, plurals, accents, the spelling of
    numbers and of British words, in a number of a list before them, and in what says how a
    picture is made: `a photo of`, `, 4k`.
    """
    words_of = lexicon()
    plain = plain_text(prompt)
    number = _LIST_NUMBER.match(plain)
    plain = plain[number.end() :] if number else plain
    words = _words(strip_wording(plain).replace("&", " and ")) or _words(plain)
    if words_of.foreign.isdisjoint(words):
        words = [bare for word in words if (bare := _without_accents(word))]
    return [_dictionary_form(word) for word in words if word not in _ARTICLES]


def prompt_key(prompt: str) -> str:
    """The same for prompts that are equal at L0 or L1: what a split never parts."""
    return " ".join(same_meaning(prompt) or same_words(prompt)) or normalise(prompt)


def _words(text: str) -> list[str]:
    """Words in any script; of marks and symbols nothing stays."""
    bare = _APOSTROPHES.sub("", text)
    return "".join(letter if _is_of_word(letter) else " " for letter in bare).split()


@cache
def _is_of_word(letter: str) -> bool:
    return unicodedata.category(letter)[0] not in "PSZC"


def _without_html(text: str) -> str:
    shown = _TAG.sub(lambda tag: "" if tag[1] else " ", _ENTITY.sub(_entity, text))
    return text if shown == text else unicodedata.normalize("NFKC", shown)


def _entity(entity: re.Match[str]) -> str:
    name = entity[0][1:]
    return html5.get(name) or html5.get(name.lower()) or unescape(entity[0])


def _as_seen(text: str) -> str:
    """Without what is not seen; flags that spell words are letters."""
    if text.isascii():
        return text
    text = "".join(
        letter for letter in text if unicodedata.category(letter) != "Cf" or _SEAMS.match(letter)
    )
    if any(_is_spelling(letters) for letters in _FLAGS.findall(text)):
        text = text.translate(_FLAG_LETTERS)
    if _SEAMS.search(text):
        text = _TOKEN.sub(lambda token: _mended(token[0]), text)
    return "".join(_without_loose_marks(_UNSEEN.sub("", text)))


def _is_spelling(letters: str) -> bool:
    """Two of these are a flag."""
    return len(letters) % 2 == 1 or lexicon().knows(letters.translate(_FLAG_LETTERS))


def _mended(token: str) -> str:
    """A word that has seams is one, unless most of its parts are words: they are parted there."""
    parts = [part for part in _SEAMS.split(token) if part]
    num_words = sum(lexicon().knows(_bare(part)) for part in parts)
    is_word = lexicon().knows(_bare("".join(parts)))
    return (" " if 2 * num_words > len(parts) and not is_word else "").join(parts)


def _bare(word: str) -> str:
    return "".join(_LETTERS.findall(word)).casefold()


def _without_loose_marks(text: str) -> Iterator[str]:
    """Without marks over Latin letters that make no letter of their own: struck out, heaped up."""
    is_latin = False
    for letter in text:
        if unicodedata.category(letter) not in ("Mn", "Me"):
            is_latin = letter.isascii() or unicodedata.name(letter, "").startswith("LATIN")
        elif is_latin:
            continue
        yield letter


def _with_latin_words(text: str) -> str:
    """Lookalikes as Latin letters in words that have others too, and in all words if then all of a
    text that has Latin letters is in these. Of the latter only what looks alike in lower case, too:
    case must not decide.
    """
    text = text.translate(_small_capitals())
    if text.isascii() or not _HAS_LATIN.search(text):
        return text
    whole = text.lower().translate(lookalikes())
    if whole.isascii():
        return whole
    return _LETTERS.sub(lambda word: _latin(word[0]), text)


@cache
def _small_capitals() -> dict[int, str]:
    """Lookalikes that are Latin letters themselves."""
    return {
        letter: latin
        for letter, latin in lookalikes().items()
        if unicodedata.name(chr(letter)).startswith("LATIN")
    }


def _latin(word: str) -> str:
    return word.translate(lookalikes()) if _HAS_LATIN.search(word) else word


def _without_accents(word: str) -> str:
    if word.isascii():
        return word
    letters = unicodedata.normalize("NFD", word)
    bare = "".join(letter for letter in letters if unicodedata.category(letter) != "Mn")
    return bare if bare.isascii() else word


def _dictionary_form(word: str) -> str:
    singular = lexicon().singular(word)
    number = lexicon().numbers.get(word)
    return str(number) if number else _SPELLINGS.get(singular, singular)
