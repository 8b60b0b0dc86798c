"""A copy from a bucket survives transient faults; a lasting fault is an error that names cause and cure."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.exceptions import UnauthorizedSSOTokenError

from loaderbench.bucket import client as bucket
from loaderbench.bucket import copy as copying
from loaderbench.bucket import loopback, rclone
from loaderbench.bucket.client import S3Error
from loaderbench.bucket.copy import copy
from loaderbench.machine import disk
from loaderbench.machine.progress import Display
from tests.buckets import URL, Shown, content, keys_in
from tests.proxy import point

if TYPE_CHECKING:
    from tests.proxy import Proxy

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("fault", ["reset", "truncate", "slow", "busy", "damage"])
def test_copy_retries_after_transient_errors(
    between: Proxy, original: dict[str, bytes], tmp_path: Path, fault: str
) -> None:
    struck = {f"set/{path}" for path in sorted(original)[::3]}
    between.fault = lambda key, nth: fault if key in struck and nth == 1 else ""
    assert content(copy(URL, tmp_path, Display())) == original
    again = {key for key, count in between.gets.items() if count > 1}
    assert again <= struck
    if fault == "slow":
        assert not again
    elif fault == "busy":
        assert again == struck


@pytest.mark.slow
def test_copy_retries_a_throttled_listing(between: Proxy, original: dict[str, bytes], tmp_path: Path) -> None:
    between.fault = lambda key, nth: "busy" if not key and nth % 3 == 2 else ""
    assert content(copy(URL, tmp_path, Display())) == original


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("denied", "denied fetching s3://images/set/class5/7.jpg"),
        ("expired", "the credentials expired"),
        ("archived", "class5/7.jpg failed: the object is archived. Restore it first"),
        ("busy", "was overloaded while fetching s3://images/set/class5/7.jpg"),
        ("reset", "while fetching s3://images/set/class5/7.jpg; all retries failed"),
        ("truncate", "s3://images/set/class5/7.jpg"),
        ("damage", "7.jpg failed: it arrived damaged, or changed meanwhile: its MD5 is not its ETag"),
        ("change", "class5/7.jpg failed: it arrived damaged, or changed meanwhile"),
    ],
)
def test_a_lasting_error_is_explained_and_copied_files_stay(  # noqa: PLR0913, PLR0917
    between: Proxy,
    original: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    said: str,
) -> None:
    monkeypatch.setattr(rclone, "TRIES", 1)
    between.fault = lambda key, nth: fault if key == "set/class5/7.jpg" else ""
    with pytest.raises(S3Error) as caught:
        copy(URL, tmp_path, Display())
    assert said in str(caught.value)
    assert "Traceback" not in str(caught.value)
    here = keys_in(tmp_path)
    assert "set/class5/7.jpg" not in here
    between.gets.clear()
    between.fault = lambda key, nth: ""
    assert content(copy(URL, tmp_path, Display())) == original
    assert not here & set(between.gets)


def test_error_names_a_missing_bucket(between: Proxy, tmp_path: Path) -> None:
    with pytest.raises(S3Error, match=f"{between.endpoint} has no bucket missing"):
        copy("s3://missing/set", tmp_path, Display())


@pytest.mark.parametrize(
    ("markup", "first", "said"),
    [
        ("<html/>", 1, "is no S3 endpoint"),
        ("<html/>", 3, "is no S3 endpoint"),
        ("<!DOCTYPE html><p>", 1, "gave no readable answer while listing s3://images/set/"),
    ],
)
def test_error_explains_that_the_endpoint_speaks_no_s3(  # noqa: PLR0913, PLR0917
    between: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, markup: str, first: int, said: str
) -> None:
    """For example a sign-in portal answers, from the first request or later."""
    monkeypatch.setattr(bucket, "TRIES", 1)
    between.fault = lambda key, nth: markup if not key and nth >= first else ""
    with pytest.raises(S3Error, match=f"{between.endpoint} {said}.*. Check that AWS_ENDPOINT_URL names"):
        copy(URL, tmp_path, Display())


def test_an_emptied_prefix_is_an_error_and_keeps_the_earlier_copy(between: Proxy, tmp_path: Path) -> None:
    boto3.client("s3").put_object(Bucket="writable", Key="emptied/object", Body=b"1")
    folder = copy("s3://writable/emptied", tmp_path, Display())
    boto3.client("s3").delete_object(Bucket="writable", Key="emptied/object")
    with pytest.raises(S3Error, match="there is no object below s3://writable/emptied/"):
        copy("s3://writable/emptied", tmp_path, Display())
    assert content(folder) == {"object": b"1"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "does not accept these credentials"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "there are no AWS credentials"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "http://127.0.0.1:9 does not answer"),
    ],
)
def test_error_explains_wrong_credentials_and_endpoints(
    between: Proxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, str],
    said: str,
) -> None:
    monkeypatch.setattr(bucket, "TRIES", 1)
    point(monkeypatch, loopback.environment(between.endpoint) | changed)
    with pytest.raises(S3Error, match=said):
        copy(URL, tmp_path, Display())


def test_error_for_expired_credentials_says_how_to_renew_them(
    between: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def expired(self: object) -> None:
        raise UnauthorizedSSOTokenError

    monkeypatch.setattr("botocore.credentials.Credentials.get_frozen_credentials", expired)
    with pytest.raises(S3Error, match=r"the credentials expired while listing .*\. Renew them \(aws sso login"):
        copy(URL, tmp_path, Display())


def test_a_large_object_that_changes_during_its_download_is_not_kept(
    between: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ETag is no MD5, so only the ETag after the last range can tell."""
    monkeypatch.setattr(copying, "_LARGE_BYTES", 1000)
    monkeypatch.setattr(bucket.Bucket, "head", lambda self, key: {"ETag": f"of {key} now"})
    between.extra = {"large/object": b"x" * 2000, "large/small": b"x"}
    with pytest.raises(S3Error, match=r"large/ changed while it was copied: 1 of its objects \(object\)"):
        copy("s3://images/large", tmp_path, Display())
    assert keys_in(tmp_path, "") == {"small"}


