"""Prompts of evaluation sets, found again in a training set, by the levels of `leaks`."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.prompts.leaks import EvaluationPrompt, LeakIndex, LeakLevel
from schemas.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSet:
    """The prompts that must not be trained on."""

    levels: tuple[str, ...] = ()  # that count as leaks
    index: LeakIndex = field(default_factory=lambda: LeakIndex(()))
    digests: Mapping[str, str] = field(default_factory=dict)  # of the files, by their names

    def leak_of(self, prompt: str) -> str | None:
        """The lowest level at which a prompt is one of these; None: at none that counts."""
        names = (leak.level.name for leak in self.index.leaks(prompt))
        return next((name for name in names if name in self.levels), None)


def read_evaluation_set(paths: Sequence[str], levels: Sequence[str]) -> EvaluationSet:
    """Read files with a prompt a line. Raises InputError for one that has none."""
    prompts: list[EvaluationPrompt] = []
    digests = {}
    for path in paths:
        try:
            body = Path(path).read_bytes()
            lines = [line.strip() for line in body.decode().splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"evaluation file {path} cannot be read: {error}") from error
        if not any(lines):
            raise InputError(f"evaluation file {path} has no prompts; expected one a line")
        name = Path(path).name
        digests[name] = hashlib.sha256(body).hexdigest()
        prompts += [
            EvaluationPrompt(text=line, file=name, line=number)
            for number, line in enumerate(lines, start=1)
            if line
        ]
    counted = tuple(level.name for level in LeakLevel if level.name in levels) if prompts else ()
    return EvaluationSet(levels=counted, index=LeakIndex(prompts), digests=digests)
