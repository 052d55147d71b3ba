"""Coppice as it is installed, from a wheel or an sdist, in an environment of its own.

The environment has the libraries of this one, and of Coppice only what was built.
"""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
_SMALL = ("image_size=32", "patch_size=8", "num_codes=512", "num_text_tokens=8")
_LOOK = """
import coppice
run = coppice.open("run")
traces = run.traces("not dead", sort="-score")
assert run.status.num_ok == len(traces) == 3, run.status
assert traces[0].picture.size == (32, 32)
assert "<img" in traces._repr_html_()
import schemas, pipeline, jobs
print(*(module.__file__ for module in (coppice, schemas, pipeline, jobs)))
"""


def build(kind: str, source: Path, out: Path) -> Path:
    """The wheel or the sdist of a source tree. A copy is built: nothing is left behind in it."""
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(out)!r}))"
    built = run(sys.executable, "-c", code, cwd=source)
    return out / built.splitlines()[-1]


def run(*command: str, cwd: Path) -> str:
    """What a command printed, which must end well. It knows nothing of this checkout."""
    kept = ("PATH", "HOME", "TMPDIR", "RAY_worker_niceness")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracked files, as they are."""
    folder = tmp_path_factory.mktemp("source") / "coppice"
    folder.mkdir()
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, names.split("\0")):
        if name.startswith("tests/") or not (ROOT / name).is_file():
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = (folder / "lib").glob("python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))  # its own .pth do not count
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", str(python))
    options = ("--quiet", "--no-deps", "--no-index", "--ignore-installed")
    run(*pip, "install", *options, str(wheel), cwd=folder)
    return python


def test_wheel_and_sdist_hold_the_same_and_all_data(source: Path, wheel: Path, tmp_path: Path):
    sdist = build("sdist", source, tmp_path)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    again = build("wheel", unpacked, tmp_path)

    names = set(zipfile.ZipFile(wheel).namelist())
    assert names == set(zipfile.ZipFile(again).namelist())
    packages = ("schemas", "pipeline", "jobs", "coppice")
    tracked = {
        str(path.relative_to(source))
        for package in packages
        for path in (source / package).rglob("*")
        if path.is_file()
    }
    assert tracked - names == set()


def test_it_runs_views_and_opens_far_from_here(python: Path, tmp_path: Path):
    coppice = str(python.parent / "coppice")
    (tmp_path / "prompts.txt").write_text("a red cube\na cat\na dog\n")
    settings = [f"--set=method.fake.{setting}" for setting in _SMALL]

    grown = run(coppice, "run", "prompts.txt", "run", "--backend", "fake", *settings, cwd=tmp_path)
    viewed = run(coppice, "view", "run", "out", cwd=tmp_path)
    origins = run(str(python), "-c", _LOOK, cwd=tmp_path).split()

    assert "Complete: 3 ok, 0 dead" in grown
    assert "Gallery: out/index.html, 3 traces" in viewed
    assert len(list((tmp_path / "out").glob("view-*/gallery.*"))) == 2
    assert all(origin.startswith(str(python.parents[1])) for origin in origins)
