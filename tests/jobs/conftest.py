"""The command line as a user has it, and Ray clusters that are really started."""

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

Coppice = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def coppice(tmp_path: Path) -> Coppice:
    """Run the command in an empty folder, and return what it printed and its exit code."""

    def run(*arguments: str, timeout: float = 200) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "jobs.cli", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """A file of 24 prompts."""
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(f"a red cube number {number}" for number in range(24)))
    return path


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """Ray in this process, with two CPUs and two pretended GPUs."""
    ray.init(address="local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Ray head with its dashboard, as on a cluster. Yields the environment of a client."""
    ports = {
        name: _free_port() for name in ("port", "dashboard-port", "dashboard-agent-listen-port")
    }
    client = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    client.pop("RAY_ADDRESS", None)
    command = [
        *("ray", "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats"),
        *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"),
        *(f"--{name}={port}" for name, port in ports.items()),
        # Short: a socket's path holds no more than 107 characters.
        f"--temp-dir={tmp_path_factory.mktemp('ray', numbered=True)}",
    ]
    command[0] = str(Path(sys.executable).with_name("ray"))
    log = (tmp_path_factory.mktemp("head") / "log").open("w")
    process = subprocess.Popen(command, env=client, stdout=log, stderr=log)
    try:
        _wait_for(ports["dashboard-port"], process, Path(log.name))
        yield client | {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{ports['dashboard-port']}"}
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    import time

    for _ in range(600):
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"the Ray head did not come up:\n{log.read_text()}")
