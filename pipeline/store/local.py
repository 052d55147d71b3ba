"""A store in a folder of a local or shared file system, which must have hard links.

What a killed process leaves in `_tmp` is never an object; delete it when no one writes.
"""

import errno
import io
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote
from uuid import uuid4

from pipeline.store import layout
from pipeline.store.objects import (
    Entry,
    Source,
    checked_folder,
    checked_key,
    checked_range,
    is_key,
    join_key,
    open_source,
)
from schemas.errors import (
    InputError,
    ObjectBlocked,
    ObjectMissing,
    StoreRefused,
    StoreUnavailable,
)

COPY_BYTES = 1024 * 1024

_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_PASSING = (
    *(errno.ENOSPC, errno.EDQUOT),  # full
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT),  # away
    *(errno.EMFILE, errno.ENFILE),  # too many open files
    errno.ENOENT,  # of a put: someone deleted its folder, which the next try makes again
)


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A folder as a store; it is made by the first put. See `Store` for the promises."""

    root: Path

    @property
    def url(self) -> str:
        return str(self.root)

    def read(self, key: str) -> bytes:
        path = self._path(key)
        with _reading(path), _open(path) as file:
            return file.read()

    def read_range(self, key: str, start: int, length: int) -> bytes:
        checked_range(start, length)
        path = self._path(key)
        with _reading(path), _open(path) as file:
            file.seek(start)
            return file.read(length)

    def size(self, key: str) -> int:
        path = self._path(key)
        with _reading(path), _open(path) as file:  # a stat would find folders, too
            return file.seek(0, io.SEEK_END)

    def list_folder(self, folder: str) -> Iterator[Entry]:
        return self._entries(checked_folder(folder))

    def list_subfolders(self, folder: str) -> Iterator[str]:
        return self._subfolders(checked_folder(folder))

    def put(self, key: str, source: Source) -> None:
        path = self._path(key)
        with open_source(source) as body, _asking("put", path), self._temporary(body) as temporary:
            _make_folder(path.parent)
            os.replace(temporary, path)
            _sync(path.parent)

    def put_if_absent(self, key: str, source: Source) -> bool:
        path = self._path(key)
        with open_source(source) as body, _asking("put", path), self._temporary(body) as temporary:
            _make_folder(path.parent)
            is_created = _try_link(temporary, path)
            # A loser syncs as well: it may go on to rely on what the winner has not synced yet.
            _sync(path.parent)
            return is_created

    def delete(self, key: str) -> None:
        path = self._path(key)
        with _asking("delete", path), suppress(*_ABSENT):
            path.unlink()

    def _path(self, key: str) -> Path:
        return self.root / checked_key(key)

    def _entries(self, folder: str) -> Iterator[Entry]:
        path = self.root / folder
        with _asking("list", path):
            for entry in _scan(path):
                if (facts := _try_stat(entry)) is not None:
                    # Nobody can set the time of a change, as one can that of a modification.
                    etag = f"{facts.st_ctime_ns:x}-{facts.st_ino:x}"
                    key = join_key(folder, entry.name)
                    yield Entry(key=key, size_bytes=facts.st_size, etag=etag)

    def _subfolders(self, folder: str) -> Iterator[str]:
        path = self.root / folder
        with _asking("list", path):
            for entry in _scan(path):
                if entry.is_dir(follow_symlinks=False) and is_key(entry.name):
                    yield join_key(folder, entry.name)

    @contextmanager
    def _temporary(self, body: BinaryIO) -> Iterator[Path]:
        """The body in a synced file on the root's file system; gone afterwards, come what may."""
        path = self.root / layout.TEMPORARY / uuid4().hex
        _make_folder(path.parent)
        try:
            with path.open("xb") as file:
                shutil.copyfileobj(body, file, COPY_BYTES)
                file.flush()
                os.fsync(file.fileno())
            yield path
        finally:
            path.unlink(missing_ok=True)


def open_local(url: str) -> LocalStore:
    """A relative path is made absolute, so that `url` means the same to every process.

    Makes nothing. Raises InputError for a file URL that is no absolute path on this host.
    """
    if not url.startswith("file:"):
        return LocalStore(Path(url).absolute())
    path = unquote(url.removeprefix("file://").removeprefix("localhost"))
    if not path.startswith("/"):
        raise InputError(
            "a file URL names an absolute path on this host; give file:///path or a path"
        )
    return LocalStore(Path(path))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    with _asking("read", path):
        try:
            yield
        except _ABSENT as error:
            raise ObjectMissing(f"there is no object {path}; check the path") from error


@contextmanager
def _asking(operation: str, path: Path) -> Iterator[None]:
    """Turns what the system says into our errors. Nothing else decides what an errno means."""
    try:
        yield
    except OSError as error:
        failure = f"cannot {operation} {path}: {error.strerror}"
        if error.errno in _PASSING:
            raise StoreUnavailable(f"{failure}; check the disk and its free space") from error
        raise StoreRefused(
            f"{failure}; give a folder that this user may write, on one file system with hard links"
        ) from error


def _open(path: Path) -> BinaryIO:
    """A file to read. What is none is no object: a folder, and a pipe, which would never end."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise IsADirectoryError(errno.EISDIR, "it is no file", str(path))
    return open(handle, "rb")


def _scan(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What stands directly in a folder; nothing if there is no such folder."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        yield from entries


def _try_link(temporary: Path, path: Path) -> bool:
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        if path.is_dir():
            raise ObjectBlocked(
                f"a folder stands at {path}, where an object is to be; move it away"
            ) from error
        return False
    return True


def _try_stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    """None for what is not an object, or no longer there."""
    try:
        return entry.stat() if entry.is_file() else None
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link that leads to itself
            return None
        raise


def _make_folder(folder: Path) -> None:
    """The folder and those above it, so that no power cut loses the way to a committed object."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError as error:
        raise StoreRefused(
            f"a file stands at {folder}, where a folder is to be; move it away"
        ) from error
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
