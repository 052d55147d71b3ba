"""Servers of a run on a real Ray: placed, addressed, replaced, ended with all that they started."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from jobs.cluster.placement import num_held
from jobs.cluster.ray_state import read_cluster
from jobs.cluster.serving.fleet import Fleet, served
from schemas.config import ModelConfig, RunConfig
from schemas.endpoints import EndpointExecution, EndpointMethod, ServeConfig
from schemas.errors import InputError
from tests.jobs.cluster.serving.test_keeper import COMMAND, is_alive, none_alive, processes, until
from tests.support import fake_config, fake_method

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def small_ray() -> Iterator[None]:
    """Two CPUs, two pretended GPUs."""
    ray.init(address="local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def config_of(tmp_path: Path, *args: str, gpus: float = 1.0) -> RunConfig:
    """The fake draws and thinks; a served stand-in is its critic."""
    method = fake_method(
        backends={"reflect": "critic"}, endpoints={"critic": EndpointMethod(model="some/model")}
    )
    serve = ServeConfig(
        command=COMMAND, args=("--mild", "--pids", str(tmp_path / "pids"), *args), gpus=gpus, cpus=0
    )
    return fake_config(method, endpoints={"critic": EndpointExecution(serve=serve)})


def test_a_server_is_placed_addressed_replaced_and_ended(small_ray: None, tmp_path: Path):
    said: list[str] = []
    config = config_of(tmp_path)
    with served(config, "run", is_local=True, note=said.append) as fleet:
        assert fleet is not None
        fleet.wait(lambda: False)
        first = fleet.addressed().execution.endpoints["critic"]
        (server, *_) = processes(tmp_path)
        environ = Path(f"/proc/{server}/environ").read_bytes().split(b"\0")

        assert first.url[0].startswith("http://127.0.0.1:")
        assert first.api_key_env in fleet.keys
        assert any(name.startswith(b"CUDA_VISIBLE_DEVICES=") and len(name) > 21 for name in environ)
        cluster = replace(read_cluster((None, None), with_free=False), taken=fleet.taken())
        assert cluster.nodes[0].resources["GPU"] == 2
        assert num_held({"GPU": 1.0}, cluster) == 1  # the other one is the server's

        ray.kill(fleet._replicas[0].handle)  # as a node that goes
        until(lambda: none_alive(tmp_path), 60)
        until(lambda: _moved(fleet, first.url), 60)
        assert any("Lost the actor" in line for line in said)

        os.kill(processes(tmp_path)[-3], signal.SIGKILL)
        until(lambda: _has_said(fleet, said, "started again"), 60)
    assert none_alive(tmp_path)
    (key,) = fleet.keys.values()
    assert not any(key in line for line in said)
    assert not [path for path in _logs_of_ray() if key.encode() in path.read_bytes()]


def _logs_of_ray() -> list[Path]:
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    logs = [path for path in (session / "logs").rglob("*") if path.is_file()]
    assert logs
    return logs


def _moved(fleet: Fleet, before: tuple[str, ...]) -> bool:
    fleet.look()
    return fleet.addressed().execution.endpoints["critic"].url != before


def _has_said(fleet: Fleet, said: list[str], words: str) -> bool:
    fleet.look()
    return any(words in line for line in said)


def test_a_server_that_cannot_start_refuses_the_run_with_the_end_of_its_log(
    small_ray: None, tmp_path: Path
):
    config = config_of(tmp_path, "--fault", "exits", gpus=0)
    with served(config, "run", is_local=True, note=lambda line: None) as fleet:
        assert fleet is not None
        with pytest.raises(InputError, match=r"code 3.*CUDA out of memory, say.*critic\.serve \("):
            fleet.wait(lambda: False)


def test_a_run_without_servers_of_its_own_has_none():
    config = fake_config(fake_method(model=ModelConfig(name="fake", digest="none")))
    with served(config, "run", is_local=True, note=lambda line: None) as fleet:
        assert fleet is None
    assert is_alive(os.getpid())


def start(tmp_path: Path, num_prompts: int) -> "tuple[subprocess.Popen[bytes], Path]":
    """A run that serves its critic, as a user starts it; and what it says."""
    config, log = tmp_path / "teacher.toml", tmp_path / "log"
    words = ", ".join(f'"{word}"' for word in ("--mild", "--pids", str(tmp_path / "pids")))
    command = ", ".join(f'"{word}"' for word in COMMAND)
    config.write_text(
        '[method]\nbackend = "fake"\nbackends = { reflect = "critic" }\n'
        "[method.fake]\nimage_size = 64\ndelay_seconds = 0.01\n"
        '[method.endpoints.critic]\nmodel = "some/model"\n'
        f"[execution.endpoints.critic.serve]\ncommand = [{command}]\nargs = [{words}]\ngpus = 0\n"
    )
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"a red cube number {number}" for number in range(num_prompts)))
    words = [sys.executable, "-m", "jobs.cli", "run", "prompts.txt", "run", "--config", str(config)]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[4])}
    with log.open("w") as sink:
        return subprocess.Popen(words, cwd=tmp_path, env=env, stdout=sink, stderr=sink), log


def test_a_run_serves_its_critic_and_leaves_nothing_of_it(tmp_path: Path):
    driver, log = start(tmp_path, 8)

    assert driver.wait(180) == 0, log.read_text()
    assert "Complete: 8 ok, 0 dead" in log.read_text()
    assert processes(tmp_path)
    assert none_alive(tmp_path)


def test_nothing_of_a_server_outlives_a_driver_that_is_killed(tmp_path: Path):
    driver, log = start(tmp_path, 2000)
    until(lambda: "committed" in log.read_text() or driver.poll() is not None, 180)
    assert driver.poll() is None, log.read_text()
    assert all(map(is_alive, processes(tmp_path)))
    driver.kill()
    driver.wait()
    until(lambda: none_alive(tmp_path), 60)
