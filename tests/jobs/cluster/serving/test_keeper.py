"""A server that is kept answering, without Ray: started, asked, started again, ended with all."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.cluster.serving import keeper, process
from jobs.cluster.serving.keeper import Keeper, Phase, ServerOrder
from schemas.endpoints import ServeConfig
from tests.jobs.cluster.serving import stand_in

COMMAND = (sys.executable, "-S", stand_in.__file__, "serve")
KEY = "a-key-that-nobody-is-to-see"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(keeper, "_HEALTH_SECONDS", 0.3)
    monkeypatch.setattr(keeper, "_PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(process, "_TERM_SECONDS", 0.3)


@contextmanager
def kept(
    tmp_path: Path, *args: str, timeout: float = 30, key: str | None = KEY
) -> Iterator[Keeper]:
    """A stand-in that is kept, and ended afterwards."""
    order = ServerOrder(
        model="some/model",
        revision=None,
        serve=ServeConfig(
            command=COMMAND,
            args=("--pids", str(tmp_path / "pids"), *args),
            start_timeout_seconds=timeout,
        ),
        key=key,
        host="127.0.0.1",
        gpus="",
        log=tmp_path / "logs" / "critic.log",
    )
    one = Keeper(order)
    try:
        yield one
    finally:
        one.end()


def until(is_so: Callable[[], bool], seconds: float = 60) -> None:
    stop_at = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < stop_at, "it did not come to be"
        time.sleep(0.02)


def processes(tmp_path: Path) -> list[int]:
    """All processes of all servers that were started."""
    path = tmp_path / "pids"
    lines = path.read_text().splitlines() if path.exists() else []
    return [pid for line in lines for pid in json.loads(line)]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def none_alive(tmp_path: Path) -> bool:
    return not any(map(is_alive, processes(tmp_path)))


def is_answering(server: Keeper) -> bool:
    return server.status().phase is Phase.ANSWERING


def test_a_server_answers_with_its_key_and_ends_with_all_it_started(
    tmp_path: Path,
):
    with kept(tmp_path) as server:
        until(lambda: is_answering(server))
        started = processes(tmp_path)
        environ = Path(f"/proc/{started[0]}/environ").read_bytes().split(b"\0")
        cmdline = Path(f"/proc/{started[0]}/cmdline").read_bytes()

        assert all(map(is_alive, started))
        assert f"VLLM_API_KEY={KEY}".encode() in environ
        assert not [name for name in environ if name.startswith((b"RAY_", b"PYTHON"))]
        assert KEY.encode() not in cmdline
        assert b"--no-enable-log-requests" in cmdline

    assert none_alive(tmp_path)
    assert KEY not in (tmp_path / "logs" / "critic.log").read_text()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("exits", "ended with code 3, before it answered; its log is"),
        ("dies-of-its-first-request", "ended with code 7, before it answered"),
    ],
)
def test_a_server_that_never_answered_is_not_tried_again(tmp_path: Path, fault: str, words: str):
    with kept(tmp_path, "--fault", fault) as server:
        until(lambda: server.status().phase is Phase.LOST)
        assert words in server.status().message
        assert "stand-in for" in server.status().message  # the end of its log
        assert none_alive(tmp_path)


@pytest.mark.parametrize(
    ("fault", "words"),
    [("unhealthy", "not well, by status 503"), ("refuses", "answered with status 500")],
)
def test_a_server_that_is_up_and_does_not_answer_is_waited_for_and_no_longer(
    tmp_path: Path, fault: str, words: str
):
    with kept(tmp_path, "--fault", fault, timeout=5) as server:
        until(lambda: server.status().phase is Phase.LOST)
        assert "not answered within 5 s" in server.status().message
        assert words in server.status().message


def test_an_answer_that_came_too_late_does_not_hide_what_came_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    answers = iter(["it is not well"])

    def late(host: str, port: int, *, timeout: float) -> str:
        if answer := next(answers, ""):
            return answer
        time.sleep(timeout)
        return "its port answers with TimeoutError"

    monkeypatch.setattr(keeper, "_PATIENCE_SECONDS", 30)
    monkeypatch.setattr(keeper, "illness", late)
    with kept(tmp_path, timeout=1) as server:
        until(lambda: server.status().phase is Phase.LOST)
        assert "not answered within 1 s (it is not well)" in server.status().message


def test_a_program_that_is_not_there_is_told(tmp_path: Path):
    order = ServerOrder(
        model="m",
        revision=None,
        serve=ServeConfig(command=("/nowhere/vllm", "serve")),
        key=None,
        host="127.0.0.1",
        gpus=None,
        log=tmp_path / "log",
    )
    server = Keeper(order)
    until(lambda: server.status().phase is Phase.LOST)
    server.end()

    assert "could not be started: No such file" in server.status().message


def test_a_dead_server_is_started_again_at_its_address_and_not_for_ever(tmp_path: Path):
    with kept(tmp_path) as server:
        for number in range(keeper.MAX_RESTARTS + 1):
            until(lambda: is_answering(server) and server.status().num_restarts == number)  # noqa: B023
            url = server.status().url
            os.kill(processes(tmp_path)[-3], signal.SIGKILL)  # the server; its engine lives on
            until(lambda: not is_answering(server))
        until(lambda: server.status().phase is Phase.LOST)

        assert server.status().url == url
        assert "signal 9, and so 4 times in a row" in server.status().message
        assert none_alive(tmp_path)


def test_a_server_that_hangs_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(keeper, "_SILENT_SECONDS", 0.5)
    with kept(tmp_path) as server:
        until(lambda: is_answering(server))
        hung = processes(tmp_path)
        for pid in hung:
            os.kill(pid, signal.SIGSTOP)
        until(lambda: is_answering(server) and server.status().num_restarts == 1)

        assert "said nothing" in server.status().message
        assert not any(map(is_alive, hung))


def test_a_killed_guard_is_noticed_and_leaves_nothing_of_the_group(tmp_path: Path):
    with kept(tmp_path) as server:
        until(lambda: is_answering(server))
        first, engine, apart = processes(tmp_path)
        parent = int(Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(parent, signal.SIGKILL)
        until(lambda: is_answering(server) and server.status().num_restarts == 1)

        assert not is_alive(first)
        assert not is_alive(engine)
        os.kill(apart, signal.SIGKILL)  # in a session of its own: only the guard knew of it


def test_nothing_outlives_a_process_that_is_killed(tmp_path: Path):
    script = (
        "import sys, time; from pathlib import Path\n"
        "from tests.jobs.cluster.serving.test_keeper import kept, process\n"
        "process._TERM_SECONDS = 0.3\n"
        f"with kept(Path({str(tmp_path)!r})): time.sleep(600)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", script])
    until(lambda: len(processes(tmp_path)) == 3)
    holder.kill()
    holder.wait()
    until(lambda: none_alive(tmp_path))
