"""What every store promises; then what only a disk, or only S3, can do to us."""

import errno
import io
import os
import pickle
import re
import socket
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from types_boto3_s3 import S3Client

from pipeline.store import layout
from pipeline.store.objects import Entry, Store, open_object, repeat
from pipeline.store.open import open_store
from schemas.errors import InputError, ObjectMissing, StoreRefused, StoreUnavailable
from tests.pipeline.store.conftest import CannedS3

PUTS = pytest.mark.parametrize("put", ["put", "put_if_absent"])
VERBS: dict[str, Callable[[Store, str], object]] = {
    "read": lambda store, key: store.read(key),
    "read_range": lambda store, key: store.read_range(key, 0, 1),
    "size": lambda store, key: store.size(key),
    "list_folder": lambda store, key: list(store.list_folder(key)),
    "list_subfolders": lambda store, key: list(store.list_subfolders(key)),
    "put": lambda store, key: store.put(key, b"x"),
    "put_if_absent": lambda store, key: store.put_if_absent(key, b"x"),
    "delete": lambda store, key: store.delete(key),
}
HOSTILE_KEYS = (
    *("/etc/passwd", "../up", "a/../../up", "a/..", "./a", "a//b", "a/"),
    *("a\\b", "a\0b", "a\nb", "a\x7fb", "\ud800"),
)
EVERY_VERB = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)


