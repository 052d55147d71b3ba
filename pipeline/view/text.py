"""Anybody's text, as it may be shown: every letter of it, and nothing that hides or reorders."""

import unicodedata

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}  # Unicode categories
_SHOWN = {"\n", "\u200c", "\u200d"}  # line breaks; what joins emoji and letters of some scripts


def visible(text: str, longest: int | None = None) -> str:
    """The text with characters spelt out that nobody sees or that turn others round, such as
    bidirectional controls. Longer texts end in three dots. Right-to-left text stays what it is.
    """
    if longest is not None and len(text) > longest:
        text = f"{text[: longest - 4]} ..."
    return "".join(char if char in _SHOWN else _spelt(char) for char in text)


def _spelt(char: str) -> str:
    if unicodedata.category(char) not in _HIDDEN:
        return char
    if char == "\t":
        return " "
    return f"\\u{ord(char):04x}"
