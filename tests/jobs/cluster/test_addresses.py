"""An address where no Ray can be joined is one sentence, soon, and nothing else is printed."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest
from ray._private.utils import compute_version_info
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from jobs.cluster import addresses
from jobs.cluster.connect import first_sentence, on_ray
from schemas.errors import InputError

RAY, PYTHON = compute_version_info()
JOIN = (
    "from jobs.cluster.connect import on_ray; import sys\nwith on_ray(sys.argv[1]): print('on it')"
)


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "CALL_SECONDS", 1.0)
    monkeypatch.setattr(addresses, "NODE_SECONDS", 0.1)


def refused(address: str) -> str:
    """Why an address is refused, in one line."""
    with pytest.raises(InputError) as error, on_ray(address):
        pass
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


@pytest.mark.parametrize(
    "address",
    [
        *("garbage", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:99999", ":6379", " "),
        *(
            "http://127.0.0.1:8265",
            "ray://",
            "ray://garbage",
            "ray://127.0.0.1",
            "a b:1",
            "::1:6379",
        ),
        *("127.0.0.1:6379/", "name@host:6379", "host:\u0661", "\x1b[2J"),
    ],
)
def test_what_is_no_address_is_refused_without_asking_anyone(address: str):
    message = refused(address)

    assert message.startswith(repr(address))
    assert "`ray start --head`" in message


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_of_nobody_is_said_at_once(scheme: str, capfd: pytest.CaptureFixture[str]):
    started = time.monotonic()

    assert "nothing listens there" in refused(f"{scheme}127.0.0.1:1")
    assert "its host is not known" in refused(f"{scheme}no-such-host.invalid:6379")

    assert time.monotonic() - started < 30  # Ray's own patience is longer
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_what_accepts_and_says_nothing_is_given_up_on(
    scheme: str, capfd: pytest.CaptureFixture[str]
):
    with socket.socket() as silent:
        silent.bind(("0.0.0.0", 0))  # Ray looks for a loopback address at the machine's own
        silent.listen()

        message = refused(f"{scheme}127.0.0.1:{silent.getsockname()[1]}")

    assert "did not answer in 1 s" in message
    assert capfd.readouterr() == ("", "")


class Web(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_server_of_another_kind_is_told(scheme: str, capfd: pytest.CaptureFixture[str]):
    with ThreadingHTTPServer(("0.0.0.0", 0), Web) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        try:
            message = refused(f"{scheme}127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()

    assert "what listens there is something else" in message
    assert capfd.readouterr() == ("", "")


class Table(gcs_service_pb2_grpc.InternalKVGcsServiceServicer):  # type: ignore[misc]
    """A head's table, of a Ray that cannot be installed here beside ours."""

    def __init__(self, metadata: bytes, code: grpc.StatusCode | None) -> None:
        self._metadata, self._code = metadata, code

    def InternalKVGet(self, request: Any, context: Any) -> Any:
        if self._code:
            context.abort(self._code, "no: \x1b[2J " + "and so on " * 100)
        return gcs_service_pb2.InternalKVGetReply(value=self._metadata)


@contextmanager
def head_that_says(
    metadata: dict[str, Any] | bytes = b"", *, code: grpc.StatusCode | None = None
) -> Iterator[str]:
    """The address of a stand-in for a head."""
    body = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
    server = grpc.server(futures.ThreadPoolExecutor(1))
    gcs_service_pb2_grpc.add_InternalKVGcsServiceServicer_to_server(Table(body, code), server)
    port = server.add_insecure_port("0.0.0.0:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize(
    ("ray_version", "python_version"), [("2.7.0", PYTHON), (RAY, "3.9.2"), (RAY, f"{PYTHON}9")]
)
def test_another_version_is_told_with_ours(ray_version: str, python_version: str):
    metadata = {"ray_version": ray_version, "python_version": python_version}
    with head_that_says(metadata) as address:
        message = refused(address)

    assert f"is Ray {ray_version} on Python {python_version}" in message
    assert f"here are Ray {RAY} and Python {PYTHON}: install the same" in message


@pytest.mark.parametrize("body", [b"", b"text", b"{}", b"[1]"])
def test_a_head_that_does_not_tell_its_version_is_asked_on(body: bytes):
    with head_that_says(body) as address:
        message = refused(address)  # it knows of no nodes

    assert "no node of it" in message or "no Ray, or one of another version" in message


def test_a_token_that_is_missing_or_wrong_is_told(monkeypatch: pytest.MonkeyPatch):
    with head_that_says(code=grpc.StatusCode.UNAUTHENTICATED) as address:
        message = refused(address)

    assert "RAY_AUTH_TOKEN" in message
    assert "asks for a token" in message or "takes another token" in message


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.PERMISSION_DENIED])
def test_another_answer_is_told_by_its_name(code: grpc.StatusCode):
    with head_that_says(code=code) as address:
        assert f"it said {code.name}" in refused(address)


def test_of_a_long_error_the_first_sentence_is_told():
    error = RuntimeError("Version mismatch:  the\ncluster is 2.7.0. Do this.\n  Ray: 1\n")

    assert first_sentence(error) == "Version mismatch: the cluster is 2.7.0"
    assert first_sentence(RuntimeError("No: Traceback (most recent call last):\n  File")) == "No"
    assert first_sentence(RuntimeError("")) == "RuntimeError"
    announced = "Failure from server:\nTraceback (most recent call last):\n  File\nOSError: gone\n"
    assert first_sentence(RuntimeError(announced)) == "Failure from server: OSError: gone"
    assert len(first_sentence(RuntimeError("word " * 1000))) <= 200


def join(environment: dict[str, str], address: str) -> "subprocess.CompletedProcess[str]":
    """Join a cluster in a process of its own, as a driver does."""
    return subprocess.run(
        [sys.executable, "-c", JOIN, address],
        env={"PYTHONPATH": os.getcwd()} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def reason(answer: "subprocess.CompletedProcess[str]") -> str:
    assert answer.returncode == 1, answer
    return answer.stderr.splitlines()[-1]


@pytest.mark.ray
def test_a_head_is_joined_with_its_token_and_with_no_other(head: dict[str, str]):
    address = head["RAY_ADDRESS"]
    no_token = {name: value for name, value in head.items() if name != "RAY_AUTH_TOKEN"}
    no_token |= {"RAY_AUTH_TOKEN_PATH": "/nowhere/token"}

    joined = join(head, address)
    without_mode = join(head | {"RAY_AUTH_MODE": "disabled"}, address)
    wrong = join(head | {"RAY_AUTH_TOKEN": "0" * 64}, address)
    missing = join(no_token, address)

    assert (joined.stdout, joined.stderr) == ("on it\n", "")
    assert "asks for a token: set RAY_AUTH_MODE=token" in reason(without_mode)
    assert "takes another token" in reason(wrong)
    assert "no token for the Ray" in reason(missing)
