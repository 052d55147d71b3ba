"""What is no list of prompts, whatever its name says, and what to do about it."""

import re
from collections.abc import Sequence

from pipeline.plan.prompt_rows import OBVIOUS_COLUMNS
from schemas.errors import InputError

# What columns of prompts are called as well: no sign of a table alone.
CAPTIONS = frozenset({"caption", "captions", "text", "texts", "sentence", "description"})
PACKED_PARQUET = {b"PAR1": "packed Parquet; unpack it"}
_MAGIC = {
    b"\xff\xfe": "UTF-16; save it as UTF-8",
    b"\xfe\xff": "UTF-16; save it as UTF-8",
    b"PK\x03\x04": "a spreadsheet or a zip archive; save it as CSV, or unpack it",
    b"\xfd7zXZ": "an xz archive; unpack it",
    b"ARROW1": "an Arrow file; convert it to Parquet",
    b"\x1f\x8b": "packed twice; unpack it",
    b"\x28\xb5\x2f\xfd": "packed twice; unpack it",
    b"%PDF-": "a PDF; save its prompts as text, one a line",
    b"{\\rtf": "rich text; save it as plain text",
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file itself: git lfs pull",
    b"/annex/objects/": "a pointer of git-annex; fetch the file itself: git annex get",
}
_PAGE = re.compile(r"\s*<(?:!doctype|html|head|\?xml)\b", re.IGNORECASE)
_STATUS = re.compile(r"\s*[45]\d\d:? [A-Z][a-z]+(?: [A-Z][a-z]+)*\s*")  # of HTTP
_RULER = re.compile(r"\|[\s|:-]*-[\s|:-]*")  # below the header of a table in Markdown
_NUMBERED = re.compile(r'"?(\d+)"?\s*[,;|]')
_PICTURE = re.compile(r'"?[\w./-]+\.(?:jpe?g|png|webp|gif|bmp)"?\s*[,;|]', re.IGNORECASE)


def refuse_foreign(head: bytes, text: str, name: str, *, is_packed: bool) -> None:
    """Raises InputError for the begin of a file that has another format, or was never fetched."""
    for magic, description in (_MAGIC | (PACKED_PARQUET if is_packed else {})).items():
        if head.startswith(magic):
            raise InputError(f"{name}: expected prompts, found {description}")
    if _PAGE.match(text) or _STATUS.fullmatch(text):
        raise InputError(
            f"{name}: expected prompts, found a web page, such as a server's error; fetch the file "
            "itself, and look into it before you plan it"
        )


def refuse_other_lines(lines: Sequence[str], name: str) -> None:
    """Raises InputError for lines that are no table that is read, and no prompts: rows of a table
    in Markdown or with delimiters in their prompts, and a column with its header.

    A first line that says `prompt` and no more heads a column.
    """
    first, second, *_ = (*(line.strip() for line in lines[:2]), "", "")
    word = first.removeprefix('"').removesuffix('"').casefold()
    if word in OBVIOUS_COLUMNS or (word in CAPTIONS and second):
        raise InputError(
            f"{name}:1: expected a prompt, found the header {first!r}; take it away, or call the "
            "file .csv" + ("" if word in OBVIOUS_COLUMNS else f" and add --prompt-column {word}")
        )
    if first.startswith("|") and _RULER.fullmatch(second):
        raise InputError(f"{name}:2: expected prompts, found a Markdown table; write it as CSV")
    if what := _are_keyed(lines) or _are_keyed(lines[1:]):
        raise InputError(
            f"{name}:1: expected a prompt a line, found {what} before them; take these away, or "
            "make it a table: a header such as id,prompt, and quotes around prompts with commas"
        )


def _are_keyed(lines: Sequence[str]) -> str | None:
    """What stands before every prompt: numbers that count them, or names of pictures."""
    if len(lines) < 2:
        return None
    if all(_PICTURE.match(line) for line in lines):
        return "names of pictures"
    numbers = [int(match[1]) for match in map(_NUMBERED.match, lines) if match]
    if len(numbers) < len(lines) or numbers[0] > 1:
        return None
    is_counted = numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return "row numbers" if is_counted else None