class FakeTime:
    """A clock that moves only when someone sleeps on it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)


def keys(store: Store, folder: str) -> set[str]:
    return {entry.key for entry in store.list_folder(folder)}


# Every store


@PUTS
def test_bytes_come_back_as_they_were_put(store: Store, put: str):
    getattr(store, put)("traces/shard-00000.parquet", b"\x00some bytes\xff")

    assert store.read("traces/shard-00000.parquet") == b"\x00some bytes\xff"
    assert store.size("traces/shard-00000.parquet") == 12


@PUTS
def test_a_file_comes_back_as_it_was_put_and_stays_where_it_is(
    store: Store, put: str, tmp_path: Path
):
    file = tmp_path / "made-here"
    file.write_bytes(os.urandom(3_000_000))

    getattr(store, put)("deep/er/object", file)

    assert store.read("deep/er/object") == file.read_bytes()


def test_an_empty_object_is_an_object(store: Store):
    assert store.put_if_absent("empty", b"")

    assert (store.read("empty"), store.size("empty")) == (b"", 0)
    assert store.read_range("empty", 0, 10) == b""
    assert not store.put_if_absent("empty", b"more")


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [(0, 4, b"0123"), (3, 1, b"3"), (6, 4, b"6789"), (6, 100, b"6789"), (10, 1, b""), (99, 9, b"")],
)
def test_a_range_ends_where_the_object_ends(store: Store, start: int, length: int, expected: bytes):
    store.put("digits", b"0123456789")

    assert store.read_range("digits", start, length) == expected


@pytest.mark.parametrize(("start", "length"), [(-1, 5), (0, 0), (5, -1)])
def test_a_range_that_stores_would_read_differently_is_refused(
    store: Store, start: int, length: int
):
    store.put("digits", b"0123456789")

    with pytest.raises(ValueError, match="range"):
        store.read_range("digits", start, length)


@pytest.mark.parametrize("verb", [VERBS[name] for name in ("read", "read_range", "size")])
@pytest.mark.parametrize("key", ["absent", "folder", "folder/object/below"])
def test_what_is_absent_or_a_folder_is_a_missing_object(
    store: Store, verb: Callable[[Store, str], object], key: str
):
    store.put("folder/object", b"x")

    with pytest.raises(ObjectMissing, match=key):
        verb(store, key)


def test_a_list_holds_the_objects_of_one_folder_and_none_from_deeper(store: Store):
    for key in ("top", "traces/a", "traces/bb", "traces/deep/c", "traces-of-another"):
        store.put(key, key.encode())

    assert set(store.list_folder("traces")) == {
        Entry(key="traces/a", size_bytes=8),
        Entry(key="traces/bb", size_bytes=9),
    }
    assert keys(store, "") == {"top", "traces-of-another"}


def test_a_list_of_an_absent_folder_is_empty(store: Store):
    store.put("object", b"x")

    assert keys(store, "absent") == keys(store, "object") == set()


def test_a_list_of_many_pages_is_complete(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")
    for i in range(25):
        store.put(f"many/{i}", b"x")

    assert keys(store, "many") == {f"many/{i}" for i in range(25)}


def test_the_folders_in_a_folder_are_told_and_none_from_deeper(store: Store):
    for key in ("plan/0001-a/x/y", "plan/0001-a/z", "plan/0002 b/z", "plan/object", "plans/z"):
        store.put(key, b"x")

    assert set(store.list_subfolders("plan")) == {"plan/0001-a", "plan/0002 b"}
    assert set(store.list_subfolders("plan/0001-a")) == {"plan/0001-a/x"}
    assert set(store.list_subfolders("")) - {layout.TEMPORARY} == {"plan", "plans"}


def test_what_is_absent_or_an_object_has_no_folders(store: Store):
    store.put("object", b"x")

    assert list(store.list_subfolders("absent")) == list(store.list_subfolders("object")) == []


def test_the_folders_of_many_pages_are_complete(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")
    for i in range(25):
        store.put(f"many/{i}/object", b"x")

    assert sorted(store.list_subfolders("many")) == sorted(f"many/{i}" for i in range(25))


def test_put_replaces(store: Store):
    store.put("key", b"old and long")
    store.put("key", b"new")

    assert store.read("key") == b"new"


def test_put_if_absent_never_replaces(store: Store, tmp_path: Path):
    (tmp_path / "late").write_bytes(b"late")

    assert store.put_if_absent("key", b"first") is True
    assert store.put_if_absent("key", b"second") is False
    assert store.put_if_absent("key", tmp_path / "late") is False
    assert store.read("key") == b"first"


def put_patiently(store: Store, key: str, body: bytes) -> bool:
    """Moto now and then answers 500 to one of many threads."""
    return repeat(lambda: store.put_if_absent(key, body), patience_seconds=30)


def test_of_sixteen_racing_puts_exactly_one_wins(store: Store):
    for round_number in range(5):
        key, start = f"race/{round_number}", Barrier(16)

        def race(body: bytes, key: str = key, start: Barrier = start) -> bool:
            start.wait()
            return put_patiently(store, key, body)

        bodies = [f"writer {i}".encode() for i in range(16)]
        with ThreadPoolExecutor(16) as pool:
            has_won = list(pool.map(race, bodies))

        # A put that went unanswered and landed is told False when repeated: what stands is its own.
        stands = store.read(key)
        assert [body for body, won in zip(bodies, has_won, strict=True) if won] in ([], [stands])
        assert stands in bodies


def test_deleting_twice_is_deleting_once(store: Store):
    store.put("folder/key", b"x")

    store.delete("folder/key")
    store.delete("folder/key")
    store.delete("never/was")

    assert keys(store, "folder") == set()
    assert store.put_if_absent("folder/key", b"again")


@EVERY_VERB
def test_a_hostile_key_is_refused(store: Store, verb: Callable[[Store, str], object]):
    for key in HOSTILE_KEYS:
        with pytest.raises(ValueError, match="is not a key"):
            verb(store, key)


def test_odd_but_honest_keys_come_back_from_a_list(store: Store):
    odd = {"odd/a b+c%20&d=e?#.json", "odd/...", "odd/\u00e9\u4e2d\U0001f33f", "odd/'\"<x>"}
    for key in odd:
        store.put(key, key.encode())

    assert keys(store, "odd") == odd
    assert all(store.read(key) == key.encode() for key in odd)


def test_a_pickled_or_reopened_store_is_the_same_place(store: Store):
    store.put("key", b"x")

    assert pickle.loads(pickle.dumps(store)).read("key") == b"x"
    assert open_store(store.url).read("key") == b"x"


@pytest.fixture
def parquet(store: Store, tmp_path: Path) -> Store:
    """A store that holds a table of a small and a large column at `traces.parquet`."""
    table = pa.table({"score": list(range(1000)), "picture": [os.urandom(4000)] * 1000})
    pq.write_table(table, tmp_path / "table", use_dictionary=False, compression="none")
    store.put("traces.parquet", tmp_path / "table")
    return store


class Metered:
    """A store that counts the bytes of its ranged reads."""

    def __init__(self, store: Store) -> None:
        self.size, self.store, self.num_bytes = store.size, store, 0

    def read_range(self, key: str, start: int, length: int) -> bytes:
        self.num_bytes += length
        return self.store.read_range(key, start, length)


def test_a_footer_and_a_column_are_read_without_the_whole_object(parquet: Store):
    metered = Metered(parquet)

    with open_object(metered, "traces.parquet") as file, pq.ParquetFile(file) as footer:
        assert footer.metadata.num_rows == 1000
        assert footer.read(columns=["score"])["score"].to_pylist() == list(range(1000))

    assert metered.num_bytes < parquet.size("traces.parquet") / 4


def test_an_open_object_reads_and_seeks_like_a_file(store: Store):
    body = os.urandom(1_000_000)
    store.put("key", body)

    with open_object(store, "key") as file:
        assert file.read() == body
        assert file.read(1) == b""
        assert (file.seek(-5, io.SEEK_END), file.read()) == (999_995, body[-5:])
        assert (file.seek(500_000), file.read(10), file.tell()) == (
            500_000,
            body[500_000:500_010],
            500_010,
        )
        assert (file.seek(2_000_000), file.read(1)) == (2_000_000, b"")
        with pytest.raises(ValueError, match="before the start"):
            file.seek(-1_000_001, io.SEEK_END)


def test_an_object_that_is_missing_cannot_be_opened(store: Store):
    with pytest.raises(ObjectMissing):
        open_object(store, "absent")


def test_an_object_that_goes_away_while_pyarrow_reads_it_is_missing(parquet: Store):
    with open_object(parquet, "traces.parquet") as file, pq.ParquetFile(file) as footer:
        parquet.delete("traces.parquet")
        with pytest.raises(ObjectMissing):
            footer.read()


@PUTS
@pytest.mark.parametrize("kind", ["local_url", "canned_s3"])
def test_a_put_file_is_never_in_memory_as_a_whole(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, put: str
):
    place = request.getfixturevalue(kind)
    store = open_store(place if isinstance(place, str) else "s3://bucket")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(64_000_000)

    tracemalloc.start()
    getattr(store, put)("key", tmp_path / "large")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < 16_000_000


@PUTS
def test_a_source_file_that_is_missing_is_not_blamed_on_the_store(
    store: Store, put: str, tmp_path: Path
):
    with pytest.raises(FileNotFoundError):
        getattr(store, put)("key", tmp_path / "absent")

    assert keys(store, "") == set()


# URLs


@pytest.mark.parametrize(
    "url",
    [
        "",
        "gs://bucket/prefix",
        "https://user:hunter2@host/bucket",
        "s3://",
        "s3:/bucket/prefix",
        "s3://user:hunter2@bucket/prefix",
        "s3://bucket//prefix",
        "s3://bucket/../other",
        "file://elsewhere/path",
        "file:relative/../file:/x",
    ],
)
def test_a_url_that_is_no_store_is_refused_with_what_is_accepted(url: str):
    with pytest.raises(InputError, match=r"path|s3://bucket") as refusal:
        open_store(url)

    assert "hunter2" not in str(refusal.value)


def test_a_path_and_its_file_url_are_the_same_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    open_store("some folder").put("key", b"x")

    assert open_store("some folder").url == str(tmp_path / "some folder")
    assert open_store((tmp_path / "some folder").as_uri()).read("key") == b"x"


def test_a_store_is_opened_without_asking_or_making_anything(tmp_path: Path):
    store = open_store(str(tmp_path / "root"))

    assert keys(store, "") == set()
    store.delete("key")
    assert not (tmp_path / "root").exists()


# The local store


def files_below(folder: str) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()
    )


def test_no_temporary_file_is_left_behind_by_a_put_won_or_lost(local_url: str):
    store = open_store(local_url)
    store.put("a", b"1")
    store.put("a", b"2")
    assert store.put_if_absent("b", b"1")
    assert not store.put_if_absent("b", b"2")

    assert files_below(local_url) == ["a", "b"]


@PUTS
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StoreUnavailable),
        (errno.EDQUOT, StoreUnavailable),
        (errno.EIO, StoreUnavailable),
        (errno.ESTALE, StoreUnavailable),
        (errno.EACCES, StoreRefused),
        (errno.EPERM, StoreRefused),
        (errno.EROFS, StoreRefused),
    ],
)
def test_a_disk_that_fails_leaves_no_object_and_no_temporary_file(
    local_url: str,
    monkeypatch: pytest.MonkeyPatch,
    put: str,
    number: int,
    expected: type[Exception],
):
    def fail(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    store = open_store(local_url)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        with pytest.raises(expected, match=re.escape(f"{local_url}/a/b: ")):
            getattr(store, put)("a/b", b"x")

    assert files_below(local_url) == []
    assert store.put_if_absent("a/b", b"x")


@PUTS
def test_an_object_where_a_folder_should_be_is_refused_and_kept(local_url: str, put: str):
    store = open_store(local_url)
    store.put("a", b"x")

    with pytest.raises(StoreRefused, match=r"a file stands at .*a, where a folder"):
        getattr(store, put)("a/b", b"y")

    assert store.read("a") == b"x"


def test_a_dangling_link_is_not_listed(local_url: str):
    store = open_store(local_url)
    store.put("folder/real", b"x")
    (Path(local_url) / "folder" / "dangling").symlink_to("nowhere")

    assert keys(store, "folder") == {"folder/real"}


def test_a_link_to_a_folder_is_none_of_the_folders(local_url: str):
    store = open_store(local_url)
    store.put("folder/real/object", b"x")
    (Path(local_url) / "folder" / "linked").symlink_to("real")

    assert list(store.list_subfolders("folder")) == ["folder/real"]


# S3


@pytest.mark.parametrize("name", VERBS)
def test_a_missing_bucket_is_refused_and_not_taken_for_a_missing_object(s3_url: str, name: str):
    with pytest.raises(StoreRefused, match=r"s3://no-such-bucket/x/key at .*NoSuchBucket.*; make"):
        VERBS[name](open_store("s3://no-such-bucket/x"), "key")


@EVERY_VERB
def test_missing_credentials_are_refused(
    aws_settings: pytest.MonkeyPatch, verb: Callable[[Store, str], object]
):
    aws_settings.delenv("AWS_ACCESS_KEY_ID")
    aws_settings.delenv("AWS_SECRET_ACCESS_KEY")
    aws_settings.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")

    with pytest.raises(StoreRefused, match="NoCredentialsError; set AWS_ACCESS_KEY_ID"):
        verb(open_store("s3://bucket"), "key")


@pytest.mark.parametrize(
    ("name", "value"), [("AWS_ENDPOINT_URL", "127.0.0.1:9000"), ("AWS_PROFILE", "absent")]
)
def test_aws_settings_that_cannot_be_used_are_bad_input(
    aws_settings: pytest.MonkeyPatch, name: str, value: str
):
    aws_settings.setenv(name, value)

    with pytest.raises(InputError, match=name):
        open_store("s3://bucket")


@EVERY_VERB
def test_an_endpoint_where_no_one_listens_is_unavailable(
    aws_settings: pytest.MonkeyPatch, verb: Callable[[Store, str], object]
):
    with socket.socket() as taken:  # bound, so that no one else takes the port; never listening
        taken.bind(("127.0.0.1", 0))
        aws_settings.setenv(
            "AWS_ENDPOINT_URL", f"http://me:hunter2@127.0.0.1:{taken.getsockname()[1]}"
        )
        with pytest.raises(StoreUnavailable, match=r"s3://bucket/key at 127\.0\.0\.1") as error:
            verb(open_store("s3://bucket"), "key")

    assert "hunter2" not in str(error.value)


def test_an_endpoint_that_says_nothing_is_unavailable(aws_settings: pytest.MonkeyPatch):
    aws_settings.setattr("pipeline.store.s3.READ_TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        aws_settings.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(StoreUnavailable, match="ReadTimeoutError"):
            open_store("s3://bucket").put_if_absent("key", b"x")


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "RequestTimeout", StoreUnavailable),
        (401, "Unauthorized", StoreRefused),
        (403, "AccessDenied", StoreRefused),
        (403, "InvalidAccessKeyId", StoreRefused),
        (403, "QuotaExceeded", StoreUnavailable),
        (403, "SignatureDoesNotMatch", StoreRefused),
        (404, "NoSuchBucket", StoreRefused),
        (408, "RequestTimeout", StoreUnavailable),
        (409, "ConditionalRequestConflict", StoreUnavailable),
        (429, "TooManyRequests", StoreUnavailable),
        (500, "InternalError", StoreUnavailable),
        (501, "NotImplemented", StoreRefused),
        (503, "SlowDown", StoreUnavailable),
        (599, "Unheard", StoreUnavailable),
    ],
)
def test_an_answer_of_s3_means_one_thing_and_is_asked_for_once(
    canned_s3: CannedS3, status: int, code: str, expected: type[Exception]
):
    canned_s3.refuse(status, code)
    store = open_store("s3://bucket/prefix")

    with pytest.raises(expected, match="s3://bucket/prefix/key"):
        store.put_if_absent("key", b"x")
    with pytest.raises(expected, match="s3://bucket/prefix/key"):
        store.read("key")

    assert canned_s3.requests == ["PUT", "GET"]  # the SDK repeats nothing behind our back


@pytest.mark.parametrize("body", [b"", b"<html>gateway</html>", b"not even that"])
def test_an_error_page_of_some_proxy_is_unavailable(canned_s3: CannedS3, body: bytes):
    canned_s3.status, canned_s3.body = 502, body

    with pytest.raises(StoreUnavailable):
        open_store("s3://bucket").read("key")


@pytest.mark.parametrize("header", [{"Content-Length": "1000"}, {"Transfer-Encoding": "chunked"}])
@pytest.mark.parametrize("status", [200, 206, 500])
@pytest.mark.parametrize("name", ["read", "read_range", "list_folder", "list_subfolders"])
def test_an_answer_cut_off_half_way_is_never_taken_for_the_whole(
    canned_s3: CannedS3, name: str, status: int, header: dict[str, str]
):
    canned_s3.status, canned_s3.headers = status, header
    canned_s3.body = b"3e8\r\n<ListBucketResult><Contents>"

    with pytest.raises(StoreUnavailable):
        VERBS[name](open_store("s3://bucket"), "key")


def test_the_object_that_consoles_make_for_a_folder_is_not_listed(s3_url: str, s3_client: S3Client):
    store = open_store(s3_url)
    store.put("folder/real", b"x")
    bucket, _, prefix = s3_url.removeprefix("s3://").partition("/")
    s3_client.put_object(Bucket=bucket, Key=f"{prefix}/folder/", Body=b"")

    assert keys(store, "folder") == {"folder/real"}
    assert list(store.list_subfolders("")) == ["folder"]
    assert list(store.list_subfolders("folder")) == []


# Patience


def test_repeat_calls_until_the_store_answers():
    time, answers = FakeTime(), iter([StoreUnavailable("down"), StoreUnavailable("down"), "here"])

    def call() -> str:
        match next(answers):
            case str(answer):
                return answer
            case error:
                raise error

    assert repeat(call, patience_seconds=60, sleep=time.sleep, clock=time.clock) == "here"
    assert len(time.pauses) == 2


def test_repeat_backs_off_up_to_a_cap_and_gives_up_when_patience_ends():
    time, calls = FakeTime(), []

    def call() -> None:
        calls.append(time.now)
        raise StoreUnavailable("s3://bucket is down")

    with pytest.raises(StoreUnavailable, match=r"s3://bucket is down \(call \d+, after 600 s\)"):
        repeat(call, patience_seconds=600, sleep=time.sleep, clock=time.clock)

    assert calls[-1] == 1600  # the last call comes when patience ends, not a pause earlier
    assert time.pauses[0] <= 0.5
    assert 15 <= max(time.pauses) <= 30
    assert len(set(time.pauses)) == len(time.pauses)


def test_repeat_without_patience_calls_once():
    time = FakeTime()

    def call() -> None:
        raise StoreUnavailable("down")

    with pytest.raises(StoreUnavailable):
        repeat(call, patience_seconds=0, sleep=time.sleep, clock=time.clock)

    assert time.pauses == []


@pytest.mark.parametrize("error", [StoreRefused, ObjectMissing, ValueError])
def test_repeat_does_not_repeat_what_waiting_cannot_mend(error: type[Exception]):
    time = FakeTime()

    def call() -> None:
        raise error("no")

    with pytest.raises(error):
        repeat(call, patience_seconds=600, sleep=time.sleep, clock=time.clock)

    assert time.pauses == []
