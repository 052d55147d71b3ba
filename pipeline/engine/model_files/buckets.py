"""A folder of a bucket as a source: each node fetches the model once, for all of its actors.

A copy lies in Coppice's cache under what the bucket said of the files (sizes and ETags), so a file
that changes there is another copy, and never half of one.
"""

import hashlib
import os
import platform
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from pipeline.engine.model_files.digests import wait_for_lock
from pipeline.engine.model_files.listing import checkpoint_files
from pipeline.engine.tiny import cache_folder
from pipeline.store.objects import Entry, Store, repeat
from pipeline.store.open import open_store
from schemas.errors import InputError, ObjectMissing, StoreUnavailable

T = TypeVar("T")
_PART_BYTES = 32 * 2**20
_NUM_THREADS = 8
_PATIENCE_SECONDS = 60.0  # with a store that does not answer
_WAIT_SECONDS = 600.0  # for another process that fetches, and gets no further


class BucketFolder:
    """The objects below a URL, as a list of the bucket told once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._entries = self._list("")
        self._listed = {""}

    @property
    def label(self) -> str:
        return self._store.url

    def names(self) -> Collection[str]:
        return [name for name in self._entries if "/" not in name]

    def has(self, name: str) -> bool:
        return self.entry(name) is not None

    def entry(self, name: str) -> Entry | None:
        folder = name.rpartition("/")[0]
        if folder not in self._listed:
            self._listed.add(folder)
            self._entries |= self._list(folder)
        return self._entries.get(name)

    def read(self, name: str) -> bytes:
        return _patiently(lambda: self._store.read(name))

    def _list(self, folder: str) -> dict[str, Entry]:
        entries = _patiently(lambda: list(self._store.list_folder(folder)))
        return {entry.key: entry for entry in entries}


def fetch_from_bucket(url: str) -> Path:
    """The folder of a model that lies at `s3://bucket/folder`, fetched if it is not here yet.

    Only the files that a checkpoint needs. Safe in many processes at once: one fetches and the
    others wait for it. Raises InputError for a place that holds no checkpoint, for a file that
    changes meanwhile and for a cache that cannot be written; StoreError for a bucket that refuses.
    """
    store = open_store(url)
    source = BucketFolder(store)
    if not source.names():
        raise InputError(f"{store.url} holds no files; check the bucket and the folder")
    files = checkpoint_files(source)
    names = (*files.computed_with, *files.beside)
    entries = [entry for name in names if (entry := source.entry(name))]
    key = hashlib.sha256(f"{store.url}\n{_told(entries)}".encode()).hexdigest()[:16]
    folder = cache_folder() / "models" / "s3" / key
    if folder.is_dir():
        return folder
    draft = folder.with_name(f"{key}.part")
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_name(f"{key}.lock").open("a") as lock:
            _wait_while_it_grows(lock.fileno(), draft, store.url)
            if not folder.is_dir():
                draft.mkdir(exist_ok=True)
                try:
                    _fetch_all(store, entries, draft)
                except InputError:  # a file changed, so none is known to be whole
                    shutil.rmtree(draft)
                    raise
                draft.rename(folder)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror}); "
            "set COPPICE_CACHE to a folder that can, with room for the model"
        ) from error
    return folder


def _wait_while_it_grows(lock: int, draft: Path, url: str) -> None:
    """Get the lock, waiting for its holder as long as that gets any further."""
    seen, deadline = -1, 0.0
    while not wait_for_lock(lock, seconds=1.0):
        if (now := _num_bytes(draft)) != seen:
            seen, deadline = now, time.monotonic() + _WAIT_SECONDS
        elif time.monotonic() > deadline:
            raise InputError(
                f"another process on {platform.node()} fetches {url} and got no further in "
                f"{_WAIT_SECONDS:.0f} s; end it and start again"
            )


def _num_bytes(folder: Path) -> int:
    """What the files in a folder take of the disk: they have their size from the beginning."""
    try:
        return sum(path.stat().st_blocks for path in folder.rglob("*"))
    except OSError:  # renamed under the walk: it is done
        return 0


def _fetch_all(store: Store, entries: Sequence[Entry], draft: Path) -> None:
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        for entry in entries:
            path = draft / entry.key
            if not path.is_file():  # of one who was killed: only whole files have this name
                path.parent.mkdir(parents=True, exist_ok=True)
                _fetch(store, entry, path, pool)
    again = BucketFolder(store)
    for entry in entries:
        if _told([again.entry(entry.key)]) != _told([entry]):
            raise _changed(store, entry)


def _fetch(store: Store, entry: Entry, path: Path, pool: ThreadPoolExecutor) -> None:
    """Stream an object into a file, in parts that are fetched side by side."""
    draft = path.with_name(f"{path.name}.part")
    with draft.open("wb") as file:
        file.truncate(entry.size_bytes)

        def fetch_part(start: int) -> None:
            length = min(_PART_BYTES, entry.size_bytes - start)
            try:
                data = _patiently(lambda: store.read_range(entry.key, start, length))
            except ObjectMissing as error:
                raise _changed(store, entry) from error
            if len(data) != length:
                raise _changed(store, entry)
            os.pwrite(file.fileno(), data, start)

        for _ in pool.map(fetch_part, range(0, entry.size_bytes, _PART_BYTES)):
            pass
    draft.rename(path)


def _told(entries: Sequence[Entry | None]) -> str:
    """What a bucket says of objects; another text if one of them changes."""
    return "\n".join(f"{entry.key} {entry.size_bytes} {entry.etag}" for entry in entries if entry)


def _patiently(call: Callable[[], T]) -> T:
    return repeat(call, patience_seconds=_PATIENCE_SECONDS, waits_for=(StoreUnavailable,))


def _changed(store: Store, entry: Entry) -> InputError:
    return InputError(
        f"{store.url}/{entry.key} changed while it was fetched; "
        "wait until the model there is whole, and start again"
    )
