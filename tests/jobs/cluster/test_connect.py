"""A package in the way of workers is named before a Ray is started, or when one dies of it."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import ray
from ray.exceptions import RayError

from jobs.cluster.connect import CLIENT_TRIES, on_ray
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


@pytest.mark.parametrize("num_lost", [1, CLIENT_TRIES - 1, CLIENT_TRIES])
def test_a_client_servers_lost_processes_are_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, num_lost: int
):
    tries = []

    def init(**_: object) -> None:
        tries.append(1)
        if len(tries) <= num_lost:
            raise ConnectionAbortedError(
                "Initialization failure from server:\nTraceback (most recent call last):\n"
                "  File\npsutil.ZombieProcess: PID still exists but it's a zombie (pid=7)\n"
            )

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr("jobs.cluster.connect.check_address", lambda address: None)
    lost = pytest.raises(InputError, match=r"ZombieProcess.*GRPC_ENABLE_FORK_SUPPORT=0")

    with lost if num_lost == CLIENT_TRIES else nullcontext(), on_ray("ray://127.0.0.1:1"):
        pass
    assert len(tries) == min(num_lost + 1, CLIENT_TRIES)
