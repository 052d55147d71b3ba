"""A repository on the Hugging Face hub as a source: its files, and their headers without the rest.

Planning fetches no weights: the hub knows the sha256 of every large file, and of each only the
header is read. The commit is found once and named from then on, so that a branch that moves
changes no run.
"""

import io
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.engine.model_files.digests import sha256_of
from pipeline.engine.model_files.listing import CONFIG
from schemas.errors import InputError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PATTERNS = ["*.json", "*.safetensors", "pytorch_model*.bin"]  # where no files are named
_MOST_HEADER_BYTES = 100_000_000  # as safetensors has it
_READ_AHEAD_BYTES = 64 * 1024  # of a zip file's directory
_MOST_RECORD_BYTES = 100_000_000
_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class HubFile:
    """A file of a repository, as the hub describes it."""

    num_bytes: int
    sha256: str | None  # of large files; the hub keeps no sha256 of small ones


class HubRepository:
    """One commit of a repository."""

    def __init__(self, repo_id: str, commit: str, files: Mapping[str, HubFile]) -> None:
        self._repo_id, self._commit, self._files = repo_id, commit, files

    @property
    def label(self) -> str:
        """What a run calls it: with the commit, it means the same everywhere and tomorrow."""
        return f"{self._repo_id}@{self._commit}"

    def names(self) -> Collection[str]:
        return [name for name in self._files if "/" not in name]

    def has(self, name: str) -> bool:
        return name in self._files

    def read(self, name: str) -> bytes:
        return self.fetch(name).read_bytes()

    def fetch(self, name: str) -> Path:
        """The whole file on this machine."""
        from huggingface_hub import hf_hub_download

        with _asking(self.label):
            return Path(hf_hub_download(self._repo_id, name, revision=self._commit))

    def sha256(self, name: str) -> str:
        """The hub's own, where it has one; else the file is small, and fetched for it."""
        return self._files[name].sha256 or sha256_of(self.fetch(name))

    def fetch_header(self, name: str, path: Path) -> None:
        """Write the header of a file of weights into a file of its size, with holes for the rest.

        What reads headers cannot tell it from the whole file.
        """
        file = self._files[name]
        if file.sha256 is None:
            path.write_bytes(self.read(name))
            return
        with _asking(self.label), path.open("wb") as copy:
            copy.truncate(file.num_bytes)
            remote = _RemoteFile(self._url(name), file.num_bytes, copy)
            if path.suffix == ".safetensors":
                _read_header(remote)
            else:
                _read_zip_records(remote)

    def _url(self, name: str) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self._repo_id, name, revision=self._commit)


def open_repository(repo_id: str, revision: str | None) -> HubRepository:
    """What the hub has at a revision now, by its commit. Raises InputError."""
    from huggingface_hub import HfApi

    label = f"{repo_id}@{revision}" if revision else repo_id
    with _asking(label):
        info = HfApi().model_info(
            repo_id, revision=revision, files_metadata=True, timeout=_TIMEOUT_SECONDS
        )
    files = {
        sibling.rfilename: HubFile(
            num_bytes=sibling.size or 0, sha256=sibling.lfs.sha256 if sibling.lfs else None
        )
        for sibling in info.siblings or ()
    }
    return HubRepository(repo_id, info.sha or revision or "main", files)


def download(repo_id: str, revision: str | None, names: Sequence[str] = ()) -> Path:
    """The folder of a repository with these files, or with all that a model could need.

    Fetches what is not on this machine yet; works without the hub where nothing is to be fetched.
    Raises InputError.
    """
    from huggingface_hub import snapshot_download

    with _asking(f"{repo_id}@{revision}" if revision else repo_id):
        folder = snapshot_download(
            repo_id, revision=revision, allow_patterns=list(names) or _PATTERNS
        )
    return Path(folder)


def downloaded(repo_id: str, revision: str | None) -> Path | None:
    """The folder of a repository as far as it is on this machine, or None. Asks no one."""
    from huggingface_hub import try_to_load_from_cache

    try:
        config = try_to_load_from_cache(repo_id, CONFIG, revision=revision)
    except ValueError:  # no name that a repository can have
        return None
    return Path(config).parent if isinstance(config, str) else None


@contextmanager
def _asking(label: str) -> Iterator[None]:
    """What goes wrong on the way to the hub is one sentence."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # offline, unknown, private, disk full: the advice is the same
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{label!r} is not a folder, and could not be fetched from the Hugging Face hub "
            f"({reason}); check the name and the network, run `hf auth login` if it is private, "
            "or give a folder that holds the model"
        ) from error


class _RemoteFile(io.RawIOBase):
    """A file behind a URL, read in ranges. What is read is written into a copy, in its place."""

    def __init__(self, url: str, num_bytes: int, copy: io.BufferedWriter) -> None:
        self._url, self._num_bytes, self._copy = url, num_bytes, copy
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._num_bytes}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer).cast("B")
        length = min(len(view), self._num_bytes - self._position)
        if length < 1:
            return 0
        data = _read_range(self._url, self._position, length)
        self._copy.seek(self._position)
        self._copy.write(data)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


def _read_range(url: str, start: int, length: int) -> bytes:
    """Never more than `length` bytes, also of a server that knows no ranges."""
    from huggingface_hub import get_session, get_token, hf_raise_for_status

    headers = {"Range": f"bytes={start}-{start + length - 1}"}
    if token := get_token():
        headers["Authorization"] = f"Bearer {token}"
    with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_SECONDS) as answer:
        hf_raise_for_status(answer)
        if answer.status_code != 206:
            raise OSError(f"{url} cannot be read in ranges (status {answer.status_code})")
        data = b""
        for piece in answer.iter_bytes():
            data += piece
            if len(data) >= length:
                break
    if len(data) < length:
        raise OSError(f"{url} ends early: {len(data)} of {length} bytes at {start}")
    return data[:length]


def _read_header(file: io.RawIOBase) -> None:
    """Pass over the header of a safetensors file: its length in 8 bytes, then as many."""
    length = int.from_bytes(file.read(8) or b"", "little")
    if length > _MOST_HEADER_BYTES:
        return  # what reads headers will say so
    left = length
    while left and (data := file.read(left)):
        left -= len(data)


def _read_zip_records(file: io.RawIOBase) -> None:
    """Pass over all of a `torch.save` file but the weights: its directory and small records."""
    buffered = io.BufferedReader(file, _READ_AHEAD_BYTES)
    try:
        with zipfile.ZipFile(buffered) as archive:
            for record in archive.infolist():
                is_weight = "/data/" in record.filename
                if not is_weight and record.file_size <= _MOST_RECORD_BYTES:
                    archive.read(record)
    except (zipfile.BadZipFile, NotImplementedError):
        return  # what reads headers will say so
