"""Files that are made on this machine before they are put: swept folders, a disk that fills.

A folder belongs to the process that holds the lock in it, which the system lets go of when that
process ends, however it ends. So a folder whose lock can be had is nobody's.
"""

import errno
import fcntl
import io
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pipeline.store.objects import repeat
from schemas.errors import StoreUnavailable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from schemas.runs import Wait

_PREFIX = "coppice-scratch-"
_LOCK = ".owner"
_YOUNGEST_SECONDS = 60.0  # of a folder that is swept: its owner may be about to lock it
_FULL = (errno.ENOSPC, errno.EDQUOT)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Abandoned:
    """A scratch folder whose process is gone."""

    path: Path
    size_bytes: int


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder of this process, in TMPDIR; gone afterwards, or swept if the process is killed."""
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name, _locked(Path(name)):
        yield Path(name)


def sweep_scratch(
    *, is_dry: bool = False, clock: Callable[[], float] = time.time
) -> list[Abandoned]:
    """Remove scratch folders of this user's processes that are gone, or, if dry, only find them.

    Of this machine, and of TMPDIR as it is set now. What cannot be removed stays.
    """
    abandoned = []
    for path in sorted(Path(tempfile.gettempdir()).glob(f"{_PREFIX}*")):
        with suppress(OSError), _locked(path, is_new=False):  # BlockingIOError: it lives
            facts = path.lstat()
            if facts.st_uid == os.getuid() and clock() - facts.st_mtime >= _YOUNGEST_SECONDS:
                sizes = [each.lstat().st_size for each in path.rglob("*")]
                abandoned.append(Abandoned(path=path, size_bytes=sum(sizes)))
                if not is_dry:
                    shutil.rmtree(path, ignore_errors=True)
    return abandoned


@contextmanager
def _locked(folder: Path, *, is_new: bool = True) -> Iterator[None]:
    """Raises BlockingIOError if another process holds it, OSError for what is no such folder."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if is_new else 0)
    handle = os.open(folder / _LOCK, flags, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


class ScratchDisk:
    """The disk of scratch files, waited for while it is full, as a store is while it is away."""

    def __init__(
        self,
        *,
        patience_seconds: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._patience_seconds = patience_seconds
        self._sleep = sleep
        self._waits: list[Wait] = []

    @property
    def wait(self) -> "Wait | None":
        """Since when a thread waits for room; None: there is some."""
        return next(iter(self._waits), None)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """As `scratch_folder`. Raises StoreUnavailable if no room is made for it in time."""
        folder = scratch_folder()
        path = self.patiently(folder.__enter__, Path(tempfile.gettempdir()))
        try:
            yield path
        finally:
            folder.__exit__(None, None, None)

    def open(self, path: Path) -> io.RawIOBase:
        """A new file, of which every write waits for room. Raises StoreUnavailable in the end."""
        return _PatientFile(self, path)

    def patiently(self, call: Callable[[], T], path: Path) -> T:
        """What a call answers, made again while there is no room. Raises StoreUnavailable."""
        noted: list[Wait] = []

        def pause(seconds: float) -> None:
            from schemas.runs import Wait  # loads pydantic, which a bare GPU machine may lack

            if not noted:
                noted.append(
                    Wait(whom=f"room for {path} on {socket.gethostname()}", since=time.time())
                )
                self._waits.append(noted[0])
            self._sleep(seconds)

        try:
            return repeat(
                partial(_with_room, call, path),
                patience_seconds=self._patience_seconds,
                waits_for=(StoreUnavailable,),
                sleep=pause,
            )
        finally:
            for wait in noted:
                self._waits.remove(wait)


class _PatientFile(io.RawIOBase):
    def __init__(self, disk: ScratchDisk, path: Path) -> None:
        self._disk, self._path = disk, path
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._handle = disk.patiently(lambda: os.open(path, flags, 0o600), path)

    def writable(self) -> bool:
        return True

    def write(self, data: "ReadableBuffer", /) -> int:
        view = memoryview(bytes(data))
        done = 0
        while done < len(view):  # a disk that fills takes a part
            done += self._disk.patiently(partial(os.write, self._handle, view[done:]), self._path)
        return done

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._handle)


def _with_room(call: Callable[[], T], path: Path) -> T:
    try:
        return call()
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StoreUnavailable(
            f"cannot write {path} on {socket.gethostname()}: {error.strerror}; make room there, or "
            "set TMPDIR to a folder on another disk"
        ) from error
