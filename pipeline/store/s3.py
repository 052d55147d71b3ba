"""A store in an S3 bucket. Everything about the place comes from the standard AWS settings.

A put is one PutObject, never multipart and never a copy: there, real servers ignore the condition
and overwrite. The SDK's own retries are off: they would hide that an earlier try of ours may have
landed. `objects.repeat` is the only one that repeats.
"""

import io
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.loaders import Loader

from pipeline.store.objects import (
    Entry,
    Source,
    checked_folder,
    checked_key,
    checked_range,
    is_key,
    join_key,
    open_source,
)
from pipeline.store.trouble.s3_words import SPOKEN, BeyondEnd, ObjectPresent, our_error
from schemas.errors import (
    CredentialsRefused,
    InputError,
    ObjectMissing,
    StoreRefused,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import ListObjectsV2OutputTypeDef

CONNECT_TIMEOUT_SECONDS = 5  # a live endpoint accepts in milliseconds
READ_TIMEOUT_SECONDS = 60  # of silence, not in all: a server may sync 256 MB before it answers
PUT_SECONDS = 60  # in all, for a put's bytes to leave, and more for a large one:
SLOWEST_BYTES_PER_SECOND = 256 * 1024  # else a peer that takes a byte now and then holds us forever
UPLOAD_BYTES = 256 * 1024  # of a file in memory at a time
MAX_CONNECTIONS = 32  # kept open per store; more threads than this reconnect at every call

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,254}")
_CONTENT_TYPES = {  # of what browsers open; without one they would offer to save it
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "webp": "image/webp",
}
_GOOGLE = "storage.googleapis.com"
_SERVICE_MODELS = Loader()


class S3Store:
    """A bucket and a prefix as a store. See `Store` for the promises."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket, self._prefix = bucket, prefix
        self._silence_seconds: float = READ_TIMEOUT_SECONDS
        self._client = _connect(self._silence_seconds)

    def __reduce__(self) -> "tuple[Callable[[str], S3Store], tuple[str]]":
        return open_s3, (self.url,)

    @property
    def url(self) -> str:
        return f"s3://{join_key(self._bucket, self._prefix)}"

    def read(self, key: str) -> bytes:
        name = self._name(key)
        with self._asking("read", key):
            return self._client.get_object(Bucket=self._bucket, Key=name)["Body"].read()

    def read_range(self, key: str, start: int, length: int) -> bytes:
        checked_range(start, length)
        try:
            return self._part(key, start, length)[0]
        except BeyondEnd:
            return b""

    def size(self, key: str) -> int:
        # Not a HEAD: its answer has no body, so a missing bucket would look like a missing object.
        try:
            return self._part(key, 0, 1)[1]
        except BeyondEnd:
            return 0

    def list_folder(self, folder: str) -> Iterator[Entry]:
        return self._entries(checked_folder(folder))

    def list_subfolders(self, folder: str) -> Iterator[str]:
        return self._subfolders(checked_folder(folder))

    def put(self, key: str, source: Source) -> None:
        name = self._name(key)
        with open_source(source) as body, self._asking("put", key):
            self._client.put_object(
                Bucket=self._bucket, Key=name, Body=_upload(body), ContentType=_content_type(key)
            )

    def put_if_absent(self, key: str, source: Source) -> bool:
        name = self._name(key)
        try:
            with open_source(source) as body, self._asking("put if absent", key):
                self._client.put_object(
                    Bucket=self._bucket, Key=name, Body=_upload(body), IfNoneMatch="*"
                )
        except ObjectPresent:
            return False
        return True

    def delete(self, key: str) -> None:
        name = self._name(key)
        with suppress(ObjectMissing), self._asking("delete", key):
            self._client.delete_object(Bucket=self._bucket, Key=name)

    def _name(self, key: str) -> str:
        return join_key(self._prefix, checked_key(key))

    def _part(self, key: str, start: int, length: int) -> tuple[bytes, int]:
        """Some bytes of the object, and how many it has in all."""
        name = self._name(key)
        with self._asking("read", key):
            answer = self._client.get_object(
                Bucket=self._bucket, Key=name, Range=f"bytes={start}-{start + length - 1}"
            )
            data = answer["Body"].read()
        # Without a Content-Range, this was the whole object.
        size = answer.get("ContentRange", f"bytes */{len(data)}").rpartition("/")[2]
        if not size.isdecimal():
            raise StoreUnavailable(
                f"{join_key(self.url, key)} came with a range that is none; try again"
            )
        return data, int(size)

    def _entries(self, folder: str) -> Iterator[Entry]:
        prefix = self._prefix_of(folder)
        for page in self._pages(folder):
            for listed in page.get("Contents", []):
                # Consoles make an object "folder/" for a folder.
                if name := listed.get("Key", "").removeprefix(prefix):
                    yield Entry(
                        key=join_key(folder, name),
                        size_bytes=listed.get("Size", 0),
                        etag=listed.get("ETag", ""),
                    )

    def _subfolders(self, folder: str) -> Iterator[str]:
        prefix = self._prefix_of(folder)
        for page in self._pages(folder):
            for listed in page.get("CommonPrefixes", []):
                name = listed.get("Prefix", "").removeprefix(prefix).removesuffix("/")
                if is_key(name):
                    yield join_key(folder, name)

    def _pages(self, folder: str) -> "Iterator[ListObjectsV2OutputTypeDef]":
        """What stands directly in a folder, as S3 lists it."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix_of(folder), Delimiter="/"
        )
        with self._asking("list", folder):
            yield from pages

    def _prefix_of(self, folder: str) -> str:
        """What the names of all objects below a folder begin with."""
        return "".join(f"{part}/" for part in (self._prefix, folder) if part)

    def limit_silence(self, seconds: float) -> None:
        """Give up on an answer that is silent for so long, at most and at least for a while."""
        seconds = min(max(seconds, CONNECT_TIMEOUT_SECONDS), READ_TIMEOUT_SECONDS)
        if seconds != self._silence_seconds:
            self._silence_seconds = seconds
            self._reconnect()

    def check_endpoint(self) -> None:
        """Raises StoreRefused for an endpoint that is known to ignore If-None-Match on a put."""
        host = _host(self._client).partition(":")[0]
        if host == _GOOGLE or host.endswith(f".{_GOOGLE}"):
            raise StoreRefused(
                f"{host} overwrites where it should not: Google's S3 interface ignores "
                "If-None-Match on a put, so two workers could both commit a shard; use S3, Ceph, "
                "another server that honours it, or a shared folder"
            )

    @contextmanager
    def _asking(self, operation: str, key: str) -> Iterator[None]:
        try:
            yield
        except SPOKEN as error:
            failure = f"cannot {operation} {join_key(self.url, key)} at {_host(self._client)}"
            ours = our_error(error, operation, failure)
            if isinstance(ours, CredentialsRefused):
                self._reconnect()
            raise ours from error

    def _reconnect(self) -> None:
        """The next call reads the settings again: a client keeps the credentials it began with."""
        with suppress(InputError):  # someone is writing the file
            self._client = _connect(self._silence_seconds)