def test_a_partial_large_object_is_named_and_fetched_from_scratch(
    between: Proxy, original: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_LARGE_BYTES", 1000)
    folder = copy(URL, tmp_path, Display())
    (folder / "class1" / "3.jpg").rename(folder / "class1" / "3.jpg.0123abcd.partial")
    (folder / "class1" / "3.jpg.0123abcd.partial").write_bytes(bytes(2000))
    shown = Shown()
    assert content(copy(URL, tmp_path, shown)) == original
    assert "class1/3.jpg had not arrived in full; it is fetched from scratch" in shown.said


def test_an_object_that_rclone_silently_omits_is_an_error(
    between: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rclone ignores names that it does not find."""
    download = rclone.download
    monkeypatch.setattr(rclone, "download", lambda b, at, names, *rest: download(b, at, sorted(names)[1:], *rest))
    with pytest.raises(S3Error, match=r"changed while it was copied: 1 of its objects"):
        copy(URL, tmp_path, Display())


def test_copy_refuses_to_start_on_too_small_a_disk(
    between: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=-(1 << 40))  # type: ignore[attr-defined]
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        disk.DiskSpaceError, match=r"the objects of s3://images/set/ need about .* are free; use --cache"
    ):
        copy(URL, tmp_path, Display())


def test_a_full_disk_is_reported_and_copied_files_stay(between: Proxy, tmp_path: Path) -> None:
    """In its own mount namespace, the cache is a disk of 128 KiB."""
    program = (
        "import shutil; from pathlib import Path; from loaderbench.machine.progress import Display\n"
        "from loaderbench.bucket import copy\n"
        "copy.disk.need = lambda *_: None  # do not see it coming\n"
        "try: copy.copy('s3://images/set', Path('.'), Display())\n"
        "except copy.S3Error as error: print(error, len(list(Path('.').rglob('*.jpg'))))"
    )
    inside = f'mount -t tmpfs -o size=128k none {tmp_path} && cd {tmp_path} && exec {sys.executable} -c "$PROGRAM"'
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine gives no mount namespace to make a small disk in")
    done = subprocess.run(
        [*namespace, "sh", "-c", inside],
        env={**os.environ, "PROGRAM": program, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    assert "the disk is full (" in done.stdout
    assert int(done.stdout.split()[-1]) > 0
