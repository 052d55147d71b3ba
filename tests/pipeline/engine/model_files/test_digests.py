"""The digests of large files: taken once, by one process at a time, never of another content."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.engine.model_files import digests
from pipeline.engine.model_files.digests import digest_of_files, sha256_of
from schemas.errors import InputError

LARGE = digests.REMEMBERED_BYTES + 5


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("COPPICE_CACHE", str(folder))
    return folder / "digests.json"


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A large file that was written a while ago, as far as its own times can tell."""
    path = tmp_path / "weights"
    write(path, b"a")
    return path


def write(path: Path, last: bytes) -> None:
    """A file that is large, of the same size whatever it ends in."""
    with path.open("wb") as file:
        file.truncate(LARGE)
        file.seek(LARGE - 1)
        file.write(last)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def count_takes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read through from now on."""
    taken: list[Path] = []
    take = digests._take
    monkeypatch.setattr(digests, "_take", lambda path: taken.append(path) or take(path))
    return taken


def test_a_large_file_is_read_through_once(
    cache: Path, large: Path, monkeypatch: pytest.MonkeyPatch
):
    taken = count_takes(monkeypatch)

    assert sha256_of(large) == sha256_of(large) == sha256(large)
    assert taken == [large]
    assert str(large) in cache.read_text()


def test_a_file_that_changes_is_read_again_though_size_and_mtime_stay(cache: Path, large: Path):
    before, state = sha256_of(large), large.stat()

    write(large, b"b")
    os.utime(large, ns=(state.st_atime_ns, state.st_mtime_ns))

    assert sha256_of(large) == sha256(large) != before
    assert len(json.loads(cache.read_text())) == 1


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "3", '{"a": 3}', "\x00", "[" * 100_000, '{"KEY": "no digest"}']
)
def test_a_damaged_cache_is_ignored_and_written_anew(cache: Path, large: Path, damage: str):
    sha256_of(large)
    key = next(iter(json.loads(cache.read_text())))
    cache.write_text(damage.replace("KEY", key.replace("\\", "")))

    assert sha256_of(large) == sha256(large)
    assert sha256(large) in cache.read_text()


def test_without_a_cache_that_can_be_written_a_digest_is_taken_all_the_same(
    large: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COPPICE_CACHE", str(large / "below-a-file"))

    assert sha256_of(large) == sha256(large)


def test_processes_that_start_together_share_one_reading(cache: Path, large: Path):
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from pipeline.engine.model_files import digests\n"
        "take = digests._take\n"
        "def slowly(path):\n    print('taken')\n    time.sleep(1)\n    return take(path)\n"
        "digests._take = slowly\n"
        "print(digests.sha256_of(Path(sys.argv[1])))\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", script, large], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    told = [process.communicate()[0].split() for process in started]

    assert sorted(map(len, told)) == [1, 1, 2]
    assert {lines[-1] for lines in told} == {sha256(large)}


def test_a_file_of_the_future_is_never_remembered(cache: Path, large: Path):
    later = time.time() + 1000
    os.utime(large, (later, later))

    assert sha256_of(large) == sha256(large)
    assert not cache.exists()


def test_small_files_leave_no_trace(cache: Path, tmp_path: Path):
    (tmp_path / "small").write_bytes(b"small")

    assert sha256_of(tmp_path / "small") == sha256(tmp_path / "small")
    assert not list(cache.parent.iterdir())


def test_a_file_that_is_not_there_is_named(cache: Path, tmp_path: Path):
    with pytest.raises(InputError, match="nowhere"):
        sha256_of(tmp_path / "nowhere")


def test_a_digest_is_what_sha256sum_prints(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    by_name = {name: sha256_of(tmp_path / name) for name in ("a", "b")}

    pipe = "sha256sum a b | sha256sum"
    said = subprocess.run(pipe, shell=True, cwd=tmp_path, capture_output=True, text=True)

    assert said.stdout.split()[0] == digest_of_files(by_name)
