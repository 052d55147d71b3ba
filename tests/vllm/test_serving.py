"""A run that starts its vLLM for itself, on Ray, and leaves nothing of it behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from schemas.endpoints import ServeConfig
from tests.vllm.conftest import START_SECONDS, processes_of, until

PROMPTS = "\n".join(("a red circle under a blue sky", "a green square on grass"))


def config_of(serve: ServeConfig, model: Path, folder: Path) -> Path:
    path = folder / "teacher.toml"
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
max_tokens = 24
temperature = 1.0
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


def servers(config: Path) -> list[int]:
    """The processes of servers of this test's model, told by the folder of it."""
    model = next(x for x in config.read_text().splitlines() if x.startswith('model = "/'))
    name = model.split('"')[1].encode()
    return [pid for pid in _all_pids() if name in _cmdline(pid) and b"--port" in _cmdline(pid)]


def _all_pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_run_serves_its_own_critic_and_takes_it_along(
    serve: ServeConfig, picture_model: Path, tmp_path: Path
):
    config, log = config_of(serve, picture_model, tmp_path), tmp_path / "log"
    driver = start(tmp_path, config, log)
    try:
        assert driver.wait(START_SECONDS) == 0, log.read_text()
    finally:
        driver.kill()
    said = log.read_text()

    assert "Complete: 8 ok, 0 dead" in said
    assert "The server of replica 1 of endpoint teacher answers." in said
    until(lambda: not servers(config), 30)
    assert "COPPICE_KEY" not in said
    verify = [sys.executable, "-m", "jobs.cli", "verify", "run", "--deep"]
    assert subprocess.run(verify, cwd=tmp_path, check=False).returncode == 0


def test_nothing_of_a_served_model_outlives_a_driver_that_is_killed(
    serve: ServeConfig, picture_model: Path, tmp_path: Path
):
    config, log = config_of(serve, picture_model, tmp_path), tmp_path / "log"
    driver = start(tmp_path, config, log)
    until(lambda: "answers." in log.read_text() or driver.poll() is not None, START_SECONDS)
    assert driver.poll() is None, log.read_text()
    assert servers(config)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    until(lambda: not servers(config), 60)
    assert not processes_of(str(picture_model))
