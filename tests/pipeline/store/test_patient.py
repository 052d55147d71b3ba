"""A store that waits for the one behind it: how long, for what, and what others see meanwhile."""

import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from pipeline.store import patient as patient_module
from pipeline.store.objects import Entry, Source, Store
from pipeline.store.open import open_store
from pipeline.store.patient import PatientStore, patient_store
from pipeline.store.trouble import deadlines
from schemas.errors import (
    CredentialsRefused,
    ObjectMissing,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)
from tests.pipeline.store.test_objects import FakeTime
from tests.support import Unanswered, Wrapped, fake_config, plan_run

WAIT_SECONDS = 20.0  # for another thread; only a bug takes so long

Call = Callable[[Store], Any]
VERBS: dict[str, Call] = {
    "read": lambda store: store.read("folder/key"),
    "read_range": lambda store: store.read_range("folder/key", 1, 3),
    "size": lambda store: store.size("folder/key"),
    "list_folder": lambda store: list(store.list_folder("folder")),
    "list_subfolders": lambda store: list(store.list_subfolders("")),
    "put": lambda store: store.put("folder/other", b"another body"),
    "put_if_absent": lambda store: store.put_if_absent("folder/other", b"another body"),
    "delete": lambda store: store.delete("folder/key"),
}
each_verb = pytest.mark.parametrize("verb", VERBS)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "store"))
    store.put("folder/key", b"a body")
    return store


class Failing(Wrapped):
    """Every verb fails so many times, and does nothing; then it does what it should."""

    def __init__(self, store: Store, num_failures: float, error: StoreError) -> None:
        super().__init__(store)
        self.num_failures, self.error = num_failures, error
        self.num_calls = 0

    def __getattr__(self, name: str) -> Any:
        if name not in VERBS:
            return super().__getattr__(name)
        self.num_calls += 1
        if self.num_calls > self.num_failures:
            return super().__getattr__(name)
        return self.fail

    def fail(self, *_: object) -> Any:
        raise self.error


def patient(store: Store, time: FakeTime, patience_seconds: float = 600) -> PatientStore:
    return PatientStore(
        store, patience_seconds=patience_seconds, sleep=time.sleep, clock=time.clock
    )


@each_verb
@pytest.mark.parametrize("error", [StoreUnavailable("down"), CredentialsRefused("expired")])
def test_a_call_is_made_again_until_the_store_is_back(
    store: Store, tmp_path: Path, verb: str, error: StoreError
):
    other = open_store(str(tmp_path / "other"))
    other.put("folder/key", b"a body")
    time, failing = FakeTime(), Failing(store, 3, error)

    answer = VERBS[verb](patient(failing, time))

    assert answer == VERBS[verb](other)
    assert failing.num_calls == 4
    assert len(time.pauses) == 3
    keys = [{entry.key for entry in either.list_folder("folder")} for either in (store, other)]
    assert keys[0] == keys[1]


@each_verb
def test_patience_ends_with_the_stores_own_error(store: Store, verb: str):
    time = FakeTime()

    with pytest.raises(CredentialsRefused, match=r"^expired \(call \d+, after 600 s\)$"):
        VERBS[verb](patient(Failing(store, 10**6, CredentialsRefused("expired")), time))

    assert sum(time.pauses) == pytest.approx(600)


@each_verb
def test_patience_is_counted_anew_for_each_call(store: Store, verb: str):
    time, failing = FakeTime(), Failing(store, 10**6, StoreUnavailable("down"))
    waiting = patient(failing, time, patience_seconds=2)
    with pytest.raises(StoreUnavailable, match="after 2 s"):
        VERBS[verb](waiting)

    failing.num_failures = failing.num_calls + 2  # pauses of 0.5 and 1 second at most
    VERBS[verb](waiting)

    assert failing.num_calls == failing.num_failures + 1


@each_verb
@pytest.mark.parametrize("error", [ObjectMissing("nothing there"), StoreRefused("read-only")])
def test_what_waiting_cannot_mend_passes_at_once(store: Store, verb: str, error: StoreError):
    time = FakeTime()

    with pytest.raises(type(error), match=f"^{error}$"):
        VERBS[verb](patient(Failing(store, 1, error), time))

    assert time.pauses == []


class CutShort(Wrapped):
    """The first listing ends in the middle."""

    num_lists = 0

    def list_folder(self, folder: str) -> Iterator[Entry]:
        self.num_lists += 1
        for entry in self.store.list_folder(folder):
            yield entry
            if self.num_lists == 1:
                raise StoreUnavailable("the second page did not come")


def test_a_listing_that_breaks_off_begins_anew_and_names_nothing_twice(store: Store):
    store.put("folder/other", b"another body")

    keys = [entry.key for entry in patient(CutShort(store), FakeTime()).list_folder("folder")]

    assert sorted(keys) == ["folder/key", "folder/other"]


