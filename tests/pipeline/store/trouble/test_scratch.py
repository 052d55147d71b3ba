"""Scratch folders of processes that were killed are swept, and a full disk is waited for."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.store.traces import TraceWriter
from pipeline.store.trouble.scratch import ScratchDisk, scratch_folder, sweep_scratch
from schemas.errors import StoreUnavailable
from tests.support import some_origin, some_trace

OWNER = """
import time
from pathlib import Path
from pipeline.store.trouble.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "shard.parquet").write_bytes(b"0123456789")
    print(folder, flush=True)
    time.sleep(60)
"""


def later(seconds: float = 3600) -> Callable[[], float]:
    return lambda: time.time() + seconds


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_the_folder_of_a_killed_process_is_swept_and_that_of_a_living_one_is_not(temporary: Path):
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout
    folder = Path(owner.stdout.readline().strip())
    try:
        assert sweep_scratch(clock=later()) == []
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()

    assert sweep_scratch() == [], "it is young: another process may be about to lock it"
    (found,) = sweep_scratch(is_dry=True, clock=later())
    assert (found.path, found.size_bytes) == (folder, 10)
    assert folder.is_dir()
    assert sweep_scratch(clock=later()) == [found]
    assert not folder.exists()


def test_what_is_none_of_ours_stays(temporary: Path):
    (temporary / "coppice-cache").mkdir()
    (temporary / "coppice-scratch-file").write_text("mine")
    (temporary / "coppice-scratch-bare").mkdir()
    (temporary / "coppice-scratch-link").symlink_to(temporary / "coppice-cache")
    (temporary / "coppice-scratch-odd").mkdir()
    (temporary / "coppice-scratch-odd/.owner").symlink_to("/etc/hostname")

    assert sweep_scratch(clock=later()) == []
    assert len(list(temporary.iterdir())) == 5


def test_it_is_gone_when_it_is_left(temporary: Path):
    with scratch_folder() as folder:
        assert sweep_scratch(clock=later()) == []
        assert folder.is_dir()
    assert list(temporary.iterdir()) == []


class Filling:
    """In the place of `os.write`: now and then there is no room, or for some of it."""

    def __init__(self, number: float = 3, code: int = errno.ENOSPC) -> None:
        self.real, self.left, self.code = os.write, number, code

    def __call__(self, handle: int, data: Any) -> int:
        self.left -= 1
        if self.left >= 0:
            raise OSError(self.code, os.strerror(self.code))
        return self.real(handle, data[: max(1, len(data) // 2)])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_waited_for_and_nothing_is_written_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
):
    waits = []
    disk = ScratchDisk(patience_seconds=600, sleep=lambda seconds: waits.append(disk.wait))
    origin, trace = some_origin(), some_trace()
    paths = [tmp_path / name for name in ("whole", "waited")]
    for path in paths:
        writer = TraceWriter(path, origin, disk.open)
        writer.add(trace)
        if path.name == "waited":
            monkeypatch.setattr(os, "write", Filling(code=code))
        writer.close("test")

    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert pq.read_table(paths[1]).num_rows == 1
    assert [wait.whom for wait in waits if wait] == [waits[0].whom] * 3
    assert str(paths[1]) in waits[0].whom
    assert disk.wait is None


def test_patience_with_a_full_disk_ends_as_with_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    disk = ScratchDisk(patience_seconds=0)
    writer = TraceWriter(tmp_path / "shard", some_origin(), disk.open)
    writer.add(some_trace())
    monkeypatch.setattr(os, "write", Filling(float("inf")))

    with pytest.raises(StoreUnavailable, match="No space left on device; make room there, or set"):
        writer.close("test")


def test_another_failure_of_a_disk_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    disk = ScratchDisk(patience_seconds=600)
    writer = TraceWriter(tmp_path / "shard", some_origin(), disk.open)
    writer.add(some_trace())
    monkeypatch.setattr(os, "write", Filling(float("inf"), errno.EIO))

    with pytest.raises(OSError, match="Input/output error"):
        writer.close("test")
