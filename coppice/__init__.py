"""The public face: what a program that uses Coppice imports.

Whatever stands in `__all__` keeps its name and its meaning from one minor version to the next; all
other modules may change. A name is loaded when it is first used, so that `import coppice` is quick
and needs no torch.
"""

import importlib
from typing import TYPE_CHECKING

from schemas import __version__

if TYPE_CHECKING:
    from pipeline.engine.collator import Collator, janus_loss
    from pipeline.scoring.scorers import Score, Scorer, ScoringInput
    from pipeline.scoring.settings import ScorerSettings

__all__ = [
    "Collator",
    "Score",
    "Scorer",
    "ScorerSettings",
    "ScoringInput",
    "__version__",
    "janus_loss",
]

_MODULES = {
    "Collator": "pipeline.engine.collator",
    "Score": "pipeline.scoring.scorers",
    "Scorer": "pipeline.scoring.scorers",
    "ScorerSettings": "pipeline.scoring.settings",
    "ScoringInput": "pipeline.scoring.scorers",
    "janus_loss": "pipeline.engine.collator",
}

if not TYPE_CHECKING:  # a checker knows the names from above, and so finds one that is misspelt

    def __getattr__(name: str):
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_MODULES[name]), name)
        globals()[name] = value  # the next time it is found at once
        return value


def __dir__() -> list[str]:
    return __all__
