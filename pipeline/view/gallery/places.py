"""Where a gallery goes: a folder of its own, in which `index.html` is written last.

All else stands in a folder that is named after what it shows. So a gallery that is there stays
whole until the new page takes its place, and a killed job leaves the old one as it was.
"""

import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import BoundedSemaphore

from pipeline.store import layout
from pipeline.store.objects import Store
from pipeline.store.patient import PatientStore
from schemas.errors import InputError, ObjectMissing

PAGE = "index.html"
MARK = b'<meta name="generator" content="coppice gallery">'
"""What tells our page from another."""

_FOLDER = re.compile(r"view-[0-9a-f]{16}")
_PATIENCE_SECONDS = 60.0
_PUTS_AT_ONCE = 8
_WAITING = 16  # files in memory until they are put


def check_place(out: Store) -> None:
    """Raises InputError for a place that holds anything but a gallery."""
    foreign = [entry.key for entry in out.list_folder("") if entry.key != PAGE]
    foreign += [
        f"{folder}/"
        for folder in out.list_subfolders("")
        if not _FOLDER.fullmatch(folder) and folder != layout.TEMPORARY
    ]
    if not foreign and not _is_ours(out):
        foreign = [PAGE]
    if foreign:
        raise InputError(
            f"{out.url} holds something else than a gallery ({min(foreign)}); give an empty place"
        )


def folder_of(digest: str) -> str:
    """The folder of a gallery with this digest, of 16 hex digits."""
    return f"view-{digest}"


@contextmanager
def writing(out: Store) -> Iterator["Writer"]:
    """Puts several files at once; when it ends all of them are put, or an error is raised."""
    with ThreadPoolExecutor(_PUTS_AT_ONCE) as pool:
        writer = Writer(out, pool)
        yield writer
        writer.wait()


class Writer:
    """Puts files from several threads, and holds few of them in memory."""

    def __init__(self, out: Store, pool: ThreadPoolExecutor) -> None:
        self._out = PatientStore(out, patience_seconds=_PATIENCE_SECONDS)
        self._pool = pool
        self._room = BoundedSemaphore(_WAITING)
        self._failed: list[BaseException] = []

    def put(self, key: str, body: bytes) -> None:
        """Put a file soon. Raises the error of one before it that could not be put."""
        if self._failed:
            raise self._failed[0]
        self._room.acquire()
        self._pool.submit(self._out.put, key, body).add_done_callback(self._done)

    def wait(self) -> None:
        """Until all is put. Raises the error of what could not be."""
        self._pool.shutdown()
        if self._failed:
            raise self._failed[0]

    def _done(self, future: "Future[None]") -> None:
        if (error := future.exception()) is not None:
            self._failed.append(error)
        self._room.release()


def commit_page(out: Store, page: bytes, folder: str) -> None:
    """Put the page, and delete the folders that an earlier one, or a killed job, had."""
    PatientStore(out, patience_seconds=_PATIENCE_SECONDS).put(PAGE, page)
    for other in list(out.list_subfolders("")):
        if _FOLDER.fullmatch(other) and other != folder:
            _delete_below(out, other)


def _delete_below(out: Store, folder: str) -> None:
    for inner in list(out.list_subfolders(folder)):
        _delete_below(out, inner)
    for entry in list(out.list_folder(folder)):
        out.delete(entry.key)


def _is_ours(out: Store) -> bool:
    """Whether the page that is there is a gallery's; so is none at all."""
    try:
        return MARK in out.read(PAGE)
    except ObjectMissing:
        return True
