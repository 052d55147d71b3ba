"""Whose object stands at a shard's key, whatever was lost on the way to it."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.store import layout, objects
from pipeline.store.commits import Commit, commit_shard, record_failed_attempt
from pipeline.store.objects import Source, Store
from pipeline.store.patient import PatientStore
from pipeline.store.traces import read_footer
from schemas.errors import (
    DamagedObject,
    FailureKind,
    ForeignObject,
    StoreRefused,
    StoreUnavailable,
)
from schemas.runs import FailedAttempt, ShardFooter
from tests.support import Unanswered, Wrapped, some_origin, some_trace, write_shard


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "FIRST_PAUSE_SECONDS", 0.001)


class Attempt:
    """A finished shard file, ready to be committed."""

    def __init__(self, path: Path, run_id: str = "some-run", fingerprint: str = "a-method") -> None:
        self.path = path
        origin = some_origin(run_id=run_id, fingerprint=fingerprint)
        self.footer: ShardFooter = write_shard(path, some_trace(), origin=origin)

    def commit(self, store: Store, patience_seconds: float = 5) -> Commit:
        patient = PatientStore(store, patience_seconds=patience_seconds)
        return commit_shard(patient, self.path, self.footer)


@pytest.fixture
def first(tmp_path: Path) -> Attempt:
    return Attempt(tmp_path / "first.parquet")


@pytest.fixture
def second(tmp_path: Path) -> Attempt:
    return Attempt(tmp_path / "second.parquet")


def test_the_first_attempt_wins_and_stands(store: Store, first: Attempt, second: Attempt):
    assert first.commit(store) is Commit.WON
    assert second.commit(store) is Commit.LOST

    assert store.read(layout.traces_key(0)) == first.path.read_bytes()
    assert read_footer(store, 0) == first.footer


def test_an_attempt_may_be_committed_twice(store: Store, first: Attempt):
    assert [first.commit(store), first.commit(store)] == [Commit.WON, Commit.WON]


def test_a_put_that_landed_without_an_answer_has_won(store: Store, first: Attempt):
    assert first.commit(Unanswered(store)) is Commit.WON
    assert store.read(layout.traces_key(0)) == first.path.read_bytes()


class Overtaken(Wrapped):
    """The answer to the first put is lost, and another attempt's object stands there."""

    def __init__(self, store: Store, other: Attempt) -> None:
        super().__init__(store)
        self.other = other

    def put_if_absent(self, key: str, source: Source) -> bool:
        if self.store.put_if_absent(key, self.other.path):
            raise StoreUnavailable("the answer was lost")
        return bool(self.store.put_if_absent(key, source))


def test_an_unanswered_put_that_another_attempt_overtook_has_lost(
    store: Store, first: Attempt, second: Attempt
):
    assert second.commit(Overtaken(store, first)) is Commit.LOST
    assert read_footer(store, 0) == first.footer


class Down(Wrapped):
    """Unavailable for so many calls, then well again. Nothing lands while it is down."""

    def __init__(self, store: Store, num_calls: int) -> None:
        super().__init__(store)
        self.num_calls = num_calls

    def put_if_absent(self, key: str, source: Source) -> bool:
        if self.num_calls:
            self.num_calls -= 1
            raise StoreUnavailable("down")
        return bool(self.store.put_if_absent(key, source))


def test_a_store_that_comes_back_in_time_gets_the_shard(store: Store, first: Attempt):
    assert first.commit(Down(store, 3)) is Commit.WON
    assert read_footer(store, 0) == first.footer


def test_a_store_that_stays_away_ends_the_patience(store: Store, first: Attempt):
    with pytest.raises(StoreUnavailable):
        first.commit(Down(store, 10**6), patience_seconds=0.01)


def test_a_store_that_says_no_is_not_asked_again(store: Store, first: Attempt):
    class Refusing(Wrapped):
        def put_if_absent(self, key: str, source: Source) -> bool:
            raise StoreRefused("read-only")

    with pytest.raises(StoreRefused, match="read-only"):
        first.commit(Refusing(store), patience_seconds=10**6)


@pytest.mark.parametrize("other", [{"run_id": "another-run"}, {"fingerprint": "another-method"}])
def test_an_object_of_another_run_stops_everything(
    store: Store, tmp_path: Path, first: Attempt, other: dict[str, str]
):
    foreign = Attempt(tmp_path / "foreign.parquet", **other)
    foreign.commit(store)

    with pytest.raises(ForeignObject, match="two runs share a folder") as refused:
        first.commit(store)

    assert refused.value.reason == "foreign_object"
    assert read_footer(store, 0) == foreign.footer


def parquet_without_a_footer(path: Path) -> bytes:
    pq.write_table(pa.table({"prompt": ["a red cube"]}), path)
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["empty", "text", "cut short", "parquet"])
def test_an_object_that_is_no_shard_file_stops_everything(
    store: Store, tmp_path: Path, first: Attempt, kind: str
):
    body = {
        "empty": b"",
        "text": b"not Parquet at all",
        "cut short": first.path.read_bytes()[:-100],
        "parquet": parquet_without_a_footer(tmp_path / "other.parquet"),
    }[kind]
    store.put(layout.traces_key(0), body)

    with pytest.raises(DamagedObject, match=r"coppice repair .* --shards 0") as refused:
        first.commit(store)

    assert refused.value.reason == "damaged_object"
    assert store.read(layout.traces_key(0)) == body


class Blinking(Wrapped):
    """Unavailable to the first read."""

    is_reading = False

    def read_range(self, key: str, start: int, length: int) -> bytes:
        if not self.is_reading:
            self.is_reading = True
            raise StoreUnavailable("blink")
        return bytes(self.store.read_range(key, start, length))


def test_an_object_that_cannot_be_read_now_is_read_later(
    store: Store, first: Attempt, second: Attempt
):
    first.commit(store)

    assert second.commit(Blinking(store)) is Commit.LOST


def test_shards_do_not_compete(store: Store, tmp_path: Path, first: Attempt):
    origin = some_origin(run_id="some-run", fingerprint="a-method", shard=1)
    footer = write_shard(tmp_path / "other.parquet", some_trace(), origin=origin)

    assert first.commit(store) is Commit.WON
    patient = PatientStore(store, patience_seconds=0)
    assert commit_shard(patient, tmp_path / "other.parquet", footer) is Commit.WON


def test_how_an_attempt_failed_is_kept_with_its_shard(store: Store):
    note = FailedAttempt(
        shard=7,
        attempt_id="abc",
        attempt=2,
        kind=FailureKind.TASK,
        reason="worker",
        message='it said "caf\u00e9"\n',
        worker="some-worker",
        ended_at="2026-01-01T00:00:00+00:00",
    )

    record_failed_attempt(store, note)

    (entry,) = store.list_folder("_attempts/shard-00007")
    assert FailedAttempt.model_validate_json(store.read(entry.key)) == note
