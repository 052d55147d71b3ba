"""Stores that fail at the n-th call, in each way that a store can, under everything that writes."""

import errno
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.store import objects
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from schemas.errors import StoreUnavailable
from tests.chaos.ledger import Ledger, tokens_in
from tests.chaos.lines import Work
from tests.support import Wrapped

_LISTS = ("list_folder", "list_subfolders")
_VERBS = ("read", "read_range", "size", *_LISTS, "put", "put_if_absent", "delete")


class Harm(StrEnum):
    """What becomes of one call."""

    AWAY = "the store is away"  # nothing was done
    UNANSWERED = "an answer is lost"  # all was done
    LATE = "a put lands late"  # after its caller was told that it failed, and did something else
    FULL = "the disk is full"  # half of a file was written


class Harmed(Wrapped):
    """Does what another store does, but for one call."""

    def __init__(self, store: Store, harm: Harm, number: int) -> None:
        super().__init__(store)
        self.harm = harm
        self.number = number
        self.num_calls = 0
        self.late: list[Callable[[], object]] = []

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self.store, name)
        return partial(self._call, name, verb) if name in _VERBS else verb

    @property
    def was_harmed(self) -> bool:
        return self.num_calls >= self.number

    def _call(self, name: str, verb: Callable[..., Any], *arguments: Any) -> Any:
        self.num_calls += 1
        if self.num_calls != self.number:
            answer = verb(*arguments)
            while self.late:
                self.late.pop()()
            return answer
        if self.harm is Harm.FULL:
            self._fill(verb, arguments)
        elif self.harm is Harm.UNANSWERED:
            verb(*arguments)
        elif self.harm is Harm.LATE and name.startswith("put"):
            key, source = arguments
            body = source.read_bytes() if isinstance(source, Path) else source
            self.late.append(lambda: verb(key, body))
        raise StoreUnavailable(f"told to fail at call {self.number} ({name})")

    def _fill(self, verb: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """Have the system say that there is no room, at the sync of a half-written file."""
        real = os.fsync

        def full(handle: int) -> None:
            os.fsync = real
            os.ftruncate(handle, 1)
            raise OSError(errno.ENOSPC, "No space left on device")

        os.fsync = full
        try:
            verb(*arguments)
        finally:
            os.fsync = real


def fail_at_every_call(ledger: Ledger, work: Work, harm: Harm, *, step: int = 1) -> None:
    """Do the work as often as it calls the store, with one failed call each time, then finish."""
    objects.FIRST_PAUSE_SECONDS = 0.001
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        whole = open_store(f"{folder}/whole")
        for part in (work.prepare, work.do, work.finish):
            part(whole)
        expected = tokens_in(whole)
        number = 1
        while True:
            store = open_store(f"{folder}/{number}")
            work.prepare(store)
            harmed = Harmed(store, harm, number)
            with ledger.injecting(str(harm)):
                with suppress(StoreUnavailable):  # the command ends with exit 7: give it again
                    work.do(harmed)
                work.finish(store)
            ledger.check(store, expected, f"{harm} in {work.kind}, call {number}")
            if not harmed.was_harmed:
                ledger.faults[str(harm)] -= 1  # the work has fewer calls than that
                return
            number += step
