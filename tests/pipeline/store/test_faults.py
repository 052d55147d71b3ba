"""The commit of a shard under what goes wrong on the way to S3: nothing lost, nothing twice."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import pytest
from types_boto3_s3 import S3Client

from pipeline.store import layout, objects
from pipeline.store.commits import Commit
from pipeline.store.objects import Store, repeat
from pipeline.store.open import open_store
from pipeline.store.traces import read_footer
from schemas.errors import CredentialsRefused, ObjectMissing, StoreRefused, StoreUnavailable
from tests.faults.proxy import Fault, FaultyProxy, Request
from tests.pipeline.store.conftest import CannedS3
from tests.pipeline.store.test_commits import Attempt

KEY = layout.traces_key(0)
IS_READ = {"method": "GET", "key": KEY}
IS_PUT = {"method": "PUT", "key": KEY}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "FIRST_PAUSE_SECONDS", 0.001)


@pytest.fixture
def proxy(
    s3_url: str, aws_settings: pytest.MonkeyPatch, s3_client: S3Client
) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_client.meta.endpoint_url) as proxy:
        aws_settings.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.fixture
def store(proxy: FaultyProxy, s3_url: str) -> Store:
    return open_store(s3_url)


@pytest.fixture
def first(tmp_path: Path) -> Attempt:
    return Attempt(tmp_path / "first.parquet")


@pytest.fixture
def second(tmp_path: Path) -> Attempt:
    return Attempt(tmp_path / "second.parquet")


def stands(store: Store, attempt: Attempt) -> bool:
    return store.read(KEY) == attempt.path.read_bytes()


INSTANT = [fault for fault in Fault if fault not in (Fault.SLOW, Fault.LATE)]


@pytest.mark.parametrize("fault", INSTANT)
def test_a_commit_outlives_every_fault_of_its_put(
    proxy: FaultyProxy, store: Store, first: Attempt, second: Attempt, fault: Fault
):
    proxy.inject(fault, **IS_PUT, times=3)

    assert first.commit(store, patience_seconds=60) is Commit.WON
    assert proxy.injected[fault] >= 1
    proxy.clear()
    assert second.commit(store) is Commit.LOST
    assert stands(store, first)


@pytest.mark.parametrize("fault", INSTANT)
def test_a_lost_race_outlives_every_fault_of_its_look(
    proxy: FaultyProxy, store: Store, first: Attempt, second: Attempt, fault: Fault
):
    first.commit(store)
    proxy.inject(fault, **IS_READ, times=3)

    assert second.commit(store, patience_seconds=60) is Commit.LOST
    assert proxy.injected[fault] == 3
    assert stands(store, first)


def test_a_put_that_lands_late_is_found_to_be_ones_own(
    proxy: FaultyProxy, store: Store, first: Attempt
):
    proxy.inject(Fault.LATE, **IS_PUT)
    with pytest.raises(StoreUnavailable):
        first.commit(store, patience_seconds=0)

    assert proxy.land() == 1

    assert first.commit(store) is Commit.WON
    assert stands(store, first)


def test_a_put_that_lands_after_another_attempt_committed_changes_nothing(
    proxy: FaultyProxy, store: Store, first: Attempt, second: Attempt
):
    proxy.inject(Fault.LATE, **IS_PUT)
    with pytest.raises(StoreUnavailable):
        first.commit(store, patience_seconds=0)
    assert second.commit(store) is Commit.WON

    assert proxy.land() == 1

    assert stands(store, second)
    assert first.commit(store) is Commit.LOST


def test_a_put_that_its_client_gave_up_may_land_while_it_is_put_again(
    proxy: FaultyProxy, first: Attempt, s3_url: str, aws_settings: pytest.MonkeyPatch
):
    aws_settings.setattr("pipeline.store.s3.READ_TIMEOUT_SECONDS", 0.3)
    proxy.inject(Fault.SLOW, **IS_PUT, seconds=0.6)
    store = open_store(s3_url)

    assert first.commit(store, patience_seconds=60) is Commit.WON
    assert repeat(lambda: read_footer(store, 0), patience_seconds=60) == first.footer


def test_an_object_that_goes_away_before_it_is_looked_at_is_put_again(
    proxy: FaultyProxy, store: Store, s3_client: S3Client, first: Attempt, second: Attempt
):
    second.commit(store)
    is_deleted = []

    def delete_first(request: Request) -> bool:
        """As if someone repaired the shard between our put and our look."""
        if not is_deleted:
            is_deleted.append(True)
            bucket, _, key = request.path.removeprefix("/").partition("/")
            s3_client.delete_object(Bucket=bucket, Key=key)
        return False

    proxy.inject(Fault.BROKEN, **IS_READ, when=delete_first)

    assert first.commit(store) is Commit.WON
    assert stands(store, first)


def test_credentials_that_stay_refused_end_the_patience(
    proxy: FaultyProxy, store: Store, first: Attempt
):
    proxy.inject(Fault.REFUSED, times=None)

    with pytest.raises(CredentialsRefused, match=r"InvalidAccessKeyId.*call \d+, after"):
        first.commit(store, patience_seconds=0.05)


def test_credentials_that_are_renewed_in_their_file_are_read_again(
    proxy: FaultyProxy,
    first: Attempt,
    s3_url: str,
    aws_settings: pytest.MonkeyPatch,
    tmp_path: Path,
):
    def write_key(name: str) -> None:
        lines = ["[default]", f"aws_access_key_id={name}", "aws_secret_access_key=a-secret-key"]
        (tmp_path / "credentials").write_text("\n".join(lines))

    def is_expired(request: Request) -> bool:
        if "an-expired-key" not in request.headers["Authorization"]:
            return False
        write_key("an-access-key")
        return True

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        aws_settings.delenv(name)
    aws_settings.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    write_key("an-expired-key")
    store = open_store(s3_url)
    proxy.inject(Fault.REFUSED, when=is_expired, times=None)

    assert first.commit(store, patience_seconds=60) is Commit.WON
    assert proxy.injected[Fault.REFUSED] == 1


def test_no_credentials_for_now_are_waited_for_as_well(
    proxy: FaultyProxy, first: Attempt, s3_url: str, aws_settings: pytest.MonkeyPatch
):
    aws_settings.delenv("AWS_ACCESS_KEY_ID")
    aws_settings.delenv("AWS_SECRET_ACCESS_KEY")

    with pytest.raises(CredentialsRefused, match=r"NoCredentialsError.*call \d+"):
        first.commit(open_store(s3_url), patience_seconds=0.05)


class Trickling(Thread):
    """A server that takes a few bytes now and then, for as long as they come."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    def run(self) -> None:
        peer, _ = self.listener.accept()
        with suppress(OSError), peer:
            while peer.recv(65536):
                Event().wait(0.05)


