"""Servers that speak S3 and would lose shards are refused before a run, for the right reason."""

from pathlib import Path

import boto3
import pytest

from pipeline.store.open import open_store
from pipeline.store.preflight import preflight
from schemas.errors import StoreRefused
from tests.s3.ceph import CephS3
from tests.s3.impostors import BUCKET, rclone, swift

pytestmark = pytest.mark.real_s3


@pytest.mark.parametrize(
    ("serve", "reason"),
    [
        (rclone, "put-if-absent: an object that stood there was replaced"),
        (swift, r"put-if-absent: \d+ of 16 writers at once were told"),
    ],
)
def test_an_impostor_is_refused(serve, reason: str, aws_settings, tmp_path: Path):
    aws_settings.setattr("pipeline.store.preflight.PATIENCE_SECONDS", 1)
    with serve(tmp_path) as server:
        for name, value in server.settings.items():
            aws_settings.setenv(name, value)
        boto3.session.Session().client("s3").create_bucket(Bucket=BUCKET)

        with pytest.raises(StoreRefused, match=reason):
            preflight(open_store(f"s3://{BUCKET}/run"))


def test_the_real_server_is_let_through(ceph: CephS3, aws_settings):
    for name, value in ceph.settings.items():
        aws_settings.setenv(name, value)

    preflight(open_store("s3://bucket/preflight"))
