"""The real server does what is promised of it: nothing acknowledged is lost, a paused put lands."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.store.objects import Store
from pipeline.store.open import open_store
from schemas.errors import StoreUnavailable
from tests.s3.ceph import BUCKET, CephS3, Daemon
from tests.s3.packages import CannotRun

pytestmark = pytest.mark.real_s3


@pytest.fixture
def store(ceph: CephS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    monkeypatch.setattr("pipeline.store.s3.READ_TIMEOUT_SECONDS", 2)
    for name, value in ceph.settings.items():
        monkeypatch.setenv(name, value)
    return open_store(f"s3://{BUCKET}/{tmp_path.name}")


@pytest.mark.parametrize("daemons", [[], [Daemon.RGW], [Daemon.OSD], [Daemon.MON]])
def test_what_was_acknowledged_outlives_a_kill(ceph: CephS3, store: Store, daemons: list[Daemon]):
    assert store.put_if_absent("key", b"before")

    ceph.kill(*daemons)
    assert not any(ceph.is_up(daemon) for daemon in daemons or Daemon)
    ceph.start()

    assert store.read("key") == b"before"
    assert not store.put_if_absent("key", b"after")


@pytest.mark.parametrize("daemon", [Daemon.RGW, Daemon.OSD])
def test_a_put_that_a_paused_server_never_answered_may_land(
    ceph: CephS3, store: Store, daemon: Daemon
):
    store.put("warm", b"")
    ceph.pause(daemon)
    with pytest.raises(StoreUnavailable):
        store.put_if_absent("key", b"late")
    ceph.resume(daemon)

    store.put_if_absent("key", b"again")  # whichever came first stands

    assert store.read("key") in (b"late", b"again")


def test_another_process_sees_and_restarts_the_same_server(ceph: CephS3, store: Store):
    def ask(action: str) -> str:
        command = [sys.executable, "-m", "tests.s3", action, str(ceph.folder)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    ceph.kill(Daemon.RGW)
    settings = dict(line.split("=", 1) for line in ask("start").splitlines())

    assert settings["AWS_ENDPOINT_URL"] == ceph.endpoint
    assert ask("status").split() == ["mon", "up", "osd", "up", "rgw", "up"]
    assert store.put_if_absent("key", b"x")


def test_a_folder_of_someone_else_is_left_alone(tmp_path: Path):
    (tmp_path / "mine").write_text("precious")

    with pytest.raises(CannotRun, match="holds other things"):
        CephS3(tmp_path).start()

    assert (tmp_path / "mine").read_text() == "precious"
