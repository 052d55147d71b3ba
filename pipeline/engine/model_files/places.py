"""From the name of a model to a folder: bundled, a folder, on the hub, or in a bucket.

Planning needs no weights and gets a name that means the same on every node and tomorrow; a node
gets them all.
"""

import platform
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.engine.model_files import hub
from pipeline.engine.model_files.digests import sha256_of
from pipeline.engine.model_files.listing import Folder, checkpoint_files
from pipeline.engine.tiny import tiny_checkpoint
from pipeline.store.trouble.scratch import scratch_folder
from schemas.errors import InputError

_HUB_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+))?", re.ASCII)  # owner/name, @revision
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BUCKET = "s3://"


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedCheckpoint:
    """What planning knows of a model's files."""

    folder: Path  # of weights on the hub only headers: holes for the rest
    name: str  # finds the same files on any node
    is_bundled: bool
    take_digests: Callable[[], dict[str, str]]  # as `file_digests`: reads every weight of a folder


def _toy_checkpoint() -> Path:
    """The folder of the bundled trained model: package data, made by `pipeline.toy.training`."""
    return Path(__file__).parents[2] / "toy" / "weights"


_BUNDLED = {"toy": _toy_checkpoint, "tiny": tiny_checkpoint}


@contextmanager
def planned_checkpoint(name: str) -> Iterator[PlannedCheckpoint]:
    """Find a model for planning. Its folder may end with the `with`.

    Raises InputError, of what is raised within the `with` under the model's own name.
    """
    with scratch_folder() as scratch:
        planned = _planned(name, scratch)
        try:
            yield planned
        except InputError as error:
            raise InputError(str(error).replace(str(planned.folder), planned.name)) from error


def _planned(name: str, scratch: Path) -> PlannedCheckpoint:
    if name in _BUNDLED:
        return replace(_in_folder(_BUNDLED[name](), name), is_bundled=True)
    if name.startswith(_BUCKET):
        return _in_folder(find_checkpoint(name), name.rstrip("/"))
    if folder := _as_folder(name):
        return _in_folder(folder, str(_absolute(folder)))
    if hub_id := _HUB_ID.fullmatch(name):
        return _on_hub(hub_id[1], hub_id[2], scratch)
    raise _unknown(name)


def find_checkpoint(name: str, files: Sequence[str] = ()) -> Path:
    """The folder of a model with all its weights: see `resolve_checkpoint`.

    `files` are those that the model was planned with, where that is known.
    """
    if name in _BUNDLED:
        return _BUNDLED[name]()
    if name.startswith(_BUCKET):
        from pipeline.engine.model_files.buckets import fetch_from_bucket

        return fetch_from_bucket(name)
    if folder := _as_folder(name):
        return folder
    if hub_id := _HUB_ID.fullmatch(name):
        return hub.download(hub_id[1], hub_id[2], files)
    raise _unknown(name)


def _unknown(name: str) -> InputError:
    if (path := Path(name)).is_file():
        return InputError(f"{name!r} is a file; give the folder that it lies in: {path.parent}")
    where = f" on {platform.node()}" if path.is_absolute() else ""
    return InputError(
        f"{name!r} is not a folder{where} and not the name of a model; give a folder that every "
        "node has, a hub id such as deepseek-ai/Janus-Pro-1B, s3://bucket/folder, "
        f"or one of: {', '.join(_BUNDLED)}"
    )


def file_digests(folder: Path) -> dict[str, str]:
    """Hex sha256 of each file that a model in a folder is computed with, in order. InputError."""
    names = checkpoint_files(Folder(folder)).computed_with
    return {name: sha256_of(folder / name) for name in names}


def _in_folder(folder: Path, name: str) -> PlannedCheckpoint:
    return PlannedCheckpoint(
        folder=folder,
        name=name,
        is_bundled=False,
        take_digests=lambda: file_digests(folder),
    )


def _as_folder(name: str) -> Path | None:
    try:
        folder = Path(name).expanduser()
        return folder if name and folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long, of nobody, with a null in it
        return None


def _absolute(folder: Path) -> Path:
    """The same folder from any other. A link stays one: nodes may each have their own."""
    return folder.resolve() if ".." in folder.parts else folder.absolute()


def _on_hub(repo_id: str, revision: str | None, scratch: Path) -> PlannedCheckpoint:
    try:
        repository = hub.open_repository(repo_id, revision)
    except InputError:
        folder = hub.downloaded(repo_id, revision)
        if folder is None or not _COMMIT.fullmatch(folder.name) or not _is_whole(folder):
            raise
        return _in_folder(folder, f"{repo_id}@{folder.name}")
    files = checkpoint_files(repository)
    for name in (*files.small, *files.beside):
        _under(scratch, name).write_bytes(repository.read(name))
    for name in files.weights:
        repository.fetch_header(name, _under(scratch, name))
    return PlannedCheckpoint(
        folder=scratch,
        name=repository.label,
        is_bundled=False,
        take_digests=lambda: {name: repository.sha256(name) for name in files.computed_with},
    )


def _is_whole(folder: Path) -> bool:
    """Whether no file of the model is missing. Planning alone leaves the small ones."""
    try:
        return bool(checkpoint_files(Folder(folder)))
    except InputError:
        return False


def _under(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
