"""Ceph's programs, from Debian's signed packages: fetched by apt, unpacked into a folder of ours.

Nothing is installed and no root is needed. The programs run with the C library that they were built
for, through its own loader, so the machine may be older than they are. Knows apt and dpkg; knows
nothing of S3.
"""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SUITE = "COPPICE_S3_SUITE"
"""The Debian release to take Ceph from. Older Cephs break more promises: see docs/storage.md."""
DEFAULT_SUITE = "forky"

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PACKAGES = ("ceph-mon", "ceph-osd", "radosgw", "ceph-common")
TOOLS = ("apt-get", "dpkg-deb", "tar")
UNREAD = ("doc", "man", "locale")  # half of what is unpacked, and nothing that runs


class CannotRun(Exception):
    """This machine cannot run the real server; the message says why."""


@dataclass(frozen=True, slots=True)
class Programs:
    """An unpacked set of packages."""

    root: Path

    def command(self, name: str) -> list[str]:
        """What starts a program: the packages' own loader and libraries, then the program."""
        libraries = f"{self.libraries}:{self.libraries / 'ceph'}"
        return [str(self._loader), "--library-path", libraries, str(self.root / "usr/bin" / name)]

    def ceph(self) -> tuple[list[str], dict[str, str]]:
        """The `ceph` command, a Python script, and the environment that its Python needs."""
        command = [*self.command("python3"), str(self.root / "usr/bin/ceph")]
        packages = self.root / "usr/lib/python3/dist-packages"
        return command, {
            "PYTHONHOME": str(self.root / "usr"),
            "PYTHONPATH": str(packages),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    @property
    def libraries(self) -> Path:
        return _the_one(self.root, "usr/lib/*-linux-gnu/librados.so.2").parent

    @property
    def _loader(self) -> Path:
        return _the_one(self.root, "usr/lib*/ld-linux*.so.*")


def fetch_programs() -> Programs:
    """The programs from the cache; on the first call some 160 MB are fetched and unpacked.

    Raises CannotRun where there is no apt, no mirror, or nothing to install from it.
    """
    suite = os.environ.get(SUITE) or DEFAULT_SUITE
    root = cache_folder() / suite
    root.parent.mkdir(parents=True, exist_ok=True)
    with alone(root.with_suffix(".lock")):
        if not root.exists():
            _make(root, suite)
    return Programs(root)


def cache_folder() -> Path:
    """`$COPPICE_CACHE/s3-server`, beside the models that are built on first use."""
    return Path(os.environ.get("COPPICE_CACHE") or "~/.cache/coppice").expanduser() / "s3-server"


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Of several processes that start with an empty cache, one fetches and the others wait."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(root: Path, suite: str) -> None:
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        raise CannotRun(f"no {missing[0]}: the real server is unpacked from Debian packages")
    if not KEYRING.exists():
        raise CannotRun(f"no {KEYRING}: install debian-archive-keyring, or use the emulator")
    work = root.with_suffix(".new")
    shutil.rmtree(work, ignore_errors=True)
    _download(work / "apt", suite)
    packages = sorted((work / "apt/archives").glob("*.deb"))
    (work / "root").mkdir()
    with ThreadPoolExecutor(2) as unpackers:
        list(unpackers.map(lambda package: _unpack(package, work / "root"), packages))
    for name in UNREAD:
        shutil.rmtree(work / "root/usr/share" / name, ignore_errors=True)
    (work / "root/packages.txt").write_text("".join(f"{path.name}\n" for path in packages))
    (work / "root").rename(root)  # last, so that the folder's existence means that it is whole
    shutil.rmtree(work)


def _mirror() -> str:
    """Where this machine gets Debian from; on another distribution there is no such place."""
    listed = _run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"])
    for place in listed.split():
        if place.rstrip("/").endswith("/debian"):
            return place
    raise CannotRun("apt has no Debian mirror here: add one to its sources, or use the emulator")


def _download(apt: Path, suite: str) -> None:
    """Let apt fetch the packages and all that they need, as if nothing were installed."""
    for folder in ("lists/partial", "archives/partial"):
        (apt / folder).mkdir(parents=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(f"deb [signed-by={KEYRING}] {_mirror()} {suite} main\n")
    options = {
        "Dir::Etc::sourcelist": apt / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State": apt,
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt,
        "APT::Default-Release": "",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",  # apt's own user may not enter a private folder
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
    }
    apt_get = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in options.items())]
    _run([*apt_get, "update"])
    _run([*apt_get, "install", "--yes", "--download-only", *PACKAGES])


def _unpack(package: Path, root: Path) -> None:
    reader = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
    with reader:
        tar = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(root)]
        _run(tar, stdin=reader.stdout)
    if reader.returncode:
        raise CannotRun(f"{package.name} cannot be unpacked: dpkg-deb ended with an error")


def _run(command: Sequence[str], stdin: IO[bytes] | None = None) -> str:
    done = subprocess.run(
        command, stdin=stdin or subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-10:])
        raise CannotRun(f"{command[0]} ended with {done.returncode}:\n{last}")
    return done.stdout


def _the_one(root: Path, pattern: str) -> Path:
    found = sorted(root.glob(pattern))
    if not found:
        raise CannotRun(f"{root} lacks {pattern}: delete the folder, and it is made again")
    return found[0]
