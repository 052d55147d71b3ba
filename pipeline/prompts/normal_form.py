"""The one normal form of a prompt: what counts as the same for duplicates, splits, prompts of which
the best are kept, and leaks.

`plain_text` undoes what nobody sees: compatibility forms, invisible characters, letters of other
scripts that look like Latin ones. `same_words` is level L0 of `leaks`, `same_meaning` level L1.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache

from pipeline.prompts.lexicon import lexicon
from pipeline.prompts.wording import strip_wording
from schemas.ids import normalise

_ARTICLES = frozenset(("a", "an", "the"))
# What is not seen, beside format characters (Cf): fillers, joiners, selectors of a glyph's form.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_APOSTROPHES = re.compile("['\u2018\u2019\u02bc\u02b9\u2032\u00b4`\u02bb\uff07]")
# Letters that look like Latin ones in most fonts: Cyrillic, Greek, Armenian, and Latin small
# capitals. The plain ones of Unicode's confusables.
_LOOKALIKES = str.maketrans(
    {
        letter: latin
        for letters, latins in (
            (
                "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0501\u051b"
                "\u051d\u04bb\u04cf\u0475\u0461",
                "aeopcyxijsdqwhlvw",
            ),
            (
                "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425"
                "\u0406\u0408\u0405\u050c\u051a\u051c\u04ba\u0474",
                "abekmhopctyxijsgqwhv",
            ),
            (
                "\u03b1\u03bf\u03c1\u03bd\u03b9\u03ba\u03c5\u03c7\u03f2\u03f3",
                "aopvikuxcj",
            ),
            (
                "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4"
                "\u03a5\u03a7\u03f9",
                "abezhikmnoptyxc",
            ),
            (
                "\u0578\u057d\u0570\u0585\u0566\u0581\u0584\u0531\u054f\u0555",
                "nuhoqgfaso",
            ),
            (
                "\u0131\u0261\u0251\u0269\u028b\u026a\u0299\u0262\u029c\u029f\u0274\u0280"
                "\u028f\u1d00\u1d04\u1d05\u1d07\u1d0a\u1d0b\u1d0d\u1d0f\u1d18\u1d1b\u1d1c"
                "\u1d20\u1d21\u1d22\ua731",
                "igaivibghlnryacdejkmoptuvwzs",
            ),
        )
        for letter, latin in zip(letters, latins, strict=True)
    }
)
_HAS_LATIN = re.compile("[a-zA-Z]")
_LETTERS = re.compile(r"[^\W\d_]+")
_ENCLOSED = {  # white letters on black, which have no compatibility form
    0x1F150 + offset: chr(0x61 + offset) for offset in range(26)
} | {0x1F170 + offset: chr(0x61 + offset) for offset in range(26)}
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
    """A prompt as it looks, in lower case: NFKC, without what is not seen, lookalikes as Latin.

    Accents that have a letter of their own stay, and so do words in another script.
    """
    text = unicodedata.normalize("NFKC", prompt.translate(_ENCLOSED))
    text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    text = _with_latin_words("".join(_without_loose_marks(_UNSEEN.sub("", text))))
    text = unicodedata.normalize("NFKC", text.casefold())
    return normalise(text)


def same_words(prompt: str) -> list[str]:
    """The words, alike for prompts that differ in case, punctuation, white space, and what nobody
    sees. An apostrophe is dropped, since people leave it out; all other marks part words.
    """
    return _words(plain_text(prompt))


def same_meaning(prompt: str) -> list[str]:
    """The words, alike also for prompts that differ in articles, plurals, accents, the spelling of
    numbers and of British words, and in what says how a picture is made: `a photo of`, `, 4k`.
    """
    words_of = lexicon()
    plain = plain_text(prompt)
    words = _words(strip_wording(plain).replace("&", " and ")) or _words(plain)
    if words_of.foreign.isdisjoint(words):
        words = [_without_accents(word) for word in words]
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


def _without_loose_marks(text: str) -> Iterator[str]:
    """Without marks over Latin letters that make no letter of their own: struck out, heaped up."""
    is_latin = False
    for letter in text:
        if unicodedata.category(letter) != "Mn":
            is_latin = letter.isascii() or unicodedata.name(letter, "").startswith("LATIN")
        elif is_latin:
            continue
        yield letter


def _with_latin_words(text: str) -> str:
    """Lookalikes as Latin letters in words that have others too, and in all words if then all of a
    text that has Latin letters is in these. Of the latter only what looks alike in lower case, too:
    case must not decide.
    """
    if text.isascii() or not _HAS_LATIN.search(text):
        return text
    whole = text.lower().translate(_LOOKALIKES)
    if whole.isascii():
        return whole
    return _LETTERS.sub(lambda word: _latin(word[0]), text)


def _latin(word: str) -> str:
    return word.translate(_LOOKALIKES) if _HAS_LATIN.search(word) else word


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
