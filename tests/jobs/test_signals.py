"""Runs that are stopped from outside, extended from outside, or lose their Ray."""

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.cluster.heartbeat import read_newest_driver
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest
from pipeline.store.status import read_status
from tests.jobs.conftest import Coppice, hangups
from tests.jobs.raylets import pid_of, started_head
from tests.support import SMALL, fake_config, fake_method, plan_run

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("hears_hangups")]


def plan(folder: Path, num_prompts: int = 60, delay: float = 0.05, **execution: object) -> None:
    method = fake_method(SMALL.model_copy(update={"delay_seconds": delay}))
    quick = {"beat_seconds": 0.5, "num_actors": 1, "live_rollouts_per_actor": 2}
    config = fake_config(method, **(quick | execution))
    plan_run(open_store(str(folder)), num_prompts, config, rollouts_per_shard=2)


def start(
    folder: Path, environment: dict[str, str], *, stdout: int = subprocess.PIPE
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", "run", str(folder)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def wait_for_commits(folder: Path, process: "subprocess.Popen[bytes]", number: int = 1) -> None:
    while len(list(folder.glob("traces/*.parquet"))) < number:
        assert process.poll() is None, "the run ended before anything was done to it"
        time.sleep(0.02)


def read_until(process: "subprocess.Popen[bytes]", word: str) -> None:
    """Read what a command prints until it says something."""
    said: list[str] = []
    assert process.stdout
    while word not in "".join(said[-1:]):
        said.append(process.stdout.readline().decode())
        assert said[-1], "the command ended: " + "".join(said)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)]
)
def test_a_signal_commits_what_is_nearly_done_and_says_how_to_go_on(
    head: dict[str, str], tmp_path: Path, number: signal.Signals
):
    plan(tmp_path)
    process = start(tmp_path, head)
    wait_for_commits(tmp_path, process)
    process.send_signal(number)
    said = process.communicate(timeout=60)[0].decode()

    assert process.returncode == 3, said
    assert f"Next: coppice run {tmp_path}" in said


@pytest.mark.slow
def test_a_closed_terminal_stops_a_run_with_a_ray_of_its_own_and_costs_no_commit(tmp_path: Path):
    plan(tmp_path)
    ours, theirs = pty.openpty()
    alone = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = start(tmp_path, alone, stdout=theirs)
    os.close(theirs)
    wait_for_commits(tmp_path, process)
    os.close(ours)
    os.killpg(process.pid, signal.SIGHUP)  # as the kernel does to all that the terminal had

    assert process.wait(60) == 3
    assert read_newest_driver(open_store(str(tmp_path))) is None  # it ended in good order


@pytest.mark.slow
def test_a_run_that_hears_no_hangup_outlives_its_terminal(head: dict[str, str], tmp_path: Path):
    plan(tmp_path)
    ours, theirs = pty.openpty()
    with hangups(signal.SIG_IGN):  # nohup does so, and `disown` keeps the signal away
        process = start(tmp_path, head, stdout=theirs)
    os.close(theirs)
    wait_for_commits(tmp_path, process)
    os.close(ours)

    assert process.wait(200) == 0
    store = open_store(str(tmp_path))
    assert read_status(store, read_manifest(store)).num_missing == 0


def test_a_second_ctrl_c_ends_at_once_and_says_how_to_go_on(head: dict[str, str], tmp_path: Path):
    plan(tmp_path, delay=2.0, grace_seconds=600)  # no test waits for so long
    process = start(tmp_path, head)
    read_until(process, "rollouts")
    process.send_signal(signal.SIGINT)
    read_until(process, "Once more")
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=200)[0].decode()

    assert process.returncode == 3, said
    assert f"Next: coppice run {tmp_path}" in said


def test_a_run_that_is_extended_meanwhile_ends_when_all_of_it_is_made(
    coppice_on_ray: Coppice, head: dict[str, str], tmp_path: Path
):
    folder = tmp_path / "run"
    plan(folder, num_prompts=12)
    process = start(folder, head)
    wait_for_commits(folder, process)
    assert coppice_on_ray("plan", "--extend", str(folder), "--rollouts", "2").returncode == 0
    said = process.communicate(timeout=200)[0].decode()

    assert process.returncode == 0, said
    assert "The plan was extended meanwhile" in said
    store = open_store(str(folder))
    status = read_status(store, read_manifest(store))
    assert (status.num_ok, status.num_missing) == (24, 0)


def test_status_and_log_say_where_each_actor_is(
    coppice_on_ray: Coppice, head: dict[str, str], tmp_path: Path
):
    plan(tmp_path / "run")
    process = start(tmp_path / "run", head)
    wait_for_commits(tmp_path / "run", process)
    status = coppice_on_ray("status", "run").stdout
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0].decode()

    place = re.search(r"Actor on (\S+ \(node \w{8}, process \d+\), CPU)\.", said)
    assert place, said
    assert f"  {place[1]}" in status.splitlines()
    assert f"Driver: process {process.pid} on " in status
    assert "Driver" not in coppice_on_ray("status", "run").stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_whose_head_is_killed_ends_before_ray_ends_it_and_resumes(
    coppice: Coppice, tmp_path: Path
):
    plan(tmp_path / "run", num_prompts=40)
    patience = {"RAY_gcs_rpc_server_reconnect_timeout_s": "30"}
    with started_head("--num-cpus=1") as (head, client):
        process = start(tmp_path / "run", client | patience)
        wait_for_commits(tmp_path / "run", process, 3)
        os.kill(pid_of("gcs_server", head), signal.SIGKILL)
        said = process.communicate(timeout=120)[0].decode()

        assert process.returncode == 3, said
        assert f"Next: coppice run {tmp_path / 'run'}" in said
    assert coppice("run", "run", timeout=300).returncode == 0
