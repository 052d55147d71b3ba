"""A run that starts its vLLM for itself, on Ray, and leaves nothing of it behind."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from schemas.endpoints import ServeConfig
from tests.jobs.cluster.serving.test_keeper import is_alive
from tests.vllm.conftest import START_SECONDS, until
from tests.vllm.models import leaning

PROMPTS = "\n".join(("a red circle under a blue sky", "a green square on grass"))


def config_of(serve: ServeConfig, model: Path, folder: Path) -> Path:
    path = folder / "teacher.toml"
    bias = ", ".join(f"{token} = {value}" for token, value in leaning(model).items())
    args = ", ".join(f"'{word}'" for word in serve.args)
    path.write_text(
        f"""
[method]
model = "toy"
[method.backends]
think = "teacher"
reflect = "teacher"
[method.endpoints.teacher]
model = "{model}"
max_tokens = 100
temperature = 1.0
extra = {{ logit_bias = {{ {bias} }} }}
[execution]
cpus_per_actor = 1
[execution.endpoints.teacher.serve]
command = ["{serve.command[0]}", "serve"]
args = [{args}]
gpus = 0
start_timeout_seconds = {serve.start_timeout_seconds}
"""
    )
    return path


def start(folder: Path, config: Path, log: Path) -> "subprocess.Popen[bytes]":
    (folder / "prompts.txt").write_text(PROMPTS)
    words = ("run", "prompts.txt", "run", "--config", str(config), "--rollouts", "4")
    command = [sys.executable, "-m", "jobs.cli", *words]
    with log.open("w") as sink:
        root = Path(__file__).parents[2]
        env = os.environ | {"PYTHONPATH": str(root)}
        return subprocess.Popen(command, cwd=folder, env=env, stdout=sink, stderr=sink)


def processes_of_servers(config: Path) -> set[int]:
    """All processes of servers that were started by this config: their engines and workers, too."""
    model = next(line for line in config.read_text().splitlines() if line.startswith('model = "/'))
    name = model.split('"')[1].encode()
    session_of = {}
    servers = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            session_of[int(path.name)] = int(
                (path / "stat").read_text().rpartition(")")[2].split()[3]
            )
            words = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile
            continue
        if name in words and b"--port" in words and b"-I" not in words:
            servers.add(int(path.name))
    return {process for process, session in session_of.items() if session in servers}


def test_a_run_serves_its_own_critic_and_takes_it_along(
    serve: ServeConfig, picture_model: Path, tmp_path: Path
):
    config, log = config_of(serve, picture_model, tmp_path), tmp_path / "log"
    others = processes_of_servers(config)
    driver = start(tmp_path, config, log)
    until(lambda: "answers." in log.read_text() or driver.poll() is not None, START_SECONDS)
    served = processes_of_servers(config) - others
    assert driver.wait(START_SECONDS) == 0, log.read_text()
    said = log.read_text()

    assert "Complete: 8 ok, 0 dead" in said
    assert "The server of replica 1 of endpoint teacher answers." in said
    assert len(served) >= 3  # the server, its engine, a worker
    assert not any(map(is_alive, served))
    told = re.search(r"log (/\S+\.log)", said)
    assert told is not None
    log_of_server = Path(told[1]).read_text()
    assert "Application startup complete" in log_of_server
    assert not [prompt for prompt in PROMPTS.splitlines() if prompt in log_of_server + said]
    verify = [sys.executable, "-m", "jobs.cli", "verify", "run", "--deep"]
    assert subprocess.run(verify, cwd=tmp_path, check=False).returncode == 0


def test_nothing_of_a_served_model_outlives_a_driver_that_is_killed(
    serve: ServeConfig, picture_model: Path, tmp_path: Path
):
    config, log = config_of(serve, picture_model, tmp_path), tmp_path / "log"
    others = processes_of_servers(config)
    driver = start(tmp_path, config, log)
    until(lambda: "answers." in log.read_text() or driver.poll() is not None, START_SECONDS)
    assert driver.poll() is None, log.read_text()
    served = processes_of_servers(config) - others
    assert len(served) >= 3
    driver.kill()
    driver.wait()
    begun = time.monotonic()
    until(lambda: not any(map(is_alive, served)), 60)
    sys.stdout.write(f"Nothing is left {time.monotonic() - begun:.1f} s after the SIGKILL.\n")
