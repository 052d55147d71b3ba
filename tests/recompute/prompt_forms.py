"""What counts as one prompt, as docs/prompts.md has it ("Leaks"): a small code of its own for plain
English prompts, which knows fewer lead-ins, tails and plurals than there are.
"""

import hashlib
import json
import re
import unicodedata
from pathlib import Path

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


class EvaluationPrompts:
    """The prompts of evaluation files, a prompt a line or an object a line."""

    def __init__(self, files: list[Path]) -> None:
        self.digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
        prompts = [
            json.loads(line)["prompt"] if file.suffix == ".jsonl" else line
            for file in files
            for line in file.read_text().splitlines()
            if line.strip()
        ]
        self._forms = {
            "L0": (exact_form, {exact_form(prompt) for prompt in prompts}),
            "L1": (loose_form, {loose_form(prompt) for prompt in prompts}),
        }

    def level_of(self, prompt: str, levels: list[str]) -> str | None:
        """The lowest of the levels at which a prompt is one of these; of L2 and L3 nothing is
        known here.
        """
        for level, (form_of, forms) in self._forms.items():
            if level in levels and form_of(prompt) in forms:
                return level
        return None
