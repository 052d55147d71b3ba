"""Calls that may never come back: of a server that accepts and is silent, of a disk that hangs."""

import _thread
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from pipeline.store.objects import Entry, Source, Store, join_key
from schemas.errors import StoreUnavailable

SHORTEST_SECONDS = 5.0  # that any call is given: a busy machine takes its time, too
_SLOWEST_BYTES_PER_SECOND = 256 * 1024  # of a put

T = TypeVar("T")


_idle: list["queue.SimpleQueue[Callable[[], None]]"] = []  # of threads that wait for a call
os.register_at_fork(after_in_child=_idle.clear)  # which has none of them


def within(call: Callable[[], T], seconds: float, failure: str) -> T:
    """What a call answers. Raises StoreUnavailable, saying `failure`, if it is still under way.

    It goes on in a thread that holds up no exit, and may yet do what was asked of it: what a store
    promises of a call that went unanswered holds for it. Ctrl-C is heard meanwhile.
    """
    answers: list[T] = []
    errors: list[BaseException] = []
    is_over = threading.Event()

    def work() -> None:
        try:
            answers.append(call())
        except BaseException as error:  # whatever it is, it is the caller's
            errors.append(error)
        finally:
            is_over.set()

    _thread_for_calls().put(work)
    if not is_over.wait(seconds):
        raise StoreUnavailable(
            f"{failure}: no answer within {seconds:.0f} s; check that what is behind it is up"
        )
    for error in errors:
        raise error
    return answers[0]


def _thread_for_calls() -> "queue.SimpleQueue[Callable[[], None]]":
    """A thread that is free, by what it takes calls from.

    It is kept for the next call: a process without memory can start none, and has to tell why it
    fails. `threading.Thread.start` would wait for ever for one that ends before it begins.
    """
    with suppress(IndexError):
        return _idle.pop()
    calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    _thread.start_new_thread(_serve, (calls,))
    return calls


def _serve(calls: "queue.SimpleQueue[Callable[[], None]]") -> None:
    while True:
        calls.get()()
        _idle.append(calls)


@dataclass(frozen=True, slots=True)
class BoundedStore:
    """A store whose every verb answers within some seconds, a put of much in some more."""

    store: Store
    seconds: float

    @property
    def url(self) -> str:
        return self.store.url

    def read(self, key: str) -> bytes:
        return self._within("read", key, partial(self.store.read, key))

    def read_range(self, key: str, start: int, length: int) -> bytes:
        return self._within("read", key, partial(self.store.read_range, key, start, length))

    def size(self, key: str) -> int:
        return self._within("read", key, partial(self.store.size, key))

    def list_folder(self, folder: str) -> Iterator[Entry]:
        return iter(self._within("list", folder, lambda: list(self.store.list_folder(folder))))

    def list_subfolders(self, folder: str) -> Iterator[str]:
        return iter(self._within("list", folder, lambda: list(self.store.list_subfolders(folder))))

    def put(self, key: str, source: Source) -> None:
        self._within("put", key, partial(self.store.put, key, source), _num_bytes(source))

    def put_if_absent(self, key: str, source: Source) -> bool:
        call = partial(self.store.put_if_absent, key, source)
        return self._within("put", key, call, _num_bytes(source))

    def delete(self, key: str) -> None:
        self._within("delete", key, partial(self.store.delete, key))

    def _within(self, operation: str, key: str, call: Callable[[], T], num_bytes: int = 0) -> T:
        seconds = max(self.seconds, SHORTEST_SECONDS) + num_bytes / _SLOWEST_BYTES_PER_SECOND
        return within(call, seconds, f"cannot {operation} {join_key(self.url, key)}")


def _num_bytes(source: Source) -> int:
    return source.stat().st_size if isinstance(source, Path) else len(source)
