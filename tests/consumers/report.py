"""What the program of one consumer hands back: a line of JSON, the last one that it prints."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict


class Report(TypedDict, total=False):
    """What a consumer did with our export."""

    version: str  # of the consumer
    ran: list[str]  # what was run, in words
    schema: list[str]  # what was only held against the consumer's documented schema, and why
    loss: float  # at the first step, as the consumer says
    own: float  # the same loss, worked out by ourselves
    problems: list[str]  # what is not as it should be


def hand_back(report: Report) -> None:
    """Print it."""
    sys.stdout.write(f"\n{json.dumps(report)}\n")


def given() -> Path:
    """The folder of sets that the program was started with."""
    return Path(sys.argv[1])


def json_lines(folder: Path) -> list[Any]:
    """The rows of all JSON Lines below a folder."""
    return [
        json.loads(line)
        for path in sorted(folder.rglob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]


def gap(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest difference."""
    return max(abs(mine - other) for mine, other in zip(ours, theirs, strict=True))
