"""A store is let through or refused before anything is spent, and the refusal says why."""

from collections.abc import Iterator
from threading import Condition
from typing import Any

import pytest

from pipeline.store import layout
from pipeline.store import preflight as module
from pipeline.store.objects import Entry, Source, Store
from pipeline.store.open import open_store
from pipeline.store.preflight import preflight
from schemas.errors import (
    CredentialsRefused,
    ExitCode,
    ObjectMissing,
    StoreRefused,
    StoreUnavailable,
)
from tests.faults.proxy import Fault, FaultyProxy
from tests.support import Wrapped


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.store.objects.FIRST_PAUSE_SECONDS", 0.001)


def test_a_store_that_keeps_its_promises_passes_and_is_left_as_it_was(store: Store):
    store.put("object", b"x")

    preflight(store)

    assert list(store.list_folder(layout.PREFLIGHT)) == []
    assert store.read("object") == b"x"


class Overwriting(Wrapped):
    """Takes no notice of the condition, like many a gateway."""

    def put_if_absent(self, key: str, source: Source) -> bool:
        self.store.put(key, source)
        return True


class LookThenPut(Wrapped):
    """Right in turn and wrong at once: a second writer that comes in time finds nothing, either."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.met, self.num_looking = Condition(), 0

    def put_if_absent(self, key: str, source: Source) -> bool:
        try:
            self.store.size(key)
            return False
        except ObjectMissing:
            with self.met:
                self.num_looking += 1
                self.met.notify_all()
                self.met.wait_for(lambda: self.num_looking > 1, timeout=0.1)
        self.store.put(key, source)
        with self.met:
            self.num_looking -= 1
        return True


class Whole(Wrapped):
    """Answers a ranged read with the whole object."""

    def read_range(self, key: str, start: int, length: int) -> bytes:
        return self.store.read(key)


class Unlisted(Wrapped):
    """Lists nothing."""

    def list_folder(self, folder: str) -> Iterator[Entry]:
        return iter(())


class Undeleted(Wrapped):
    """Says that it deletes, and keeps everything."""

    def delete(self, key: str) -> None:
        pass


class Forbidding(Wrapped):
    """Says "forbidden" of an object that is missing, as S3 does to one who may not list."""

    def read(self, key: str) -> bytes:
        try:
            return self.store.read(key)
        except ObjectMissing:
            raise CredentialsRefused("AccessDenied; permit s3:ListBucket") from None


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Overwriting, "put-if-absent: an object that stood there was replaced"),
        (LookThenPut, r"put-if-absent: \d+ of 16 writers at once"),
        (Whole, "ranged read: asked for b'3456', got b'0123456789'"),
        (Undeleted, "delete: an object is still there"),
        (Forbidding, "permit s3:ListBucket"),
    ],
)
def test_a_store_that_breaks_a_promise_is_refused_with_its_name(
    local_url: str, kind: type[Wrapped], reason: str
):
    with pytest.raises(StoreRefused, match=reason) as refused:
        preflight(kind(open_store(local_url)))

    assert refused.value.exit_code is ExitCode.STORE


def test_all_broken_promises_are_named_at_once(local_url: str):
    class Both(Overwriting, Whole):
        pass

    with pytest.raises(StoreRefused, match=r"(?s)put-if-absent.*ranged read"):
        preflight(Both(open_store(local_url)))


def test_a_list_that_never_shows_an_object_is_unavailable(
    local_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.01)

    with pytest.raises(StoreUnavailable, match="list: an object that stands is not listed"):
        preflight(Unlisted(open_store(local_url)))


def test_a_put_that_is_not_permitted_is_refused_at_once(local_url: str):
    class ReadOnly(Wrapped):
        def put(self, key: str, source: Source) -> None:
            raise StoreRefused("read-only file system")

    with pytest.raises(StoreRefused, match="read-only file system"):
        preflight(ReadOnly(open_store(local_url)))


@pytest.fixture
def proxy(s3_url: str, aws_settings: pytest.MonkeyPatch, s3_client: Any) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_client.meta.endpoint_url) as proxy:
        aws_settings.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


def test_passing_trouble_is_not_held_against_a_store(proxy: FaultyProxy, s3_url: str):
    for fault in (Fault.UNAVAILABLE, Fault.THROTTLED, Fault.CONFLICT, Fault.RESET_AFTER):
        proxy.inject(fault, method="PUT", key="*-race-*", skip=20, times=3)
    proxy.inject(Fault.HALF_ANSWERED, method="GET", times=2)

    preflight(open_store(s3_url))

    assert proxy.injected.total() == 14


def test_credentials_that_no_one_has_seen_work_are_not_waited_for(proxy: FaultyProxy, s3_url: str):
    proxy.inject(Fault.REFUSED, times=None)

    with pytest.raises(CredentialsRefused, match="InvalidAccessKeyId"):
        preflight(open_store(s3_url))


@pytest.mark.parametrize("host", ["storage.googleapis.com", "bucket.storage.googleapis.com:443"])
def test_google_s3_interface_is_refused_by_its_name(aws_settings: pytest.MonkeyPatch, host: str):
    aws_settings.setenv("AWS_ENDPOINT_URL", f"https://{host}")

    with pytest.raises(StoreRefused, match="Google's S3 interface ignores If-None-Match"):
        open_store("s3://bucket/run")