class Noting(Unanswered):
    """Remembers what was put."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.puts: list[tuple[str, bytes]] = []

    def put_if_absent(self, key: str, source: Source) -> bool:
        self.puts.append((key, source.read_bytes() if isinstance(source, Path) else source))
        return super().put_if_absent(key, source)


def test_an_unanswered_put_is_made_again_with_the_same_bytes_and_its_false_is_passed_on(
    store: Store, tmp_path: Path
):
    noting, file = Noting(store), tmp_path / "file"
    file.write_bytes(b"mine")

    assert patient(noting, FakeTime()).put_if_absent("new", file) is False

    assert noting.puts == [("new", b"mine")] * 2
    assert store.read("new") == b"mine"


def test_a_call_of_several_verbs_is_done_anew_as_a_whole(store: Store):
    blinking = WithoutReads(store)
    steps: list[str] = []

    def call(inner: Store) -> bytes:
        steps.append("put")
        inner.put("folder/other", b"another body")
        steps.append("read")
        blinking.is_away = len(steps) < 6
        return inner.read("folder/key")

    assert patient(blinking, FakeTime()).patiently(call) == b"a body"
    assert steps == ["put", "read"] * 3


def test_a_call_of_several_verbs_does_not_wait_once_for_each(store: Store):
    time = FakeTime()
    waiting = patient(Failing(store, 10**6, StoreUnavailable("down")), time)

    with pytest.raises(StoreUnavailable, match=r"^down \(call \d+, after 600 s\)$"):
        waiting.patiently(lambda inner: inner.read("folder/key") + inner.read("folder/key"))

    assert sum(time.pauses) == pytest.approx(600)


class Gate:
    """A sleep from which no one comes back before the gate is opened."""

    def __init__(self) -> None:
        self.is_asleep, self.is_open = Event(), Event()

    def sleep(self, seconds: float) -> None:
        self.is_asleep.set()
        assert self.is_open.wait(WAIT_SECONDS)


class WithoutReads(Wrapped):
    """Whole objects cannot be read while it is away."""

    is_away = True

    def read(self, key: str) -> bytes:
        if self.is_away:
            raise StoreUnavailable("down")
        return bytes(self.store.read(key))


def test_one_thread_that_waits_holds_up_no_other_and_is_seen(store: Store):
    gate, flaky = Gate(), WithoutReads(store)
    patient = PatientStore(flaky, patience_seconds=600, sleep=gate.sleep)
    bodies: list[bytes] = []
    waiting = Thread(target=lambda: bodies.append(patient.read("folder/key")))
    assert not patient.is_away
    waiting.start()
    assert gate.is_asleep.wait(WAIT_SECONDS)

    assert patient.is_away
    assert patient.size("folder/key") == 6
    patient.put("folder/other", b"another body")
    assert patient.is_away

    flaky.is_away = False
    gate.is_open.set()
    waiting.join(WAIT_SECONDS)
    assert bodies == [b"a body"]
    assert not patient.is_away


def test_a_store_that_was_given_up_on_is_not_waited_for_any_more(store: Store):
    waiting = patient(Failing(store, 10**6, StoreUnavailable("down")), FakeTime())

    with pytest.raises(StoreUnavailable):
        waiting.read("folder/key")

    assert not waiting.is_away


def test_it_can_be_pickled_as_every_store(store: Store):
    patient = PatientStore(store, patience_seconds=600)

    copy = pickle.loads(pickle.dumps(patient))

    assert copy.read("folder/key") == b"a body"
    assert copy.url == patient.url == store.url


def test_it_has_every_verb_of_a_store():
    verbs = {name for name in vars(Store) if not name.startswith("_")} - {"url"}

    assert verbs == VERBS.keys()


def test_a_run_says_how_long_its_store_is_waited_for(tmp_path: Path):
    store = open_store(str(tmp_path / "run"))
    manifest = plan_run(store, config=fake_config(store_patience_seconds=0))

    with pytest.raises(StoreUnavailable, match="call 1,"):
        patient_store(Failing(store, 1, StoreUnavailable("down")), manifest).read("run.json")


# Silence


class Silent(Wrapped):
    """Whole objects are read when the gate opens, and not before."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.is_open = Event()
        self.num_reads = 0

    def read(self, key: str) -> bytes:
        self.num_reads += 1
        assert self.is_open.wait(WAIT_SECONDS)
        return bytes(self.store.read(key))


def test_a_call_that_does_not_come_back_is_one_of_a_store_that_is_away(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(deadlines, "SHORTEST_SECONDS", 0.05)
    silent = Silent(store)

    with pytest.raises(StoreUnavailable, match=r"cannot read .*/folder/key: no answer within 0 s"):
        PatientStore(silent, patience_seconds=0).read("folder/key")

    silent.is_open.set()


def test_it_is_asked_again_before_patience_ends(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(deadlines, "SHORTEST_SECONDS", 0.05)
    silent = Silent(store)

    def sleep(seconds: float) -> None:
        silent.is_open.set()

    assert PatientStore(silent, patience_seconds=1, sleep=sleep).read("folder/key") == b"a body"
    assert silent.num_reads == 2


def test_it_is_told_since_when_it_is_waited_for_and_with_what(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(patient_module, "SLOW_SECONDS", 0.0)
    silent, before = Silent(store), time.time()
    patient = PatientStore(silent, patience_seconds=600)
    reading = Thread(target=patient.read, args=("folder/key",))
    reading.start()
    while (wait := patient.wait) is None:
        time.sleep(0.01)
    silent.is_open.set()
    reading.join(WAIT_SECONDS)

    assert wait.what == "read folder/key"
    assert before <= wait.since <= time.time()
    assert patient.wait is None


def test_what_is_not_waited_for_soon_ends(store: Store):
    silent = Silent(store)

    impatient = PatientStore(silent, patience_seconds=600).impatient

    assert isinstance(impatient, deadlines.BoundedStore)
    assert impatient.seconds == deadlines.SHORTEST_SECONDS
