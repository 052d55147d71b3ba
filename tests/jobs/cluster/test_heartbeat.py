"""Who drives: one at a time, without a clock that two machines would have to share."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.cluster.heartbeat import Beat, DriverHeartbeat, DriverNote
from pipeline.store import layout
from pipeline.store.objects import Source, Store
from pipeline.store.open import open_store
from pipeline.store.patient import PatientStore
from schemas.errors import DriverAlive, ObjectMissing, StoreUnavailable
from tests.support import Unanswered, Wrapped


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def no_sleep(seconds: float) -> None:
    """Time stands still."""


def heartbeat(
    store: Store, sleep: Callable[[float], None] = no_sleep, beat_seconds: float = 60
) -> DriverHeartbeat:
    patient = PatientStore(store, patience_seconds=5)
    return DriverHeartbeat(patient, beat_seconds=beat_seconds, sleep=sleep)


def leave_driver(store: Store, number: int, count: int = 7, *, is_over: bool = False) -> DriverNote:
    note = DriverNote(
        driver_id=f"driver-{number}",
        host="some-node",
        pid=41,
        beat_seconds=2.0,
        started_at="2026-01-01T00:00:00+00:00",
    )
    store.put(layout.driver_key(number), note.model_dump_json().encode())
    beat = Beat(count=count, is_over=is_over)
    store.put(layout.beat_key(number), beat.model_dump_json().encode())
    return note


def beat_of(store: Store, number: int) -> Beat:
    return Beat.model_validate_json(store.read(layout.beat_key(number)))


def test_the_first_driver_takes_the_first_number_and_leaves_it_free(store: Store):
    with heartbeat(store):
        assert not beat_of(store, 1).is_over
    assert beat_of(store, 1).is_over

    with heartbeat(store):
        assert beat_of(store, 2).count == 1


def test_a_driver_that_beats_is_named(store: Store):
    leave_driver(store, 3)

    def beating(seconds: float) -> None:
        assert seconds == 2.0
        leave_driver(store, 3, count=8)

    with pytest.raises(DriverAlive, match="process 41 on some-node"), heartbeat(store, beating):
        pass


def test_a_driver_that_was_killed_is_followed_after_three_silent_beats(store: Store):
    leave_driver(store, 3)
    waited: list[float] = []

    with heartbeat(store, waited.append):
        assert beat_of(store, 4).count == 1
    assert waited == [2.0, 2.0, 2.0]


def test_a_driver_that_ends_while_it_is_watched_is_followed_at_once(store: Store):
    leave_driver(store, 1)

    with heartbeat(store, lambda seconds: leave_driver(store, 1, count=9, is_over=True) and None):
        assert beat_of(store, 2).count == 1


def test_a_driver_that_wakes_after_another_took_over_must_stop(store: Store):
    with heartbeat(store, beat_seconds=0.01) as first:
        first.check()
        leave_driver(store, 2)
        first._thread.join(10)
        with pytest.raises(DriverAlive, match="took over"):
            first.check()
    assert not beat_of(store, 1).is_over


def test_of_many_at_once_one_drives(store: Store):
    start, held = threading.Barrier(8), threading.Event()
    ends: list[str] = []

    def drive() -> None:
        start.wait()
        try:
            with heartbeat(store, time.sleep, beat_seconds=0.05):
                ends.append("drove")
                held.wait()
        except DriverAlive:
            ends.append("refused")
            if ends.count("refused") == 7:
                held.set()

    threads = [threading.Thread(target=drive) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == ["drove"] + ["refused"] * 7


def test_a_number_whose_answer_was_lost_is_the_drivers_own(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pipeline.store.objects.FIRST_PAUSE_SECONDS", 0.001)

    with heartbeat(Unanswered(store)):
        assert beat_of(store, 1).count == 1


class BeatLess(Wrapped):
    """A store that takes no beats."""

    def put(self, key: str, source: Source) -> None:
        raise StoreUnavailable("away")


def test_a_store_that_is_away_ends_no_driver(store: Store):
    with heartbeat(BeatLess(store), beat_seconds=0.01) as first:
        threading.Event().wait(0.1)
        first.check()
    with pytest.raises(ObjectMissing):
        beat_of(store, 1)
