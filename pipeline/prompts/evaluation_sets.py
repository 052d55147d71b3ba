"""Prompts of evaluation sets, found again in a training set, by the levels of `leaks`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.prompts.leaks import LeakIndex


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
