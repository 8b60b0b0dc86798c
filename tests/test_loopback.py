"""The S3 server on loopback serves this run alone, and writes nothing once its bucket is filled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from loaderbench.bucket import loopback


def client(endpoint: str, **changed: str) -> Any:
    keys = loopback.environment(endpoint) | changed
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
        config=Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"}),
    )


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "buckets" / "b").mkdir(parents=True)
    (tmp_path / "buckets" / "b" / "index.json").write_text("ours")
    return tmp_path / "buckets"


@pytest.mark.parametrize("wrong", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_client_without_the_key_of_this_run_is_refused(root: Path, wrong: str) -> None:
    with loopback.serve(root) as endpoint:
        ours = client(endpoint).get_object(Bucket="b", Key="index.json")["Body"].read()
        with pytest.raises(ClientError, match=r"403|InvalidAccessKeyId|AccessDenied|SignatureDoesNotMatch"):
            client(endpoint, **{wrong: "loaderbench"}).get_object(Bucket="b", Key="index.json")
    assert ours == b"ours"


def test_no_command_line_shows_the_key(root: Path) -> None:
    with loopback.serve(root) as endpoint:
        keys = loopback.environment(endpoint)
        lines = [" ".join(each.cmdline()) for each in psutil.Process().children(recursive=True)]
    assert any("serve s3" in line for line in lines)
    assert not [line for line in lines for name in keys if name.endswith("_KEY") and keys[name] in line]


def test_a_filled_bucket_cannot_be_changed(root: Path) -> None:
    with loopback.serve(root, read_only=True) as endpoint:
        for change in (
            lambda s3: s3.put_object(Bucket="b", Key="index.json", Body=b"theirs"),
            lambda s3: s3.delete_object(Bucket="b", Key="index.json"),
        ):
            with pytest.raises(ClientError):
                change(client(endpoint))
    assert [(path.name, path.read_text()) for path in (root / "b").iterdir()] == [("index.json", "ours")]
