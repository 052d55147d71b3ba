"""For every test: one thread for torch, Triton kernels without a GPU, and which S3 there is."""

import gc
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

    from tests.s3.ceph import CephS3

_RAY = "ray"

# Tiny models gain nothing by a second thread, and wait for it. A test that asks for two lets them
# sleep while they wait, instead of taking a core from those who work.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Ray's workers are meant to stand back for a machine's user (nice 15). Here they are what is waited
# for: beside three workers of pytest, they would hardly run.
os.environ.setdefault("RAY_worker_niceness", "0")
if not Path("/dev/nvidia0").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when a kernel is defined

settings.register_profile("any machine", deadline=None)  # how long an example takes says how busy
settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--s3",
        choices=["emulator", "real"],
        default="emulator",
        help="what stands behind s3:// in tests: moto, or a real server (see docs/storage.md)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Which tests run at all, in which order, and which side by side (`--dist loadgroup`).

    The tests of a file share what it costs to set up, so they stay together. All that start a Ray
    stay together, too: two clusters at once would wait for each other. They are the longest chain
    and wait most of their time, so they begin first, and the other groups follow by their numbers
    of tests. Tests that the emulator of S3 cannot pass, of kills and pauses say, are left out
    without a word. First, since xdist reads the groups in a hook of the same name.
    """
    if config.getoption("--s3") != "real":
        left_out = [item for item in items if item.get_closest_marker("real_s3")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("real_s3")]
    groups = {item: _group(item) for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    sizes = Counter(groups.values())

    def order(item: pytest.Item) -> tuple[bool, int, str, list[str]]:
        group = groups[item]
        return group != _RAY, -sizes[group], group, item.location[0].split("/")[:2]

    items.sort(key=order)


def pytest_collection_finish() -> None:
    """What was imported stays: left out of collections, it saves a twelfth of the CPU time."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()


def _group(item: pytest.Item) -> str:
    return _RAY if item.get_closest_marker("ray") else item.location[0]


@pytest.fixture(scope="session")
def s3_client(request: pytest.FixtureRequest) -> "Iterator[S3Client]":
    """A client of an S3 server on loopback with a bucket called `bucket`."""
    if request.config.getoption("--s3") == "real":
        yield request.getfixturevalue("ceph").client()
        return
    from tests.s3.emulator import emulator

    with emulator() as client:
        yield client


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[CephS3]":
    """The real server, for tests marked `real_s3`. One that kills or pauses it starts it again."""
    from tests.s3.ceph import CephS3

    with CephS3(tmp_path_factory.mktemp("ceph")) as server:
        yield server
        server.wipe()


@pytest.fixture
def aws_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Nothing of the machine's own AWS settings; a test adds its AWS_ENDPOINT_URL."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-access-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-key")
    return monkeypatch
