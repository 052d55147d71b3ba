"""The very small model, built once."""

from pathlib import Path

import pytest

from pipeline.engine.checkpoints import Janus
from tests.engines import Judge, build_small, load_small


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "small"
    build_small(folder)
    return folder


@pytest.fixture(scope="session")
def small(small_folder: Path) -> Janus:
    """For engines, which own the attention of their model."""
    return load_small(small_folder)


@pytest.fixture(scope="module")
def judge(small_folder: Path) -> Judge:
    """With a model of its own, which no engine has touched."""
    return Judge(load_small(small_folder))
