"""Curating on a cluster: the bytes of one machine, and a job that goes on where one was killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.store.layout import TEMPORARY
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from schemas.config import Pictures
from tests.support import fake_config, fake_method, plan_run, run_all

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

RECIPE = 'name = "all"\npictures = "required"\nexports = ["trl", "webdataset"]'
JOB = """
import sys
from pipeline.sets import units
units._UNIT_BYTES = (1.0, 1.0)  # a unit an object, and more
from jobs.__main__ import run_job
run_job(["curate", *sys.argv[1:]])
"""


@pytest.fixture
def run(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "run"))
    config = fake_config(fake_method(pictures=Pictures.ALL))
    run_all(store, plan_run(store, 12, config, rollouts_per_shard=2))
    (tmp_path / "all.toml").write_text(RECIPE)
    return store


def start(
    folder: Path, out: str, environment: dict[str, str], *more: str
) -> "subprocess.Popen[bytes]":
    words = ["run", out, "--recipe", "all.toml", "--workers", "2", *more]
    environment = environment | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-c", JOB, *words], cwd=folder, env=environment, start_new_session=True
    )


def files_in(out: Path) -> dict[str, bytes]:
    """All files of a set. A worker that is killed within a put leaves its temporary one."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.parent != out / TEMPORARY
    }


@pytest.mark.slow
def test_a_killed_job_goes_on_and_makes_the_bytes_of_one_machine(
    run: Store, head: dict[str, str], tmp_path: Path
):
    here = {name: value for name, value in head.items() if name != "RAY_ADDRESS"}
    assert start(tmp_path, "here", here).wait(300) == 0
    job = start(tmp_path, "there", head)
    notes = tmp_path / "there" / "_units"
    while not (notes.is_dir() and len(list(notes.iterdir())) >= 2):
        assert job.poll() is None, "the job ended before it was killed"
        time.sleep(0.01)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    time.sleep(5)  # its tasks end with it
    assert not (tmp_path / "there" / "manifest.json").exists()
    done = {path.name: path.stat().st_mtime_ns for path in notes.iterdir()}
    made = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "there" / "sft").rglob("*.parquet")
    }

    assert start(tmp_path, "there", head, "--address", head["RAY_ADDRESS"]).wait(300) == 0

    assert files_in(tmp_path / "there") == files_in(tmp_path / "here")
    assert not notes.exists() or not list(notes.iterdir())
    of_done = [path for path in made if f"{path.stem.rpartition('-')[2]}.json" in done]
    assert of_done
    assert all(path.stat().st_mtime_ns == made[path] for path in of_done), "done again"
