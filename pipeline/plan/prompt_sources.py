"""Finds the files that a source names, and opens them, unpacked.

A source is a path, a local glob, or an s3:// URL whose last part may be a glob. What looks like a
glob and is the name of a file or an object means that one.
"""

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from glob import escape, glob, has_magic
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

import pyarrow as pa

from pipeline.file_names import spelt
from pipeline.store.objects import Store, open_object
from pipeline.store.open import open_store
from schemas.errors import InputError, ObjectMissing

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

TEXT_SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson")
SUFFIXES = (*TEXT_SUFFIXES, ".parquet")
PACKED_SUFFIXES = (".gz", ".zst")  # behind those of text
_READ_BYTES = 256 * 1024
# By what a file begins with, never by its name. The last: a frame of Zstandard that is skipped.
_CODECS = {
    "gzip": re.compile(rb"\x1f\x8b"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenFile:
    """A file that is open, and may be read from its start several times."""

    name: str
    suffix: str  # as `PromptFile.suffix`
    raw: io.BufferedReader  # seekable
    codec: str | None  # None: it is not packed

    def start(self) -> BinaryIO:
        """What it holds, unpacked, from the start. Ends what was read of it before."""
        self.raw.seek(0)
        if self.codec is None:
            return self.raw
        return io.BufferedReader(_Unpacked(self.raw, self.codec), _READ_BYTES)


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptFile:
    """One file of prompts."""

    source: str  # which finds it again
    open_raw: Callable[[], io.BufferedReader]

    @property
    def name(self) -> str:
        """As it is stored and shown."""
        return spelt(self.source)

    @property
    def suffix(self) -> str:
        """Which form its name promises: `.csv` of `a.csv` and of `a.csv.gz`."""
        path = PurePosixPath(self.name.lower())
        return PurePosixPath(path.stem).suffix if path.suffix in PACKED_SUFFIXES else path.suffix

    @property
    def is_known(self) -> bool:
        """Whether its name promises a form that is read."""
        is_packed = self.name.lower().endswith(PACKED_SUFFIXES)
        return self.suffix in (TEXT_SUFFIXES if is_packed else SUFFIXES)

    @contextmanager
    def open(self) -> Iterator[OpenFile]:
        """Raises InputError if it cannot be."""
        try:
            raw = self.open_raw()
            codec = None if self.suffix == ".parquet" else _codec_of(raw)
        except (OSError, ValueError, ObjectMissing) as error:  # ValueError: no key of a store
            raise InputError(f"{self.name} cannot be read: {error}") from error
        with raw:
            yield OpenFile(name=self.name, suffix=self.suffix, raw=raw, codec=codec)


def find_files(source: str) -> list[PromptFile]:
    """At least one file, in the order of their names. Raises InputError for none, or another form.

    Asks S3 for the object of that very name before it lists a folder.
    """
    files = _find_objects(source) if source.startswith("s3://") else _find_paths(source)
    if not files:
        raise InputError(
            f"nothing matches '{spelt(source)}'; give a file, a glob such as 'prompts/*.txt', "
            "or s3://bucket/key"
        )
    for file in files:
        if not file.is_known:
            raise InputError(
                f"{file.name}: expected one of {', '.join(SUFFIXES)}, all but the last also with "
                f"{' or '.join(PACKED_SUFFIXES)} behind; convert it"
            )
    return files


def _find_paths(source: str) -> list[PromptFile]:
    paths = [source] if os.path.exists(source) else sorted(glob(source, recursive=True))
    folder, name = os.path.split(source)
    if not paths and has_magic(folder) and os.path.isdir(folder):
        paths = sorted(glob(os.path.join(escape(folder), name)))
    return [
        PromptFile(source=path, open_raw=partial(_open_path, path))
        for path in paths
        if os.path.isfile(path)
    ]


def _open_path(path: str) -> io.BufferedReader:
    return open(path, "rb")


def _find_objects(source: str) -> list[PromptFile]:
    folder, _, name = source.rpartition("/")
    if folder == "s3:/" or not name:  # a bucket or a folder is no object
        return []
    store = open_store(folder)
    keys = [name]
    if has_magic(name) and not _has_object(store, name):
        keys = sorted(entry.key for entry in store.list_folder("") if fnmatchcase(entry.key, name))
    return [
        PromptFile(source=f"{folder}/{key}", open_raw=partial(open_object, store, key))
        for key in keys
    ]


def _has_object(store: Store, key: str) -> bool:
    try:
        store.size(key)
    except (ObjectMissing, ValueError):  # ValueError: no key of a store, but it may be a glob
        return False
    return True


def _codec_of(raw: io.BufferedReader) -> str | None:
    raw.seek(0)
    head = raw.read(4)
    return next((codec for codec, magic in _CODECS.items() if magic.match(head)), None)


class _Unpacked(io.RawIOBase):
    """What a packed file holds. OSError for one that is damaged or cut short."""

    def __init__(self, raw: io.BufferedReader, codec: str) -> None:
        self._stream = pa.CompressedInputStream(pa.PythonFile(_Lent(raw), mode="r"), codec)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._stream.read(len(view))
        view[: len(data)] = data
        return len(data)


class _Lent(io.RawIOBase):
    """A file that stays open: Arrow closes what it unpacks, and we may start it again."""

    def __init__(self, raw: io.BufferedReader) -> None:
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        return self._raw.readinto(buffer)
