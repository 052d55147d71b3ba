"""moto, the quick stand-in for S3, with the one promise that it does not keep by itself.

It looks whether an object is there and puts it then, so on a busy machine two of many writers may
be told that they made one object. Here its puts are taken one at a time.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

BUCKET = "bucket"


class OnePutAtATime:
    """A WSGI application whose puts do not meet. A slow client holds up no one but itself."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application, self._lock = application, Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "PUT":
            return self._application(environ, start_response)
        if length := environ.get("CONTENT_LENGTH"):
            environ["wsgi.input"] = BytesIO(environ["wsgi.input"].read(int(length)))
        with self._lock:
            return self._application(environ, start_response)


class _Silent(WSGIRequestHandler):
    def log_request(self, *args: object) -> None:
        pass


@contextmanager
def emulator() -> "Iterator[S3Client]":
    """A client of an emulator of its own with a bucket. It takes any credentials."""
    application = OnePutAtATime(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Silent)
    Thread(target=server.serve_forever, daemon=True).start()
    session = boto3.session.Session("key", "secret", region_name="us-east-1")
    client = session.client("s3", endpoint_url=f"http://127.0.0.1:{server.port}")
    client.create_bucket(Bucket=BUCKET)
    try:
        yield client
    finally:
        server.shutdown()
        server.server_close()
