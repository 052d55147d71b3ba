"""Digests of whole objects, taken when they were written and kept apart from them.

A digest is an object of its own, in `_digests/`, and its name says all: of which object, and the
SHA-256 of the file that was put there. It is put before its object. So whatever wins has one; an
attempt that loses a race leaves one more name, and changes none; and an object is whole if there is
a digest by the name that its own bytes give. What was written by version 0.1 has none, nor has
anything once `_digests/` was cleared away: that is told, and is no damage.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO

from pipeline.store import layout
from pipeline.store.objects import Store
from schemas.errors import ObjectMissing

PIECE_BYTES = 8 * 2**20
_IN_MEMORY_BYTES = 64 * 2**20  # of an object that is read whole; what is larger lies on the disk


class DigestState(StrEnum):
    """What the digests of an object say of the bytes that are there."""

    WHOLE = "whole"
    OTHER = "other"  # they are not those that were written
    NONE = "none"  # nobody took a digest


def note_digest(store: Store, key: str, path: Path) -> None:
    """Keep the digest of a file that is about to be put as an object. Raises what `put` does."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    store.put(layout.digest_key(key, digest), f"{digest}\n".encode())


@dataclass(slots=True, eq=False)
class Digests:
    """The digests of a run. A list of them is made when an object has none by its own bytes' name,
    and kept, a folder at a time.
    """

    store: Store
    _listed: dict[str, frozenset[str]] = field(default_factory=dict)

    def state(self, key: str, digest: str) -> DigestState:
        """What is known of an object whose bytes have this digest."""
        if exists(self.store, layout.digest_key(key, digest)):
            return DigestState.WHOLE
        folder = layout.digests_folder(key)
        if folder not in self._listed:
            names = (layout.try_object_of_digest(e.key) for e in self.store.list_folder(folder))
            self._listed[folder] = frozenset(filter(None, names))
        return DigestState.OTHER if key in self._listed[folder] else DigestState.NONE


@contextmanager
def fetched(store: Store, key: str) -> Iterator[tuple[IO[bytes], str]]:
    """An object brought here, read once from its first byte to its last, and its SHA-256.

    Raises ObjectMissing.
    """
    digest = hashlib.sha256()
    with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES, prefix="coppice-") as spooled:
        file: IO[bytes] = spooled
        for piece in pieces(store, key):
            digest.update(piece)
            file.write(piece)
        file.seek(0)
        yield file, digest.hexdigest()


def pieces(store: Store, key: str) -> Iterator[bytes]:
    """An object of any size, a piece at a time. Raises ObjectMissing."""
    size_bytes = store.size(key)
    for start in range(0, size_bytes, PIECE_BYTES):
        yield store.read_range(key, start, PIECE_BYTES)


def digest_of(store: Store, key: str) -> str:
    """The SHA-256 of an object, in hexadecimal. Raises ObjectMissing."""
    digest = hashlib.sha256()
    for piece in pieces(store, key):
        digest.update(piece)
    return digest.hexdigest()


def exists(store: Store, key: str) -> bool:
    """Whether an object can be read by its name. Raises StoreUnavailable and StoreRefused."""
    try:
        store.size(key)
    except ObjectMissing:
        return False
    return True
