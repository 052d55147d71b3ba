"""The jobs as users run them: submitted to a cluster, killed, and started again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.__main__ import JOBS, run_job
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest, read_plan_shard
from pipeline.store.traces import read_rows
from tests.jobs.conftest import Coppice
from tests.jobs.raylets import free_port, started_head
from tests.support import SMALL, fake_config, fake_method, plan_run, run_all

ROOT = Path(__file__).parents[2]
SLOW = ("--backend", "fake", "--shard-rollouts", "4", "--set", "method.fake.delay_seconds=0.02")
SLOW += ("--set", "execution.beat_seconds=0.5")  # three of them tell that a driver is gone


def _assert_every_key_once(run: Path) -> None:
    """The rows are exactly what was planned."""
    store = open_store(str(run))
    manifest = read_manifest(store)
    shards = range(manifest.num_shards)
    columns = ["record_id", "rollout_index"]
    planned = [
        key
        for shard in shards
        for row in read_plan_shard(store, manifest, shard)
        for key in row.rollout_keys()
    ]
    grown = [
        (row["record_id"], row["rollout_index"])
        for shard in shards
        for row in read_rows(store, shard, columns=columns)
    ]
    assert sorted(grown) == sorted(planned)


def _num_committed(run: Path) -> int:
    return len(list(run.glob("traces/*.parquet")))


def _start(prompts: Path, run: Path, head: dict[str, str]) -> "subprocess.Popen[bytes]":
    """A run in the background that has committed something and is not done."""
    command = [sys.executable, "-m", "jobs.cli", "run", str(prompts), str(run), *SLOW]
    process = subprocess.Popen(
        command,
        env=head,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    while not _num_committed(run):
        assert process.poll() is None, "the run ended before it was interrupted"
        time.sleep(0.02)
    return process


def _ended(*words: str) -> int | str | None:
    """The exit code of a job in this process."""
    with pytest.raises(SystemExit) as end:
        run_job(words)
    return end.value.code


def _ray_job(head: dict[str, str], *words: str) -> str:
    """What `ray job ...` prints."""
    answer = subprocess.run(
        [str(Path(sys.executable).with_name("ray")), "job", *words],
        cwd=ROOT,
        env=head,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.mark.parametrize(("dead_share", "exit_code"), [(0.0, 0), (1.0, 4)])
def test_a_job_ends_as_success_where_the_command_tells_that_some_are_dead(
    coppice: Coppice, tmp_path: Path, dead_share: float, exit_code: int
):
    store = open_store(str(tmp_path / "run"))
    method = fake_method(SMALL.model_copy(update={"dead_share": dead_share}))
    run_all(store, plan_run(store, 2, fake_config(method)), attempt=2)

    assert coppice("run", "run").returncode == exit_code
    assert _ended("run", store.url) == 0


def test_a_job_that_fails_ends_as_its_command_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    store = open_store(str(tmp_path / "run"))
    run_all(store, plan_run(store, 2))

    assert _ended("run", store.url, "--seed", "7") == 5
    assert _ended("rerun", str(tmp_path / "nowhere")) == 2
    assert _ended("score", store.url) == 2
    assert "seed: 0 -> 7" in capsys.readouterr().err


@pytest.mark.parametrize("name", JOBS)
def test_a_job_takes_what_its_command_takes(name: str, capsys: pytest.CaptureFixture[str]):
    assert _ended(name, "--help") == 0
    assert f"coppice {name} " in capsys.readouterr().out


@pytest.mark.parametrize("words", [(), ("status", "run"), ("roll\x1b[2J",), ("--help",)])
def test_a_word_that_is_no_job_is_answered_by_a_sentence(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
):
    assert _ended(*words) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("coppice: expected a job (run, rerun, score, curate, prompts), found ")
    assert "\x1b" not in said


def test_the_old_name_of_the_main_job_still_does_it(tmp_path: Path):
    answer = subprocess.run(
        [sys.executable, "-m", "jobs.rollout", str(tmp_path / "nowhere")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert answer.returncode == 2
    assert "coppice plan PROMPTS" in answer.stderr


@pytest.mark.ray
def test_ray_job_submit_runs_it_on_a_cluster(head: dict[str, str], prompts: Path, tmp_path: Path):
    job = [sys.executable, "-m", "jobs", "run", str(prompts), str(tmp_path / "run")]
    log = _ray_job(head, "submit", "--working-dir", ".", "--", *job, "--backend", "fake")

    assert "24 ok, 0 dead" in log
    _assert_every_key_once(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.ray
def test_a_killed_driver_is_followed_by_one_that_makes_what_is_missing(
    coppice_on_ray: Coppice, head: dict[str, str], prompts: Path, tmp_path: Path
):
    run = tmp_path / "run"
    process = _start(prompts, run, head)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {path.name: path.read_bytes() for path in run.glob("traces/*.parquet")}
    assert len(before) < 6
    answer = coppice_on_ray("run", str(run))

    assert answer.returncode == 0, answer.stderr
    _assert_every_key_once(run)
    for name, body in before.items():
        assert (run / "traces" / name).read_bytes() == body


@pytest.mark.slow
@pytest.mark.ray
def test_ctrl_c_commits_what_is_open_and_prints_how_to_go_on(
    coppice_on_ray: Coppice, head: dict[str, str], prompts: Path, tmp_path: Path
):
    run = tmp_path / "run"
    process = _start(prompts, run, head)
    os.killpg(process.pid, signal.SIGINT)
    printed = process.communicate(timeout=60)[0].decode()

    if process.returncode == 3:  # on a slow machine the rest may have been open already
        assert f"Next: coppice run {run}" in printed
    assert process.returncode in (0, 3), printed
    assert coppice_on_ray("run", str(run)).returncode == 0
    _assert_every_key_once(run)


@pytest.mark.slow
@pytest.mark.ray
def test_a_submitted_job_that_is_stopped_has_the_time_to_commit_that_it_was_given(
    coppice_on_ray: Coppice, head: dict[str, str], prompts: Path, tmp_path: Path
):
    run = tmp_path / "run"
    environment = json.dumps({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "45"}})
    job = ["--", sys.executable, "-m", "jobs", "run", str(prompts), str(run), *SLOW]
    job += ["--rollouts", "5"]
    submit = ["submit", "--no-wait", "--submission-id", "stopped", "--working-dir", "."]
    _ray_job(head, *submit, "--runtime-env-json", environment, *job)
    while not _num_committed(run):
        time.sleep(0.1)
    _ray_job(head, "stop", "stopped")
    log = _ray_job(head, "logs", "stopped")

    assert "was stopped" in _ray_job(head, "status", "stopped")
    assert "committing what is nearly done" in log
    assert f"Next: coppice run {run}" in log
    assert coppice_on_ray("run", str(run)).returncode == 0
    _assert_every_key_once(run)


@pytest.mark.slow
@pytest.mark.ray
def test_a_run_from_outside_of_the_cluster_through_rays_client_is_complete(
    prompts: Path, tmp_path: Path
):
    port = free_port()
    arguments = ["--num-cpus=2", f"--ray-client-server-port={port}"]
    with started_head(*arguments, GRPC_ENABLE_FORK_SUPPORT="0") as (_, client):
        answer = subprocess.run(
            [
                *(sys.executable, "-m", "jobs.cli", "run", str(prompts), str(tmp_path / "run")),
                *("--backend", "fake", "--address", f"ray://127.0.0.1:{port}"),
            ],
            env={name: value for name, value in client.items() if name != "RAY_ADDRESS"},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "24 ok, 0 dead" in answer.stdout
    _assert_every_key_once(tmp_path / "run")
