"""What a scorer is: it looks at finished pictures and says how good they are.

A score that does not apply is None, never 0: an average over it must leave it out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.pictures import Pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A picture, and what it was to show."""

    prompt: str
    pixels: Pixels
    metadata: Mapping[str, Any] = field(default_factory=dict)  # of its record


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """From 0 to 1, higher is better; None where the scorer has nothing to go by."""

    value: float | None
    parts: Mapping[str, float | None] = field(default_factory=dict)  # by names of the scorer's own


class Scorer(Protocol):
    """Scores pictures. The same name and version give the same scores for the same samples."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def score(self, batch: Sequence[Sample]) -> list[Score]:
        """One score a sample, in order."""
