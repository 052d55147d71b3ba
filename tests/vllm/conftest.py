"""Real vLLM servers on this machine, of models that are made on the spot."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.cluster.serving.keeper import Keeper, Phase, ServerOrder
from jobs.cluster.serving.process import free_port
from schemas.endpoints import ServeConfig
from tests.vllm import environment, models

HOST = "127.0.0.1"
START_SECONDS = 600.0  # half a minute on a machine that has nothing else to do
_ARGS = (
    *("--max-model-len", "4096", "--enforce-eager"),
    # No prompt is prefilled in parts: with a seed, that ends the engine of 0.32 on a CPU.
    *("--max-num-batched-tokens", "32768"),
    # Else a random model may fill its answer with white space, which every grammar allows.
    *("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}'),
)
_SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_HOST_IP": HOST,
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vllm)
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def serve() -> Iterator[ServeConfig]:
    """How a real vLLM is started here. The environment is made first, if it is not there."""
    program = environment.vllm_program()
    home = environment.folder()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (_SETTINGS | {"VLLM_CACHE_ROOT": str(home / "cache")}).items():
            patch.setenv(name, value)
        yield ServeConfig(
            command=(str(program), "serve"),
            args=_ARGS,
            gpus=0,
            start_timeout_seconds=START_SECONDS,
        )


@pytest.fixture(scope="session")
def text_model() -> Path:
    return models.made(models.TEXT, environment.folder() / "models")


@pytest.fixture(scope="session")
def picture_model() -> Path:
    return models.made(models.PICTURES, environment.folder() / "models")


@contextmanager
def kept(serve: ServeConfig, model: Path, folder: Path, *, port: int = 0) -> Iterator[Keeper]:
    """A server that answers, and is started again when it is killed."""
    port = port or free_port(HOST)
    order = ServerOrder(
        model=str(model),
        revision=None,
        serve=serve,
        key=None,
        host=HOST,
        gpus="",
        log=folder / f"vllm-{port}.log",
        port=port,
    )
    server = Keeper(order)
    try:
        until(lambda: server.status().phase is not Phase.STARTING, START_SECONDS)
        assert server.status().phase is Phase.ANSWERING, server.status().message
        yield server
    finally:
        server.end()


def until(is_so: Callable[[], bool], seconds: float) -> None:
    stop_at = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < stop_at, "it did not come to be"
        time.sleep(0.05)


def processes_of(port: int | str) -> list[int]:
    """The processes that were told this port on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--port" in words and str(port).encode() in words and b"-I" not in words:
            found.append(int(path.parent.name))
    return found


def signal_group(url: str, sign: signal.Signals) -> None:
    """Send a signal to all processes of the server at an address."""
    (server,) = processes_of(port_of(url))
    os.killpg(server, sign)


def port_of(url: str) -> int:
    return int(url.removesuffix("/v1").rpartition(":")[2])
