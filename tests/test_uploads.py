"""Publishing resumes file by file, and leaves no unfinished upload."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from loaderbench.bucket import loopback, rclone
from loaderbench.bucket.client import S3Error
from loaderbench.bucket.repository import Repository
from loaderbench.machine.progress import Display

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.proxy import Proxy

ROOT = Path(__file__).parent.parent
PART_BYTES, PARTS, FILES = 5 << 20, 3, 5
FORMAT = "ready/format/files"
HERE = "s3://artifacts/ready"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "buckets" / "artifacts").mkdir(parents=True)
    return tmp_path / "buckets"


@pytest.fixture
def server(root: Path) -> Iterator[str]:
    with loopback.serve(root) as endpoint:
        yield endpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A format of one file that is uploaded in parts, and several small ones."""
    draw, files = random.Random(0), tmp_path / "format" / "files"
    files.mkdir(parents=True)
    (files / "large").write_bytes(draw.randbytes(PARTS * PART_BYTES - 1000))
    for number in range(FILES):
        (files / f"small{number}").write_bytes(draw.randbytes(1000))
    return files.parent


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rclone._OPTIONS, "s3-upload-cutoff", "5M")
    monkeypatch.setitem(rclone._OPTIONS, "s3-chunk-size", "5M")


def hidden() -> list[Any]:
    """Return the unfinished multipart uploads."""
    found: list[Any] = boto3.client("s3").list_multipart_uploads(Bucket="artifacts").get("Uploads", [])
    return found


def is_published(folder: Path, tmp_path: Path) -> bool:
    """Return whether the bucket holds the files of the folder, by manifest and content."""
    there = Repository(HERE)
    if not there.has("format"):
        return False
    assert there.pull("format", tmp_path / "back", Display()) is not None
    back, files = ({p.name: p.read_bytes() for p in f.iterdir()} for f in (tmp_path / "back", folder / "files"))
    return back == files


PUBLISH = f"""
import sys
from pathlib import Path
from loaderbench.machine.progress import Display
from loaderbench.bucket import rclone
from loaderbench.bucket.repository import Repository
rclone._OPTIONS |= {{"s3-upload-cutoff": "5M", "s3-chunk-size": "5M"}}
Repository("{HERE}").publish(Path(sys.argv[1]), {{}}, Display())
"""


def test_publishing_resumes_file_by_file_after_a_kill(
    between: Proxy, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two small files and a part of the large one stall."""
    kept_back = {f"{FORMAT}/small1", f"{FORMAT}/small3", f"{FORMAT}/large?2"}
    between.put_fault = lambda name: "stall" if name in kept_back else ""
    environment = {**loopback.environment(between.endpoint), "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    process = subprocess.Popen([sys.executable, "-c", PUBLISH, str(folder)], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(between.puts) < FILES + PARTS - 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(between.puts) == FILES + PARTS - 3
    assert not is_published(folder, tmp_path)
    assert len(hidden()) == 1
    between.put_fault = lambda name: ""
    between.puts.clear()
    assert Repository(HERE).publish(folder, {}, Display())
    parts = {f"{FORMAT}/large?{number}" for number in range(1, PARTS + 1)}
    small = {name for name in kept_back if "small" in name}
    assert between.puts == dict.fromkeys({*small, *parts, "ready/format/manifest.json"}, 1)
    assert f"{FORMAT}/large had not been uploaded in full; its upload restarts from scratch" in capsys.readouterr().out
    assert is_published(folder, tmp_path)
    assert not hidden()


def test_only_changed_files_are_uploaded_again(between: Proxy, folder: Path, tmp_path: Path) -> None:
    """One small file and the large one changed, and kept their sizes; the manifest was not written yet."""
    there = Repository(HERE)
    there.publish(folder, {}, Display())
    boto3.client("s3").delete_object(Bucket="artifacts", Key="ready/format/manifest.json")
    between.puts.clear()
    there.publish(folder, {}, Display())
    assert set(between.puts) == {"ready/format/manifest.json"}
    boto3.client("s3").delete_object(Bucket="artifacts", Key="ready/format/manifest.json")
    for name in ("small2", "large"):
        path = folder / "files" / name
        path.write_bytes(path.read_bytes()[::-1])
    between.puts.clear()
    there.publish(folder, {}, Display())
    parts = {f"{FORMAT}/large?{number}" for number in range(1, PARTS + 1)}
    assert set(between.puts) == {*parts, f"{FORMAT}/small2", "ready/format/manifest.json"}
    assert is_published(folder, tmp_path)


def test_abandoned_uploads_are_removed(between: Proxy, folder: Path, tmp_path: Path) -> None:
    """One upload is of a file that the artifact lacks; two are of the same file."""
    s3 = boto3.client("s3")
    for name in ("gone", "large", "large"):
        at = {"Bucket": "artifacts", "Key": f"{FORMAT}/{name}"}
        s3.upload_part(**at, UploadId=s3.create_multipart_upload(**at)["UploadId"], PartNumber=1, Body=b"old")
    assert len(hidden()) == 3
    Repository(HERE).publish(folder, {}, Display())
    assert not hidden()
    assert is_published(folder, tmp_path)


def test_publishing_works_without_permission_to_list_uploads(between: Proxy, folder: Path, tmp_path: Path) -> None:
    between.uploads_denied = True
    Repository(HERE).publish(folder, {}, Display())
    assert is_published(folder, tmp_path)


def test_a_refused_part_is_reported_and_nothing_is_published(
    between: Proxy, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rclone, "TRIES", 1)
    between.put_fault = lambda name: "denied" if name.endswith("?3") else ""
    with pytest.raises(S3Error, match="denied writing s3://artifacts/ready/format/files/large"):
        Repository(HERE).publish(folder, {}, Display())
    assert not is_published(folder, tmp_path)


def test_a_format_with_a_missing_file_gets_no_manifest(
    between: Proxy, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rclone ignores names that it does not find."""
    upload = rclone.upload
    monkeypatch.setattr(rclone, "upload", lambda b, root, names, *rest: upload(b, root, names[1:], *rest))
    with pytest.raises(S3Error, match="did not arrive in full"):
        Repository(HERE).publish(folder, {}, Display())
    assert not is_published(folder, tmp_path)