@pytest.mark.parametrize("verb", ["put", "put_if_absent"])
def test_a_put_that_goes_on_and_on_is_given_up(
    aws_settings: pytest.MonkeyPatch, tmp_path: Path, verb: str
):
    aws_settings.setattr("pipeline.store.s3.PUT_SECONDS", 1)
    aws_settings.setattr("pipeline.store.s3.SLOWEST_BYTES_PER_SECOND", 2**40)
    server = Trickling()
    server.start()
    aws_settings.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
    with (tmp_path / "shard").open("wb") as file:
        file.truncate(16_000_000)  # at this pace, 12 seconds

    with pytest.raises(StoreUnavailable, match=r"s3://bucket/key|a put took more than"):
        getattr(open_store("s3://bucket"), verb)("key", tmp_path / "shard")

    server.listener.close()


def test_a_server_that_takes_nothing_is_given_up(aws_settings: pytest.MonkeyPatch, tmp_path: Path):
    for name in ("CONNECT_TIMEOUT_SECONDS", "READ_TIMEOUT_SECONDS"):
        aws_settings.setattr(f"pipeline.store.s3.{name}", 0.2)
    with (tmp_path / "shard").open("wb") as file:
        file.truncate(64_000_000)  # more than the buffers between us
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        aws_settings.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        with pytest.raises(StoreUnavailable):
            open_store("s3://bucket").put_if_absent("key", tmp_path / "shard")


@pytest.mark.parametrize("verb", ["put", "put_if_absent"])
def test_a_404_to_a_put_is_no_missing_object(canned_s3: CannedS3, verb: str):
    canned_s3.refuse(404, "NoSuchKey")

    with pytest.raises(StoreRefused, match="NoSuchKey"):
        getattr(open_store("s3://bucket"), verb)("key", b"x")
    with pytest.raises(ObjectMissing):
        open_store("s3://bucket").read("key")


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "ExpiredToken"), (401, "Unauthorized"), (403, "AccessDenied"), (403, "InvalidToken")],
)
def test_credentials_are_told_from_other_refusals(canned_s3: CannedS3, status: int, code: str):
    canned_s3.refuse(status, code)

    with pytest.raises(CredentialsRefused, match=code):
        open_store("s3://bucket").read("key")
