"""A package in the way of workers is named before a Ray is started, or when one dies of it."""

from pathlib import Path

import pytest
from ray.exceptions import RayError

from jobs.cluster.connect import on_ray
from jobs.cluster.ray_errors import told
from schemas.errors import InputError


@pytest.mark.parametrize("name", ["schemas", "pipeline", "jobs"])
def test_a_package_in_the_folder_of_the_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()

    with (
        pytest.raises(InputError, match=f"another package named '{name}' is in the way") as error,
        on_ray(None),
    ):
        pass
    assert str(tmp_path / name / "__init__.py") in str(error.value)


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("The actor died: ModuleNotFoundError: No module named 'jobs.cluster'", "jobs"),
        ("ImportError: cannot import name 'Store' from 'pipeline.store' (/x/y.py)", "pipeline"),
        ("ModuleNotFoundError: No module named 'schemas.config'; 'schemas' is not", "schemas"),
    ],
)
def test_an_actor_that_dies_of_a_package_in_the_way_names_it(said: str, name: str):
    assert f"another package named '{name}' is in the way on the worker's node" in told(
        RayError(said)
    )


def test_an_actor_that_dies_of_something_else_names_none():
    assert "in the way" not in told(RayError("No module named 'jobslike'"))
