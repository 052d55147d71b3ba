"""Names of files and folders, which may hold any byte: how they are stored, shown and typed."""

import re
import shlex
import unicodedata

from schemas.errors import InputError

_SURROGATE = re.compile(r"[\ud800-\udfff]")
_FIRST_BYTE = 0xDC00  # with what Python adds to a byte of a name that is not UTF-8
_HOSTILE = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}  # Unicode categories


def spelt(name: str) -> str:
    """The name as text that can be stored; a byte that is not UTF-8 is spelt `\\xff`."""
    return _SURROGATE.sub(lambda half: _escape(half[0]), name)


def check_is_text(name: str, what: str) -> None:
    """Raises InputError for a name that would have to be stored as it is, and cannot be."""
    if _SURROGATE.search(name):
        raise InputError(
            f"the name of {what} is not UTF-8 ({spelt(name)}), so no run could record it; rename "
            "it, or give another"
        )


def is_hostile(letter: str) -> bool:
    """Whether it could move a terminal's cursor, hide, or reorder what is around it."""
    return unicodedata.category(letter) in _HOSTILE


def quoted(text: str) -> str:
    """As one word for a shell; what must not be printed is spelt in the shell's own `$'...'`."""
    if not any(map(is_hostile, text)):
        return shlex.quote(text)
    return "$'" + "".join(map(_in_dollar_quotes, text)) + "'"


def _in_dollar_quotes(letter: str) -> str:
    if letter in "\\'":
        return f"\\{letter}"
    return _escape(letter) if is_hostile(letter) else letter


def _escape(letter: str) -> str:
    code = ord(letter)
    if 0x80 <= code - _FIRST_BYTE <= 0xFF:
        code -= _FIRST_BYTE
    elif code > 0xFFFF:
        return f"\\U{code:08x}"
    elif code >= 0x80:
        return f"\\u{code:04x}"
    return f"\\x{code:02x}"
