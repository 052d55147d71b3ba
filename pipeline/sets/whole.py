"""Whether a set is as it was written: each file against the digest that its manifest has of it.

Digests are taken of what is put, by whoever puts it, and never of what is read back. A set of
version 0.1 has none: of its Parquet files pages and footers are read, and the rest is not known.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pyarrow.parquet as pq
from pydantic import ValidationError

from pipeline.store import layout
from pipeline.store.evidence.digests import digest_of, exists, fetched
from pipeline.store.evidence.footers import footer_problems
from pipeline.store.objects import Entry, Source, Store, open_object
from pipeline.store.shard_check import Finding
from pipeline.store.traces import UNREADABLE
from schemas.errors import DamagedObject, ObjectMissing
from schemas.json_values import JsonObject, canonical_json, read_json_object
from schemas.sets import SetManifest, StreamFiles
from schemas.small_files import why_invalid

MANIFEST, FUNNEL, CARD = layout.SET_MANIFEST, "funnel.json", "README.md"
_ADVICE = "curate again into another place, from the runs and the recipe that manifest.json names"


@contextmanager
def open_set_file(store: Store, key: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file of a set, for who reads some of it: checksums of pages are verified.

    Raises DamagedObject for one that is gone or cannot be read, then or in the context.
    """
    try:
        with open_object(store, key) as file:
            yield pq.ParquetFile(file, page_checksum_verification=True)
    except (ObjectMissing, *UNREADABLE) as error:
        raise DamagedObject(
            f"{store.url}/{key} is no whole file of a set ({type(error).__name__}: {error}); "
            f"{_ADVICE}",
            reason="damaged_object",
        ) from error


def try_set_manifest(store: Store) -> SetManifest | None:
    """The manifest of the set in a store; None: it holds no finished set. Raises DamagedObject."""
    with _reading_note(store, MANIFEST), suppress(ObjectMissing):
        return SetManifest.model_validate_json(store.read(MANIFEST))
    return None


def read_note(store: Store, key: str) -> JsonObject:
    """A file of a set that is a JSON object. Raises DamagedObject."""
    with _reading_note(store, key):
        return read_json_object(store.read(key))


def read_card(store: Store) -> str:
    """The data card of a set. Raises DamagedObject."""
    with _reading_note(store, CARD):
        return store.read(CARD).decode()


@contextmanager
def _reading_note(store: Store, key: str) -> Iterator[None]:
    """What is said to a small file of a set that is gone, or is not what a set has."""
    try:
        yield
    except (ObjectMissing, ValueError) as error:
        why = why_invalid(error) if isinstance(error, ValidationError) else error
        raise DamagedObject(
            f"{store.url}/{key} is no file of a set that this version of coppice reads ({why}); "
            f"{_ADVICE}",
            reason="damaged_object",
        ) from error


class NotedStore:
    """Does what another store does, and keeps the SHA-256 of all that is put, by key."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.digests: dict[str, str] = {}

    @property
    def url(self) -> str:
        return self._inner.url

    def read(self, key: str) -> bytes:
        return self._inner.read(key)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        return self._inner.read_range(key, start, length)

    def size(self, key: str) -> int:
        return self._inner.size(key)

    def list_folder(self, folder: str) -> Iterator[Entry]:
        return self._inner.list_folder(folder)

    def list_subfolders(self, folder: str) -> Iterator[str]:
        return self._inner.list_subfolders(folder)

    def put(self, key: str, source: Source) -> None:
        self._note(key, source)
        self._inner.put(key, source)

    def put_if_absent(self, key: str, source: Source) -> bool:
        self._note(key, source)
        return self._inner.put_if_absent(key, source)

    def delete(self, key: str) -> None:
        self._inner.delete(key)

    def with_digests(self, streams: Mapping[str, StreamFiles]) -> dict[str, StreamFiles]:
        """Streams whose files were put through here, with the digests of those."""
        return {
            name: stream.model_copy(
                update={"digests": tuple(self.digests[key] for key in stream.files)}
            )
            for name, stream in streams.items()
        }

    def _note(self, key: str, source: Source) -> None:
        if isinstance(source, bytes):
            self.digests[key] = hashlib.sha256(source).hexdigest()
            return
        with source.open("rb") as file:
            self.digests[key] = hashlib.file_digest(file, "sha256").hexdigest()


def sealed(manifest: SetManifest) -> SetManifest:
    """The manifest with a digest of all else that it says."""
    return manifest.model_copy(update={"digest": _digest(manifest)})


def is_set(store: Store) -> bool:
    """Whether a folder holds a set, and no run."""
    return exists(store, MANIFEST) and not exists(store, layout.MANIFEST)


@dataclass(slots=True, eq=False)
class SetCheck:
    """One pass over a set. The counts are of what the pass has seen so far."""

    store: Store
    manifest: SetManifest = field(init=False)
    num_files: int = 0
    num_without_digest: int = 0

    def __post_init__(self) -> None:
        """Raises DamagedObject for a manifest that is none, or is gone."""
        with _reading_note(self.store, MANIFEST):
            self.manifest = SetManifest.model_validate_json(self.store.read(MANIFEST))

    def findings(self) -> Iterator[Finding]:
        """All that is wrong with the set, as it is found. Raises StoreUnavailable, StoreRefused."""
        if self.manifest.digest not in ("", _digest(self.manifest)):
            yield _finding(MANIFEST, "a manifest with other words", "the one that was written")
        of_streams = [key for stream in self.manifest.files.values() for key in stream.files]
        keys = sorted({*of_streams, *self.manifest.digests})
        for key in keys:
            self.num_files += 1
            if problem := self._problem(key):
                yield _finding(key, problem, "the file that was written")
        yield from self._strangers(frozenset(keys))

    def _problem(self, key: str) -> str:
        """What is wrong with a file; empty if nothing is."""
        expected = self.manifest.digests.get(key)
        try:
            if expected is None:
                self.num_without_digest += 1
                return self._problem_of_parquet(key) if key.endswith(".parquet") else ""
            digest = digest_of(self.store, key)
            return "" if digest == expected else f"bytes with digest {digest}"
        except ObjectMissing:
            return "nothing"
        except UNREADABLE as error:
            return f"a file that cannot be read ({type(error).__name__}: {error})"

    def _problem_of_parquet(self, key: str) -> str:
        with fetched(self.store, key) as (body, _):
            for _ in pq.ParquetFile(body, page_checksum_verification=True).iter_batches():
                pass  # each page against its checksum
            return next(footer_problems(body), "")

    def _strangers(self, keys: frozenset[str]) -> Iterator[Finding]:
        """Files in the folders of streams, which readers of `*.parquet` would take for rows."""
        for folder in sorted({key.rpartition("/")[0] for key in keys} - {""}):
            for entry in self.store.list_folder(folder):
                if entry.key not in keys and self.manifest.digests:
                    yield _finding(entry.key, "a file", "none of this name, by manifest.json")


def _finding(key: str, problem: str, expected: str) -> Finding:
    return Finding(shard=None, key=key, found=problem, expected=expected, advice=_ADVICE)


def _digest(manifest: SetManifest) -> str:
    said = manifest.model_dump(mode="json", exclude={"digest"})
    return hashlib.sha256(canonical_json(said).encode()).hexdigest()
