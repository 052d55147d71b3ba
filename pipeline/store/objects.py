"""Object storage as the rest of Coppice sees it: a few verbs on keys below one root.

Knows keys, the promises that every store keeps, and patience. Knows neither disks (`local.py`) nor
S3 (`s3.py`), which is imported only when an `s3://` URL is opened.
"""

import io
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeAlias, TypeVar

from schemas.errors import CredentialsRefused, StoreError, StoreUnavailable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
PASSING = (StoreUnavailable, CredentialsRefused)
"""What a run waits out. A start does not wait for credentials: no one has seen them work."""
READ_AHEAD_BYTES = 256 * 1024  # a Parquet footer in one request; little next to a column chunk

# Control characters, the backslash, lone surrogates.
_HOSTILE = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]")

Source: TypeAlias = Path | bytes
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One object of a listing."""

    key: str
    size_bytes: int
    etag: str = field(default="", compare=False)  # another one for another content; "": unknown


class Store(Protocol):
    """Objects below one root. Keys are relative and '/'-separated; a hostile one is a ValueError.

    Every verb may raise StoreUnavailable (repeat it) or StoreRefused (do not, unless it is
    CredentialsRefused in mid-run; `repeat` knows). A store may be used from several threads and may
    be pickled; the process that unpickles it needs the credentials.
    """

    @property
    def url(self) -> str:
        """What `open_store` takes to open this store again, anywhere. Holds no credentials."""
        ...

    def read(self, key: str) -> bytes:
        """The whole object. Raises ObjectMissing."""
        ...

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Bytes from `start`: fewer where the object ends, none beyond it. Raises ObjectMissing."""
        ...

    def size(self, key: str) -> int:
        """In bytes. Raises ObjectMissing."""
        ...

    def list_folder(self, folder: str) -> Iterator[Entry]:
        """The objects directly in a folder ("" is the root), unordered, one page at a time.

        An absent folder is empty. A list may lag behind puts: never take it to say that an object
        is absent. A name may be no key (see `is_key`): anyone may have put it there.
        """
        ...

    def list_subfolders(self, folder: str) -> Iterator[str]:
        """The folders directly in a folder ("" is the root), as keys, unordered.

        On S3 those that have objects below them, on a disk empty ones as well. An absent folder has
        none. A name that is no key is left out: no verb takes it. May lag as `list_folder` does.
        """
        ...

    def put(self, key: str, source: Source) -> None:
        """Make or replace the object. A Path is streamed; its file must not change meanwhile."""
        ...

    def put_if_absent(self, key: str, source: Source) -> bool:
        """Whether this call made the object, which is never replaced. All or nothing, durable.

        False does not say whose object stands there: an earlier put that went unanswered
        (StoreUnavailable) may have landed, and may land even after its caller was told nothing. So
        on False read the object and look whether it is your own.
        """
        ...

    def delete(self, key: str) -> None:
        """Not an error if the object is absent."""
        ...


def open_object(store: Store, key: str, *, size_bytes: int | None = None) -> io.BufferedReader:
    """An object as a seekable file that fetches what is read of it, as pyarrow likes it.

    The caller closes it. Who knows its size saves a call. Raises ObjectMissing here, or with a size
    while it is read, as a store's other errors.
    """
    return io.BufferedReader(_ObjectFile(store, key, size_bytes), READ_AHEAD_BYTES)


def repeat(
    call: Callable[[], T],
    *,
    patience_seconds: float,
    waits_for: tuple[type[StoreError], ...] = PASSING,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """What the call answers, calling again while the store is unavailable or refuses credentials.

    Pauses double up to a cap, with jitter, so that a thousand workers do not come back at once; the
    last call comes when patience ends, and its error is raised. For a listing, the call
    must consume it: `lambda: list(store.list_folder(folder))`.
    """
    start, pause, num_calls = clock(), FIRST_PAUSE_SECONDS, 1
    while True:
        try:
            return call()
        except waits_for as error:
            waited = clock() - start
            if waited >= patience_seconds:
                raise type(error)(f"{error} (call {num_calls}, after {waited:.0f} s)") from error
        sleep(min(pause * random.uniform(0.5, 1), patience_seconds - waited))
        pause, num_calls = min(2 * pause, LONGEST_PAUSE_SECONDS), num_calls + 1


def checked_key(key: str) -> str:
    """The key as it is, or a ValueError for one that could leave the root or mean two things."""
    if not is_key(key):
        raise ValueError(f"{key!r} is not a key: give plain names with single slashes between them")
    return key


def is_key(name: str) -> bool:
    """Whether the verbs take it."""
    return not _HOSTILE.search(name) and {"", ".", ".."}.isdisjoint(name.split("/"))


def keys_in(store: Store, folder: str) -> Iterator[Entry]:
    """The objects of a folder that can be asked for."""
    return (entry for entry in store.list_folder(folder) if is_key(entry.key))


def checked_folder(folder: str) -> str:
    """Like `checked_key`, and "" is the root."""
    return folder and checked_key(folder)


def checked_range(start: int, length: int) -> None:
    """A ValueError for a range that stores would read differently."""
    if start < 0 or length < 1:
        raise ValueError(f"a range starts at 0 or later and has a length; got {start}, {length}")


def join_key(*parts: str) -> str:
    """Parts with slashes between them; an empty one, such as the root folder, leaves no trace."""
    return "/".join(filter(None, parts))


def open_source(source: Source) -> BinaryIO:
    """What a put reads; the caller closes it. Its errors are OSErrors, and not the store's."""
    return source.open("rb") if isinstance(source, Path) else io.BytesIO(source)


class _ObjectFile(io.RawIOBase):
    """The raw half of `open_object`: one ranged read for each `readinto`."""

    def __init__(self, store: Store, key: str, size_bytes: int | None) -> None:
        self._store, self._key = store, key
        self._size = store.size(key) if size_bytes is None else size_bytes
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"cannot seek to {base + offset}, before the start of {self._key}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer).cast("B")
        length = min(len(view), self._size - self._position)
        if length < 1:
            return 0
        data = self._store.read_range(self._key, self._position, length)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)
