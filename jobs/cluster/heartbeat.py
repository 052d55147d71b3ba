"""Who drives a run. Advisory: it saves work, and data stay right without it.

A driver takes the next number under `_drivers` and beats a counter. A newcomer watches the beat of
the highest number on its own clock: if it moves, another driver is alive; if it stands still, that
driver is gone, killed without a word perhaps, and the newcomer takes the next number.
"""

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Self

from pydantic import Field

from pipeline.file_names import quoted
from pipeline.store import layout
from pipeline.store.objects import Store
from pipeline.store.patient import PatientStore
from schemas.config import LONGEST_SECONDS, Frozen
from schemas.errors import DriverAlive, ObjectMissing, StoreError, StoreRefused
from schemas.small_files import UnreadableFile, read_small

_SILENT_BEATS = 3  # that a living driver may miss
_DRIVERS_ASKED = 3  # how far they came: one that was killed at its start said nothing


class DriverNote(Frozen):
    """`_drivers/000007.json`: who took that number."""

    driver_id: str
    host: str
    pid: int
    beat_seconds: float = Field(gt=0, le=LONGEST_SECONDS)
    started_at: str  # UTC, ISO 8601; for people


class Beat(Frozen):
    """`_drivers/000007.beat`: a counter that moves while the driver lives."""

    count: int
    is_over: bool = False


class DriverProgress(Frozen):
    """`_drivers/000007.progress`: how far the driver was when it beat last, and all that the work
    of this run took so far, that of drivers before it included.
    """

    told_at: str  # UTC, ISO 8601
    num_finished: int  # rollouts, as the following
    num_planned: int
    num_accepted: int  # since this driver began
    num_revised: int
    dead: dict[str, int]  # by reason
    rollouts_per_second: float  # lately
    num_actors: int
    seconds: dict[str, float]  # by phase and device: "generate gpu"
    tokens: dict[str, int]  # by role
    gpu_share: float  # of a GPU, or how many, that an actor holds
    num_ok_grown: int  # rollouts that came of that work


class ActorPlaces(Frozen):
    """`_drivers/000007.actors`: where a driver's actors are, one line each; for people."""

    actors: tuple[str, ...]


class DriverHeartbeat:
    """A context in which this process drives a run. Raises DriverAlive if another one does."""

    def __init__(
        self,
        store: PatientStore,
        *,
        beat_seconds: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._sleep = sleep
        self._note = DriverNote(
            driver_id=uuid.uuid4().hex,
            host=socket.gethostname(),
            pid=os.getpid(),
            beat_seconds=beat_seconds,
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self._number = 0
        self._count = 0
        self._is_over = threading.Event()
        self._successor: DriverNote | None = None
        self._progress: DriverProgress | None = None

    def __enter__(self) -> Self:
        # All of it anew after an outage: a watch with one in its midst says nothing.
        self._number = self._store.patiently(self._take)
        self._beat()
        self._thread = threading.Thread(target=self._keep_beating, name="beat", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        if self._successor is None:
            self._beat(is_over=True)

    def check(self) -> None:
        """Raises DriverAlive if another driver took over, while this one was frozen say."""
        if self._successor:
            raise DriverAlive(
                f"{_named(self._successor)} took over {self._store.url} while this one stood "
                "still; nothing is lost: it goes on with what is missing"
            )

    def publish(self, actors: Iterable[str]) -> None:
        """Say where the actors are now, in words. A store that is away is not waited for."""
        listed = ActorPlaces(actors=tuple(actors))
        with suppress(StoreError):
            key = layout.actors_key(self._number)
            self._store.impatient.put(key, listed.model_dump_json(indent=1).encode())

    def tell(self, progress: DriverProgress) -> None:
        """Have the next beat say how far the run is."""
        self._progress = progress

    def say_over(self) -> None:
        """Beat for the last time, as a process does that is about to end by force."""
        self._is_over.set()
        self._beat(is_over=True)

    def _take(self, store: Store) -> int:
        """The number that this driver has. Raises DriverAlive if the one before it beats."""
        number = _highest(store)
        while True:
            if number:
                if _try_note(store, number) == self._note:  # a put that went unanswered
                    return number
                self._watch(store, number)
            number += 1
            body = self._note.model_dump_json(indent=1).encode()
            if store.put_if_absent(layout.driver_key(number), body):
                return number

    def _watch(self, store: Store, number: int) -> None:
        """Return if the driver of that number is gone. Raises DriverAlive if it beats."""
        first = _read_beat(store, number)
        if first.is_over:
            return
        note = _try_note(store, number)
        for _ in range(_SILENT_BEATS):
            self._sleep((note or self._note).beat_seconds)
            beat = _read_beat(store, number)
            if beat.is_over:
                return
            if beat != first:
                who = _named(note) if note else f"a process that took number {number}"
                since = f" since {note.started_at}" if note else ""
                raise DriverAlive(
                    f"{who} drives {store.url}{since}; "
                    f"let it end, or stop it, and then: coppice run {quoted(store.url)}"
                )

    def _keep_beating(self) -> None:
        while not self._is_over.wait(self._note.beat_seconds) and self._successor is None:
            self._beat()

    def _beat(self, *, is_over: bool = False) -> None:
        """Beat once, and see whether another driver took over. Waits for no store."""
        self._count += 1
        store = self._store.impatient
        with suppress(StoreError):  # a store that is away; the next beat may come through
            beat = Beat(count=self._count, is_over=is_over)
            store.put(layout.beat_key(self._number), beat.model_dump_json().encode())
            if self._progress:
                progress = self._progress.model_dump_json(indent=1)
                store.put(layout.progress_key(self._number), progress.encode())
            self._successor = _try_note(store, self._number + 1)


def read_newest_driver(store: Store) -> tuple[DriverNote, tuple[str, ...]] | None:
    """Who drives a run, and where its actors are; None if its last driver ended in good order.

    A driver that was killed could not say that it is over.
    """
    number = _highest(store)
    if not number or _read_beat(store, number).is_over:
        return None
    note = _try_note(store, number)
    if note is None:  # it is being written, or of another version
        return None
    with suppress(ObjectMissing, StoreRefused, UnreadableFile):  # it is for people alone
        return note, read_small(store, layout.actors_key(number), ActorPlaces).actors
    return note, ()


def read_newest_progress(store: Store) -> DriverProgress | None:
    """What the newest driver that said anything said last; it may be gone."""
    highest = _highest(store)
    for number in range(highest, max(0, highest - _DRIVERS_ASKED), -1):
        with suppress(ObjectMissing, StoreRefused, UnreadableFile):  # it is for people alone
            return read_small(store, layout.progress_key(number), DriverProgress)
    return None


def _highest(store: Store) -> int:
    """The highest number in the list. It may lag: who takes the next one finds out."""
    keys = (entry.key for entry in store.list_folder(layout.DRIVERS))
    numbers = (layout.try_driver_of(key) for key in keys if key.endswith(".json"))
    return max(filter(None, numbers), default=0)


def _try_note(store: Store, number: int) -> DriverNote | None:
    """Who took a number; None: nobody, or a note that this version cannot read."""
    with suppress(ObjectMissing, UnreadableFile):
        return read_small(store, layout.driver_key(number), DriverNote)
    return None


def _read_beat(store: Store, number: int) -> Beat:
    """What cannot be read does not move: nobody is taken for alive by it."""
    with suppress(ObjectMissing, UnreadableFile):
        return read_small(store, layout.beat_key(number), Beat)
    return Beat(count=0)


def _named(note: DriverNote) -> str:
    return f"process {note.pid} on {note.host}"
