"""`import coppice`: what it promises is there, and costs nothing until it is used."""

import subprocess
import sys
from pathlib import Path

import pytest

import coppice
from pipeline.engine import collator
from pipeline.scoring import scorers, settings
from schemas import __version__

ROOT = Path(__file__).parents[2]
HOMES = {
    "Collator": collator,
    "Score": scorers,
    "Scorer": scorers,
    "ScorerSettings": settings,
    "ScoringInput": scorers,
    "janus_loss": collator,
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


@pytest.mark.parametrize("use", ["pass", "coppice.Scorer", "coppice.Collator, coppice.janus_loss"])
def test_importing_it_loads_nothing_heavy(use: str):
    loaded = run_python("-c", f"import sys, coppice; {use}; print(*sys.modules)").split()

    assert "coppice" in loaded
    assert not {"torch", "transformers", "ray"} & set(loaded)
    assert ("numpy" in loaded) == (use != "pass")


def test_a_star_import_has_every_name():
    names = run_python("-c", "from coppice import *; print(*dir())").split()

    assert set(coppice.__all__) <= set(names)
