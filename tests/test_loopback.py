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
from loaderbench.bucket.client import S3Error
from loaderbench.machine import process


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


@pytest.mark.slow
def test_child_processes_use_the_given_server_and_ignore_other_aws_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    (tmp_path / "buckets" / "artifacts").mkdir(parents=True)
    (tmp_path / "format").mkdir()
    (tmp_path / "format" / "manifest.json").write_text('{"kind": "write"}')
    spec = {"folders": [str(tmp_path / "format")], "to": "s3://artifacts/ready"}
    with loopback.serve(tmp_path / "buckets") as endpoint:
        result = process.run_child(
            "loaderbench.bucket.tasks.publish", spec, tmp_path / "log", environment=loopback.environment(endpoint)
        )
    assert result == {"status": "ok", "reason": ""}
    assert list((tmp_path / "buckets").rglob("manifest.json"))


def test_error_quotes_why_the_server_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(S3Error, match=r"rclone serves nothing on loopback; it said: .*server\.pem"):
        loopback.serve(tmp_path, certificates=tmp_path).__enter__()
