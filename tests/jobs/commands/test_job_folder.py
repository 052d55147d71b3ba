"""Places that go with the job that wrote there."""

from pathlib import Path

import pytest

from jobs.__main__ import run_job
from jobs.commands.job_folder import check_outlives_job
from schemas.errors import InputError

FAKE = ("--backend", "fake", "--set", "method.fake.image_size=32")


@pytest.fixture
def job_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process is a job, and stands in the folder that Ray unpacked for it."""
    folder = tmp_path / "session_1" / "runtime_resources" / "working_dir_files" / "_ray_pkg_0a1b"
    (folder / "examples").mkdir(parents=True)
    (folder / "examples" / "prompts.txt").write_text("a red cube\n")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.chdir(folder)
    return folder


def ended(*words: str) -> int | str | None:
    with pytest.raises(SystemExit) as end:
        run_job(words)
    return end.value.code


@pytest.mark.parametrize("place", ["runs/x", "./x", "a/../b", "examples"])
def test_a_relative_place_is_refused_with_its_full_path(job_folder: Path, place: str):
    with pytest.raises(InputError) as refused:
        check_outlives_job(place)

    assert str(refused.value).startswith(f"{place} would be written to {job_folder}/")
    assert "s3://" in str(refused.value)


def test_it_is_the_place_that_counts_and_not_how_it_is_written(
    job_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "link").symlink_to(job_folder)
    for place in (job_folder / "x", f"file://{job_folder}/x", tmp_path / "link" / "x"):
        with pytest.raises(InputError, match="_ray_pkg_0a1b"):
            check_outlives_job(place)
    monkeypatch.chdir(job_folder / "examples")
    with pytest.raises(InputError, match="examples/x"):
        check_outlives_job("x")
    for place in (tmp_path / "x", f"file://{tmp_path}/x", "s3://bucket/runs/x", "../../../../../x"):
        check_outlives_job(place)
    monkeypatch.chdir(tmp_path)
    check_outlives_job("runs/x")


def test_a_folder_of_that_name_is_no_matter_outside_of_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    (tmp_path / "_ray_pkg_mine").mkdir()
    monkeypatch.chdir(tmp_path / "_ray_pkg_mine")

    check_outlives_job("runs/x")


@pytest.mark.parametrize(
    "words",
    [
        ("run", "examples/prompts.txt", "runs/x", *FAKE),
        ("run", "runs/x"),
        ("rerun", "runs/x"),
        ("score", "runs/x", "--scorer", "tokens"),
        ("curate", "runs/x", "sets/x", "--recipe", "twig-50k-toy"),
        ("prompts", "examples/prompts.txt", "--out", "specs.jsonl"),
        ("prompts", "examples/prompts.txt", "--out", "/nowhere/x.jsonl", "--report", "x.json"),
    ],
    ids=lambda words: " ".join(words[:3]),
)
def test_every_job_refuses_to_write_there(
    job_folder: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
):
    before = sorted(job_folder.rglob("*"))

    assert ended(*words) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert f"would be written to {job_folder}/" in said
    assert sorted(job_folder.rglob("*")) == before


def test_prompts_are_read_there_and_written_elsewhere(job_folder: Path, tmp_path: Path):
    out = tmp_path / "specs.jsonl"

    assert ended("prompts", "examples/prompts.txt", "--out", str(out)) == 0
    assert "a red cube" in out.read_text()
