"""The command line as a user has it, and Ray clusters that are really started."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray

from tests.jobs.command_server import CommandServer
from tests.jobs.raylets import end_group, free_port

Coppice = Callable[..., "subprocess.CompletedProcess[str]"]


@contextmanager
def hangups(handler: signal.Handlers) -> Iterator[None]:
    """Whether this process, and those that it starts, hear of a terminal that is closed."""
    before = signal.signal(signal.SIGHUP, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.fixture
def hears_hangups() -> Iterator[None]:
    """They do, though pytest may run under nohup."""
    with hangups(signal.SIG_DFL):
        yield


@pytest.fixture(scope="session")
def commands() -> Iterator[CommandServer]:
    server = CommandServer()
    yield server
    server.end()


@pytest.fixture
def coppice(tmp_path: Path, commands: CommandServer) -> Coppice:
    """Run the command in an empty folder, and return what it printed and its exit code.

    What needs a Ray starts one on this machine, as it does for a new user.
    """
    return _coppice_in(tmp_path, commands)


@pytest.fixture
def coppice_on_ray(tmp_path: Path, commands: CommandServer, head: dict[str, str]) -> Coppice:
    """As `coppice`, but what needs a Ray joins the cluster that is up already: seconds faster."""
    return _coppice_in(tmp_path, commands, head)


def _coppice_in(
    folder: Path, commands: CommandServer, environment: Mapping[str, str] | None = None
) -> Coppice:
    def run(*arguments: str, timeout: float = 200) -> "subprocess.CompletedProcess[str]":
        env = os.environ if environment is None else environment
        return commands.run(arguments, folder=folder, env=env, timeout=timeout)

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


@pytest.fixture(scope="package")  # of all below tests/jobs: an idle head, too, takes CPU time
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Ray head with its dashboard, as on a cluster. Yields the environment of a client of it."""
    ports = {
        name: free_port() for name in ("port", "dashboard-port", "dashboard-agent-listen-port")
    }
    client = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    client["RAY_ADDRESS"] = f"127.0.0.1:{ports['port']}"
    folder = tempfile.mkdtemp(prefix="ray-")  # short: a socket's path holds 107 characters at most
    command = [
        *("ray", "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats"),
        *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"),
        *(f"--{name}={port}" for name, port in ports.items()),
        f"--temp-dir={folder}",
    ]
    command[0] = str(Path(sys.executable).with_name("ray"))
    log = (tmp_path_factory.mktemp("head") / "log").open("w")
    starting = {name: value for name, value in client.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(
        command, env=starting, stdout=log, stderr=log, start_new_session=True
    )
    try:
        for name in ("dashboard-port", "dashboard-agent-listen-port"):  # the second is its node's
            _wait_for(ports[name], process, Path(log.name))
        yield client | {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{ports['dashboard-port']}"}
    finally:
        end_group(process)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    import time

    for _ in range(1200):
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"the Ray head did not come up:\n{log.read_text()}")
