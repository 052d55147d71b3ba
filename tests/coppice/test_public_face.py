"""`import coppice`: what it promises is there, and costs nothing until it is used."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import coppice
from coppice import reading, traces
from pipeline.engine import collator
from pipeline.scoring import scorers, settings
from schemas import __version__

ROOT = Path(__file__).parents[2]
HOMES = {
    "Collator": collator,
    "Critique": traces,
    "Run": reading,
    "Score": scorers,
    "Scorer": scorers,
    "ScorerSettings": settings,
    "ScoringInput": scorers,
    "Trace": traces,
    "Traces": traces,
    "TrainingSet": reading,
    "janus_loss": collator,
    "open": reading,
    "paint": reading,
}


def run_python(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


def test_what_it_promises_is_what_there_is():
    assert coppice.__all__ == sorted(coppice.__all__)
    assert set(coppice.__all__) == {*HOMES, "__version__"}
    assert dir(coppice) == coppice.__all__


@pytest.mark.parametrize("name", HOMES)
def test_every_name_is_the_very_thing_of_its_module(name: str):
    assert getattr(coppice, name) is getattr(HOMES[name], name)


def test_the_version_is_that_of_the_package():
    assert coppice.__version__ == __version__
    assert run_python("-m", "coppice", "--version").split() == ["coppice", __version__]


def test_a_name_that_is_none_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'coppice' has no attribute 'Colator'"):
        coppice.Colator  # noqa: B018


@pytest.mark.parametrize(
    "use", ["pass", "coppice.Scorer", "coppice.Collator, coppice.janus_loss", "coppice.open"]
)
def test_importing_it_loads_nothing_heavy(use: str):
    loaded = run_python("-c", f"import sys, coppice; {use}; print(*sys.modules)").split()

    assert "coppice" in loaded
    assert not {"torch", "transformers", "ray"} & set(loaded)
    assert ("numpy" in loaded) == (use != "pass")


def test_a_star_import_has_every_name():
    names = run_python("-c", "from coppice import *; print(*dir())").split()

    assert set(coppice.__all__) <= set(names)


# Packages of others under the names of ours


def run_shadowed(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Python with a folder before ours on its path."""
    environment = os.environ | {"PYTHONPATH": f"{folder}:{ROOT}"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT.anchor,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", ["schemas", "pipeline", "jobs"])
def test_a_package_in_the_way_is_named_at_the_import(tmp_path: Path, name: str):
    (tmp_path / f"{name}.py").touch()

    done = run_shadowed(tmp_path, "-c", "import coppice")

    assert done.returncode == 1
    assert f"ImportError: another package named '{name}' is in the way" in done.stderr
    assert str(tmp_path / f"{name}.py") in done.stderr


def test_the_command_line_says_so_in_one_sentence(tmp_path: Path):
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").touch()

    done = run_shadowed(tmp_path, "-m", "coppice", "--version")

    assert done.returncode == 2
    assert done.stderr.startswith("coppice: another package named 'pipeline' is in the way")
    assert done.stderr.count("\n") == 1


def test_a_folder_without_a_package_is_in_nobodys_way(tmp_path: Path):
    (tmp_path / "jobs").mkdir()

    assert run_shadowed(tmp_path, "-c", "import coppice").returncode == 0
