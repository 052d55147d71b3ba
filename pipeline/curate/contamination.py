"""Prompts of evaluation sets, found again in a training set.

L0: equal but for case, punctuation and white space. L1: equal, too, without articles, plurals and
"a photo of". What a level strips is one function on text, so that better ones may be put in.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from schemas.errors import InputError
from schemas.ids import normalise

Normaliser = Callable[[str], str]

_NO_WORD = re.compile(r"[^\w\s]|_")
_LEAD = re.compile(r"^(?:an? )?(?:photo|picture|image)(?:graph)? of ")
_ARTICLES = frozenset({"a", "an", "the"})


def plain(prompt: str) -> str:
    """The prompt in small letters, without punctuation."""
    text = unicodedata.normalize("NFKC", normalise(prompt)).casefold()
    return " ".join(_NO_WORD.sub(" ", text).split())


def bare(prompt: str) -> str:
    """The plain prompt without a lead like "a photo of", without articles and plurals."""
    words = _LEAD.sub("", plain(prompt)).split()
    return " ".join(_singular(word) for word in words if word not in _ARTICLES)


LEVELS: Mapping[str, Normaliser] = {"L0": plain, "L1": bare}


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSet:
    """The prompts that must not be trained on, as each level sees them."""

    levels: Mapping[str, frozenset[str]] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)  # of the files, by their names

    def leak_of(self, prompt: str) -> str | None:
        """The first level at which a prompt is one of these; None: it is not."""
        for level, known in self.levels.items():
            if LEVELS[level](prompt) in known:
                return level
        return None


def read_evaluation_set(paths: Sequence[str], levels: Sequence[str]) -> EvaluationSet:
    """Read files with a prompt a line. Raises InputError for one that has none."""
    prompts: set[str] = set()
    digests = {}
    for path in paths:
        try:
            body = Path(path).read_bytes()
            lines = [line.strip() for line in body.decode().splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"evaluation file {path} cannot be read: {error}") from error
        if not lines:
            raise InputError(f"evaluation file {path} has no prompts; expected one a line")
        digests[Path(path).name] = hashlib.sha256(body).hexdigest()
        prompts.update(lines)
    known = {level: frozenset(map(LEVELS[level], prompts)) for level in levels} if prompts else {}
    return EvaluationSet(levels=known, digests=digests)


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if re.search(r"(?:[sx]|ch|sh)es$", word):
        return word[:-2]
    return word[:-1] if re.search(r"[^su]s$", word) else word