def open_s3(url: str) -> S3Store:
    """Raises InputError for a malformed URL or AWS setting, StoreRefused for Google's S3 interface.

    Does not connect.
    """
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket):  # not shown: it may be "key:secret@bucket"
        raise InputError(
            "no bucket in this URL; give s3://bucket/prefix, and credentials apart from it"
        )
    try:
        checked_folder(prefix := prefix.removesuffix("/"))
    except ValueError as error:
        raise InputError(f"the prefix of s3://{bucket} cannot be used: {error}") from error
    store = S3Store(bucket, prefix)
    store.check_endpoint()
    return store


def _content_type(key: str) -> str:
    return _CONTENT_TYPES.get(key.rpartition(".")[2], "binary/octet-stream")


class _Upload(io.RawIOBase):
    """The body of one put, streamed, for as long as a put may take.

    The SDK's timeouts are of silence: a peer that takes a few bytes now and then meets none.
    """

    def __init__(self, body: BinaryIO) -> None:
        self._body = body
        num_bytes = body.seek(0, io.SEEK_END)
        body.seek(0)
        self._seconds = PUT_SECONDS + num_bytes / SLOWEST_BYTES_PER_SECOND
        self._end = time.monotonic() + self._seconds

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._body.seek(offset, whence)

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        if time.monotonic() > self._end:
            raise StoreUnavailable(f"a put took more than {self._seconds:.0f} s; try again")
        view = memoryview(buffer).cast("B")
        data = self._body.read(len(view))
        view[: len(data)] = data
        return len(data)


def _upload(body: BinaryIO) -> BinaryIO:
    return io.BufferedReader(_Upload(body), UPLOAD_BYTES)


def _connect(silence_seconds: float) -> "S3Client":
    """A client of its own session: boto3's shared one keeps the first credentials it ever saw.

    What S3 is, some 30 files of JSON, is read once a process, whichever session asks.
    """
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=silence_seconds,
        max_pool_connections=MAX_CONNECTIONS,
        retries={"total_max_attempts": 1},
    )
    try:
        session = botocore.session.Session()
        session.register_component("data_loader", _SERVICE_MODELS)
        return boto3.session.Session(botocore_session=session).client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise InputError(
            f"the AWS settings cannot be used ({type(error).__name__}); check AWS_PROFILE, the AWS "
            "config files, and that AWS_ENDPOINT_URL starts with http:// or https://"
        ) from error


def _host(client: "S3Client") -> str:
    return urlsplit(client.meta.endpoint_url).netloc.rpartition("@")[2]
