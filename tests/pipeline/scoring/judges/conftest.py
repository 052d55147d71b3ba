"""Tiny checkpoints, each made once for all tests, and pictures to be judged."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.pictures import Pixels
from pipeline.scoring.find import find_scorer
from pipeline.scoring.scorers import LoadsWeights, Scorer, ScoringInput
from schemas.json_values import JsonMapping
from tests.pipeline.scoring.judges import checkpoints

Checkpoints = Callable[[str], Path]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """The folder of a tiny checkpoint, by the name of its builder."""
    folders: dict[str, Path] = {}

    def folder_of(name: str) -> Path:
        if name not in folders:
            folders[name] = getattr(checkpoints, name)(tmp_path_factory.mktemp(name))
        return folders[name]

    return folder_of


def loaded(name: str, **settings: str | int | float) -> Scorer:
    """A scorer with its weights read, as an actor has it."""
    scorer = find_scorer(name, settings)
    assert isinstance(scorer, LoadsWeights)
    scorer.load("cpu")
    return scorer


def picture(seed: int, height: int = 96, width: int = 96) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def asked(prompt: str, seed: int, metadata: JsonMapping | None = None, **size: int) -> ScoringInput:
    return ScoringInput(prompt=prompt, pixels=picture(seed, **size), metadata=metadata or {})
