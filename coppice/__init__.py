"""The public face: what a program that uses Coppice imports.

Whatever stands in `__all__` keeps its name and its meaning from one minor version to the next; all
other modules may change. A name is loaded when it is first used, so that `import coppice` is quick
and needs no torch.
"""

import importlib
from typing import TYPE_CHECKING

from coppice.neighbours import check_neighbours

check_neighbours()

from schemas import __version__  # noqa: E402

if TYPE_CHECKING:
    from coppice.reading import Run, TrainingSet, open, paint
    from coppice.traces import Critique, Trace, Traces
    from pipeline.engine.collator import Collator, janus_loss
    from pipeline.scoring.scorers import Score, Scorer, ScoringInput
    from pipeline.scoring.settings import ScorerSettings

__all__ = [
    "Collator",
    "Critique",
    "Run",
    "Score",
    "Scorer",
    "ScorerSettings",
    "ScoringInput",
    "Trace",
    "Traces",
    "TrainingSet",
    "__version__",
    "janus_loss",
    "open",
    "paint",
]

_MODULES = {
    "Collator": "pipeline.engine.collator",
    "Critique": "coppice.traces",
    "Run": "coppice.reading",
    "Score": "pipeline.scoring.scorers",
    "Scorer": "pipeline.scoring.scorers",
    "ScorerSettings": "pipeline.scoring.settings",
    "ScoringInput": "pipeline.scoring.scorers",
    "Trace": "coppice.traces",
    "Traces": "coppice.traces",
    "TrainingSet": "coppice.reading",
    "janus_loss": "pipeline.engine.collator",
    "open": "coppice.reading",
    "paint": "coppice.reading",
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
