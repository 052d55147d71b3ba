"""Stores to test: a folder, S3 over the wire, and an S3 that answers what a test tells it to."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from uuid import uuid4

import pytest
from types_boto3_s3 import S3Client

from pipeline.store.objects import Store
from pipeline.store.open import open_store

# Hundreds of objects a test: on S3 they are tried by the real server alone (`--s3 real`).
OF_MANY_CALLS = {"test_verify.py", "test_repair.py", "test_footers.py"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        is_on_s3 = "[s3" in item.name and item.path.parent == Path(__file__).parent
        if is_on_s3 and item.path.name in OF_MANY_CALLS:
            item.add_marker(pytest.mark.real_s3)


class CannedS3(ThreadingHTTPServer):
    """Reads each request to its end, gives all of them one answer and remembers what they were."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), CannedHandler)
        self.status, self.body = 200, b""
        self.headers: dict[str, str] = {}  # instead of a true Content-Length
        self.requests: list[str] = []

    def refuse(self, status: int, code: str) -> None:
        self.status = status
        self.body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()


class CannedHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: CannedS3

    def answer(self) -> None:
        left = int(self.headers.get("Content-Length", 0))
        while left and (piece := self.rfile.read(min(left, 65536))):
            left -= len(piece)
        self.server.requests.append(self.command)
        self.send_response(self.server.status)
        headers = self.server.headers or {"Content-Length": str(len(self.server.body))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.server.body)
        self.close_connection = True

    do_GET = do_PUT = do_DELETE = answer

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def local_url(tmp_path: Path) -> str:
    return str(tmp_path / "root")


@pytest.fixture
def s3_url(aws_settings: pytest.MonkeyPatch, s3_client: S3Client) -> str:
    aws_settings.setenv("AWS_ENDPOINT_URL", s3_client.meta.endpoint_url)
    return f"s3://bucket/{uuid4().hex}/prefix"


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest) -> Store:
    return open_store(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def canned_s3(aws_settings: pytest.MonkeyPatch) -> Iterator[CannedS3]:
    with CannedS3() as server:
        Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        aws_settings.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()
