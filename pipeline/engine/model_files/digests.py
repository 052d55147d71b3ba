"""Who a model is: the sha256 of each file that it computes with, taken once for each file.

A model of 15 GB takes half a minute to read through, and a node's actors start together. So the
digests of large files are remembered in Coppice's cache, by path, size and times of the file, and
while one process takes one the others wait for it. A cache that cannot be used costs time only.
"""

import fcntl
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pipeline.engine.tiny import cache_folder
from schemas.errors import InputError

REMEMBERED_BYTES = 16 * 2**20  # smaller files are read faster than the cache is locked
_CACHE, _LOCK = "digests.json", "digests.lock"
_MOST_REMEMBERED = 1000  # files; the oldest are forgotten
_WAIT_SECONDS = 900.0  # for another process that takes one: longer than a disk needs for 100 GB
_SETTLED_SECONDS = 1.0  # a file may change again within one tick of its file system's clock
_SHA256 = re.compile(r"[0-9a-f]{64}")


def digest_of_files(digests: Mapping[str, str]) -> str:
    """Hex sha256 over the files of a model, in the order given: the sha256 of each, by name.

    In the model's folder, `sha256sum config.json ... | sha256sum` prints the same.
    """
    lines = (f"{sha256}  {name.rpartition('/')[2]}\n" for name, sha256 in digests.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file, remembered if it is large. Raises InputError if it cannot be read."""
    try:
        if path.stat().st_size < REMEMBERED_BYTES:
            return _take(path)
        if remembered := _read_cache().get(key := _key(path)):
            return remembered
        with _alone():
            if remembered := _read_cache().get(key):
                return remembered
            is_settled = _is_settled(path)
            sha256 = _take(path)
            if is_settled and _key(path) == key:
                _remember(key, sha256)
            return sha256
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error


def _take(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _key(path: Path) -> str:
    """Equal only for a file that has not changed. ctime tells what a copy with old times hides."""
    state = path.stat()
    return f"{path.absolute()} {state.st_size} {state.st_mtime_ns} {state.st_ctime_ns}"


def _is_settled(path: Path) -> bool:
    """Whether the file's times would tell another write from the last one, after a short wait."""
    state = path.stat()
    age = time.time() - max(state.st_mtime, state.st_ctime)
    if 0 <= age < _SETTLED_SECONDS:
        time.sleep(_SETTLED_SECONDS - age)
    return age >= 0


@contextmanager
def _alone() -> Iterator[None]:
    """No other process of this machine takes a digest meanwhile; without a lock all take it."""
    with ExitStack() as stack:
        with suppress(OSError):  # a cache that cannot be written, or a file system without locks
            file = stack.enter_context((cache_folder() / _LOCK).open("a"))
            wait_for_lock(file.fileno(), seconds=_WAIT_SECONDS)
        yield


def wait_for_lock(descriptor: int, *, seconds: float) -> bool:
    """Whether the lock of an open file could be had in time. It ends with the file.

    Raises OSError where the file system has no locks.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
        time.sleep(0.1)


def _read_cache() -> dict[str, str]:
    """What is remembered; nothing if the file is damaged."""
    try:
        content = json.loads((cache_folder() / _CACHE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {
        key: sha256
        for key, sha256 in content.items()
        if isinstance(sha256, str) and _SHA256.fullmatch(sha256)
    }


def _remember(key: str, sha256: str) -> None:
    others = {
        other: kept for other, kept in _read_cache().items() if _path_in(other) != _path_in(key)
    }
    content = dict(list((others | {key: sha256}).items())[-_MOST_REMEMBERED:])
    with suppress(OSError):
        with tempfile.NamedTemporaryFile("w", dir=cache_folder(), delete=False) as draft:
            json.dump(content, draft, indent=1)
        os.replace(draft.name, cache_folder() / _CACHE)


def _path_in(key: str) -> str:
    return key.rsplit(" ", 3)[0]
