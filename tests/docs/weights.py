"""Tiny random weights in the place of judges': `python -m tests.docs.weights NAME...`, here."""

import sys
from pathlib import Path

from tests.pipeline.scoring.judges import checkpoints

if __name__ == "__main__":
    for name in sys.argv[1:]:
        getattr(checkpoints, name)(Path(name))
