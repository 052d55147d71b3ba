"""The faulty proxy passes what it should, strikes what it should, and keeps signatures valid."""

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError, ResponseStreamingError
from types_boto3_s3 import S3Client

from tests.faults.proxy import Fault, FaultyProxy

LOST = (HTTPClientError, ResponseStreamingError)


@pytest.fixture
def proxy(s3_client: S3Client):
    with FaultyProxy(s3_client.meta.endpoint_url) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultyProxy) -> S3Client:
    """A client behind the proxy that repeats nothing."""
    session = boto3.session.Session("an-access-key", "a-secret-key", region_name="us-east-1")
    config = Config(retries={"total_max_attempts": 1}, read_timeout=5)
    return session.client("s3", endpoint_url=proxy.endpoint, config=config)


def put(client: S3Client, key: str, body: bytes = b"body") -> int:
    try:
        client.put_object(Bucket="bucket", Key=key, Body=body, IfNoneMatch="*")
    except ClientError as error:
        return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
    return 200


def stands(s3_client: S3Client, key: str) -> bool:
    found = s3_client.list_objects_v2(Bucket="bucket", Prefix=key)
    return key in [entry["Key"] for entry in found.get("Contents", [])]


def test_without_faults_everything_passes(client: S3Client, tmp_path):
    (tmp_path / "file").write_bytes(bytes(3_000_000))

    assert put(client, "plain/a b+c%.txt") == 200
    assert put(client, "plain/a b+c%.txt") == 412
    with (tmp_path / "file").open("rb") as file:
        client.put_object(Bucket="bucket", Key="plain/file", Body=file)
    assert client.get_object(Bucket="bucket", Key="plain/file")["Body"].read() == bytes(3_000_000)
    assert client.head_object(Bucket="bucket", Key="plain/file")["ContentLength"] == 3_000_000
    assert client.list_objects_v2(Bucket="bucket", Prefix="plain/")["KeyCount"] == 2
    client.delete_object(Bucket="bucket", Key="plain/file")


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault.CONFLICT, 409),
        (Fault.THROTTLED, 429),
        (Fault.BROKEN, 500),
        (Fault.UNAVAILABLE, 503),
        (Fault.REFUSED, 403),
    ],
)
def test_a_canned_answer_comes_so_often_and_nothing_lands(
    proxy: FaultyProxy, client: S3Client, s3_client: S3Client, fault: Fault, status: int
):
    key = f"canned/{fault}"
    proxy.inject(fault, method="PUT", key=key, times=2)

    assert [put(client, key), put(client, f"canned/other-{fault}")] == [status, 200]
    assert put(client, key) == status
    assert not stands(s3_client, key)
    assert put(client, key) == 200
    assert proxy.injected == {fault: 2}


@pytest.mark.parametrize(
    ("fault", "has_landed"),
    [(Fault.RESET_BEFORE, False), (Fault.RESET_AFTER, True), (Fault.HALF_ANSWERED, True)],
)
def test_a_lost_answer_says_nothing_of_what_was_done(
    proxy: FaultyProxy, client: S3Client, s3_client: S3Client, fault: Fault, has_landed: bool
):
    proxy.inject(fault)

    with pytest.raises(LOST):
        put(client, f"lost/{fault}")

    assert stands(s3_client, f"lost/{fault}") is has_landed


def test_a_late_put_lands_when_its_client_has_long_gone(
    proxy: FaultyProxy, client: S3Client, s3_client: S3Client
):
    proxy.inject(Fault.LATE, key="late/*")
    with pytest.raises(LOST):
        put(client, "late/key")
    assert not stands(s3_client, "late/key")

    assert proxy.land() == 1

    assert stands(s3_client, "late/key")
    assert put(client, "late/key") == 412


def test_a_slow_put_is_answered_in_the_end(
    proxy: FaultyProxy, client: S3Client, s3_client: S3Client
):
    proxy.inject(Fault.SLOW, seconds=0.1)

    assert put(client, "slow/key") == 200
    assert stands(s3_client, "slow/key")


def test_half_an_answer_is_half_of_its_body(proxy: FaultyProxy, client: S3Client):
    put(client, "half/key", b"0123456789")
    proxy.inject(Fault.HALF_ANSWERED, method="GET")

    with pytest.raises(LOST):
        client.get_object(Bucket="bucket", Key="half/key")["Body"].read()


def test_requests_are_chosen_by_order_and_by_what_they_ask(proxy: FaultyProxy, client: S3Client):
    proxy.inject(Fault.UNAVAILABLE, method="PUT", skip=1)
    proxy.inject(Fault.BROKEN, when=lambda request: request.body == b"poison", times=None)

    answers = [put(client, f"order/{i}") for i in range(3)]
    poisoned = [put(client, f"poison/{i}", b"poison") for i in range(2)]
    proxy.clear()

    assert (answers, poisoned) == ([200, 503, 200], [500, 500])
    assert put(client, "poison/0", b"poison") == 200
    assert len(proxy.requests) == 6
