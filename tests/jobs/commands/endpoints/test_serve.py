"""`coppice serve NAME`: a server apart from any run, told of, and ended with all of it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.commands.endpoints.serve import serve_endpoint
from jobs.commands.terminal import Terminal
from schemas.errors import EndpointAway, InputError
from tests.jobs.cluster.serving.test_keeper import COMMAND, KEY, none_alive, processes, until


def config_of(folder: Path, *args: str, more: str = "") -> Path:
    path = folder / "teacher.toml"
    words = ", ".join(f'"{word}"' for word in ("--mild", "--pids", str(folder / "pids"), *args))
    command = ", ".join(f'"{word}"' for word in COMMAND)
    path.write_text(
        f'[method.endpoints.critic]\nmodel = "some/model"\n[execution.endpoints.critic]\n{more}\n'
        f"[execution.endpoints.critic.serve]\ncommand = [{command}]\nargs = [{words}]\n"
    )
    return path


def test_it_says_where_it_answers_and_ends_on_ctrl_c_with_all_it_started(tmp_path: Path):
    config, log = config_of(tmp_path, more='api_key_env = "SOME_KEY"'), tmp_path / "log"
    command = [sys.executable, "-m", "jobs.cli", "serve", "critic", "--config", str(config)]
    with log.open("w") as sink:
        env = os.environ | {"SOME_KEY": KEY}
        process = subprocess.Popen(command, env=env, stdout=sink, stderr=sink)
    until(lambda: "Ctrl-C ends it" in log.read_text() or process.poll() is not None, 60)
    started = processes(tmp_path)
    environ = Path(f"/proc/{started[0]}/environ").read_bytes()
    process.send_signal(signal.SIGINT)

    assert process.wait(60) == 3  # as every command that a signal ends
    assert f"VLLM_API_KEY={KEY}".encode() in environ
    assert "Answering at http://127.0.0.1:" in log.read_text()
    assert KEY not in log.read_text()
    until(lambda: none_alive(tmp_path), 30)


def serve(config: Path, name: str = "critic", host: str = "127.0.0.1") -> None:
    serve_endpoint(name, str(config), [], Terminal(), host=host, port=0)


def test_a_server_that_cannot_start_is_told_with_its_log(tmp_path: Path):
    with pytest.raises(EndpointAway, match="ended with code 3, before it answered; its log is"):
        serve(config_of(tmp_path, "--fault", "exits"))


def test_what_cannot_be_served_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(InputError, match=r"there is no \[method.endpoints.judge\]"):
        serve(config_of(tmp_path), "judge")
    with pytest.raises(InputError, match="everyone on the network could ask"):
        serve(config_of(tmp_path), host="0.0.0.0")
    with pytest.raises(InputError, match="SOME_KEY, which this environment does not have"):
        serve(config_of(tmp_path, more='api_key_env = "SOME_KEY"'))
    by_url = tmp_path / "url.toml"
    by_url.write_text(
        '[method.endpoints.critic]\nmodel = "m"\n'
        '[execution.endpoints.critic]\nurl = "http://127.0.0.1:1/v1"\n'
    )
    with pytest.raises(InputError, match="has a url and no serve"):
        serve(by_url)
    assert not processes(tmp_path)
