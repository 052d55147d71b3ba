"""What counts as one prompt, as docs/prompts.md has it ("Leaks"): a small code of its own for plain
English prompts, which knows fewer lead-ins, tails and plurals than there are.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from tests.recompute.reading import Row

_APOSTROPHES = re.compile("['\u2018\u2019\u02bc]")
_LEAD = re.compile(
    r"(?:(?:generate|create|draw)\s+)?(?:an?\s+|the\s+)?(?:(?:realistic|close-up)\s+)*"
    r"(?:photo|picture|image|painting|drawing)\s+of\s+"
)
_TAIL = re.compile(r"(?:,\s*[48]k|,\s*highly detailed|\s+photo)[.!\s]*$")
_NUMBERS = {"one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6"}
_PLURALS = {"men": "man", "women": "woman", "children": "child", "people": "person"}
_ENDINGS = (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("sses", "ss"), ("xes", "x"))


def exact_form(prompt: str) -> str:
    """The same at L0: but for case, punctuation, white space and what nobody sees."""
    return " ".join(_words(_seen(prompt)))


def loose_form(prompt: str) -> str:
    """The same at L1: and for articles, plurals, accents, and how it is to be drawn."""
    text = _TAIL.sub("", _LEAD.sub("", _seen(prompt), count=1))
    letters = unicodedata.normalize("NFD", text)
    bare = "".join(letter for letter in letters if unicodedata.category(letter) != "Mn")
    return " ".join(_singular(word) for word in _words(bare) if word not in ("a", "an", "the"))


def _seen(prompt: str) -> str:
    text = unicodedata.normalize("NFKC", prompt).casefold().strip()
    return "".join(letter for letter in text if unicodedata.category(letter) != "Cf")


def _words(text: str) -> list[str]:
    return re.sub(r"[\W_]+", " ", _APOSTROPHES.sub("", text)).split()


def _singular(word: str) -> str:
    if word in _NUMBERS:
        return _NUMBERS[word]
    if word in _PLURALS:
        return _PLURALS[word]
    for plural, singular in _ENDINGS:
        if word.endswith(plural):
            return word.removesuffix(plural) + singular
    is_plural = len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is"))
    return word[:-1] if is_plural else word


UNKNOWN_LEVELS = ("L2", "L3")
"""Of which nothing is known here."""


class EvaluationPrompts:
    """The prompts of evaluation files, a prompt a line or an object a line.

    `told` are the levels of records, by their ids, as a set says: those at L2 and L3 are believed.
    """

    def __init__(
        self, files: list[Path], column: str | None = None, told: Mapping[str, str] | None = None
    ) -> None:
        self._told = told or {}
        self.digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
        prompts = [
            _prompt_of(json.loads(line), column) if file.suffix == ".jsonl" else line
            for file in files
            for line in file.read_text().splitlines()
            if line.strip()
        ]
        self._forms = {
            "L0": (exact_form, {exact_form(prompt) for prompt in prompts}),
            "L1": (loose_form, {loose_form(prompt) for prompt in prompts}),
        }

    def level_of(self, trace: Row, levels: list[str]) -> str | None:
        """The lowest level at which the prompt of a trace is one of these, and that counts: a level
        includes those below it.
        """
        for level, (form_of, forms) in self._forms.items():
            if level <= max(levels, default="") and form_of(trace["prompt"]) in forms:
                return level
        told = self._told.get(trace["record_id"])
        return told if told in UNKNOWN_LEVELS else None


def _prompt_of(row: Row, column: str | None) -> str:
    """Of a line with columns: of the one that is named, or else of the obvious one."""
    return str(row[column] if column in row else row["prompt"])
