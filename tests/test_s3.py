"""A prefix of a bucket becomes a folder: complete, verified, each object fetched once."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from loaderbench.bucket import client as bucket
from loaderbench.bucket import copy as copying
from loaderbench.bucket import loopback, rclone
from loaderbench.bucket.client import Location, S3Error, relative
from loaderbench.bucket.copy import copy
from loaderbench.machine.progress import Display
from tests.buckets import URL, Shown, content, keys_in
from tests.proxy import proxy

if TYPE_CHECKING:
    from tests.proxy import Proxy

ROOT = Path(__file__).parent.parent


def client() -> Any:
    import boto3

    return boto3.client("s3")


def test_copy_makes_the_tree_of_a_prefix(between: Proxy, original: dict[str, bytes], tmp_path: Path) -> None:
    assert content(copy(URL, tmp_path, Display())) == original


def test_a_second_copy_fetches_nothing(between: Proxy, original: dict[str, bytes], tmp_path: Path) -> None:
    first = copy(URL, tmp_path, Display())
    assert between.gets == Counter({f"set/{path}": 1 for path in original})
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    assert copy(URL + "/", tmp_path, Display()) == first
    assert set(between.gets.values()) == {1}
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before


def test_a_later_copy_fetches_changed_objects_and_removes_deleted_ones(between: Proxy, tmp_path: Path) -> None:
    s3 = client()
    for key, body in {"a/same": b"1", "a/changed": b"2", "b/gone": b"3"}.items():
        s3.put_object(Bucket="writable", Key=f"later/{key}", Body=body)
    folder = copy("s3://writable/later", tmp_path, Display())
    s3.put_object(Bucket="writable", Key="later/a/changed", Body=b"4")  # of the same size
    s3.put_object(Bucket="writable", Key="later/c/new", Body=b"5")
    s3.delete_object(Bucket="writable", Key="later/b/gone")
    between.gets.clear()
    assert copy("s3://writable/later", tmp_path, Display()) == folder
    assert content(folder) == {"a/same": b"1", "a/changed": b"4", "c/new": b"5"}
    assert between.gets == Counter({"later/a/changed": 1, "later/c/new": 1})
    assert not (folder / "b").exists()


def test_a_restored_version_is_fetched_again(between: Proxy, tmp_path: Path) -> None:
    for body in (b"1", b"2", b"1"):
        client().put_object(Bucket="writable", Key="back/object", Body=body)
        assert content(copy("s3://writable/back", tmp_path, Display())) == {"object": body}


def test_a_locally_changed_file_is_fetched_again(between: Proxy, original: dict[str, bytes], tmp_path: Path) -> None:
    folder = copy(URL, tmp_path, Display())
    (folder / "class1" / "3.jpg").write_bytes(original["class1/3.jpg"][::-1])
    (folder / "class1" / "4.jpg").unlink()
    between.gets.clear()
    assert content(copy(URL, tmp_path, Display())) == original
    assert between.gets == Counter({"set/class1/3.jpg": 1, "set/class1/4.jpg": 1})


@pytest.mark.parametrize("late", ["set/class0", "set/class0/"])
def test_unsafe_keys_are_skipped_and_counted(
    between: Proxy, original: dict[str, bytes], tmp_path: Path, late: str
) -> None:
    """One key is also the name of a folder; it arrives after or before the files of the folder."""
    between.fault = lambda key, nth: "slow" if key == late or (late[-1] == "/" and key.startswith(late)) else ""
    bad = ["set/../../../evil", "set//etc/evil", "set/a//evil", "set/./evil", "set/class0/..", f"set/{'long' * 80}"]
    between.extra = dict.fromkeys([*bad, "set/class0"], b"evil") | {"set/class2/": b""}
    shown = Shown()
    before = set(tmp_path.parent.rglob("evil"))
    assert content(copy(URL, tmp_path / "cache", shown)) == original
    assert set(tmp_path.parent.rglob("evil")) == before
    said = " ".join(shown.said)
    assert "their keys are no paths of a tree: 6 (set/../../../evil, set//etc/evil, set/a//evil, " in said
    assert "other keys make folders of their names: 1 (set/class0)" in said
    assert all(not between.gets[key] for key in bad)


def test_etags_of_encrypted_objects_are_not_taken_for_md5s(between: Proxy, tmp_path: Path) -> None:
    """If all objects are encrypted, each is fetched once; beside plain objects, which are checked, twice."""
    between.extra = {f"secrets/secret{number}": b"secret" for number in range(100)}
    between.extra |= {f"set/class0/secret{number}": b"secret" for number in range(100)}
    between.encrypted = set(between.extra)
    for url in ("s3://images/secrets", URL):
        folder = copy(url, tmp_path, Display())
        assert len([path for path in folder.rglob("secret*") if path.read_bytes() == b"secret"]) == 100
    times = {key: 1 + key.startswith("set/class0/secret") for key in between.gets}
    assert between.gets == times


def test_plain_objects_beside_an_encrypted_one_are_verified(between: Proxy, tmp_path: Path) -> None:
    between.extra = {"set/secret": b"secret", "set/plain": b"plain"}
    between.encrypted = {"set/secret"}
    between.fault = lambda key, nth: "damage" if key == "set/plain" and nth == 1 else ""
    folder = copy(URL, tmp_path, Display())
    assert {name: (folder / name).read_bytes() for name in ("secret", "plain")} == {
        "secret": b"secret",
        "plain": b"plain",
    }
    assert between.gets["set/plain"] == 2


def test_copy_works_if_listing_the_bare_prefix_is_denied(
    between: Proxy, original: dict[str, bytes], tmp_path: Path
) -> None:
    """A policy may permit to list only `set/*`; the second listing is that of `set`."""
    between.fault = lambda key, nth: "denied" if not key and nth == 2 else ""
    assert content(copy(URL, tmp_path, Display())) == original


def test_copy_lists_nested_folders(between: Proxy, tmp_path: Path) -> None:
    """Each folder is listed by its own request."""
    expected = {}
    for number in range(20):
        key = "/".join(f"level{level}" for level in range(number % 5)) + f"/{number}" if number % 5 else str(number)
        expected[key] = key.encode()
        client().put_object(Bucket="writable", Key=f"deep/{key}", Body=expected[key])
    assert content(copy("s3://writable/deep", tmp_path, Display())) == expected


def test_a_log_shows_progress_rate_and_remaining_time_of_a_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loaderbench.machine.progress._LINE_S", 0.0)
    shown = Shown()
    with shown.transfer("copying s3://bucket/") as on_progress:
        on_progress(0, None)
        on_progress(4_000_000, 10_000_000)
        on_progress(5_000_000, 10_000_000)
    assert shown.said[0] == "copying s3://bucket/ ..."
    assert re.fullmatch(r"5\.0/10\.0 MB [\d.,]+ [kMGTP]B/s left \d+:\d\d:\d\d", shown.said[-1])


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("n01/a.jpg", "n01/a.jpg"),
        ("...", "..."),
        ("", None),
        ("/etc/passwd", None),
        ("a/../b", None),
        ("a/.", None),
        ("a//b", None),
        ("a/", None),
        ("a\0b", None),
        ("a\nb", None),
        ("ü" * 128, None),
        ("a/" * 2000 + "b", None),
    ],
)
def test_only_keys_that_name_a_path_below_the_folder_are_copied(key: str, path: str | None) -> None:
    assert relative(key) == path


@pytest.mark.parametrize("url", ["s3://", "s3:///prefix", "s3://UPPER CASE/x", "gs://bucket/x", "s3://../x"])
def test_a_url_without_a_bucket_is_refused(url: str) -> None:
    with pytest.raises(S3Error, match="names no bucket; write s3://bucket/prefix"):
        Location.parse(url)


@pytest.mark.parametrize(
    ("name", "endpoint", "provider", "path_style"),
    [
        ("images", "https://s3.eu-west-1.amazonaws.com", "AWS", "false"),
        ("my.images", "https://s3.eu-west-1.amazonaws.com", "AWS", "true"),
        ("images", "http://127.0.0.1:9000", "Other", "true"),
        ("images", "https://amazonaws.com.example.org", "Other", "true"),
    ],
)
def test_rclone_uses_the_endpoint_of_boto3_and_ignores_the_users_settings(
    monkeypatch: pytest.MonkeyPatch, name: str, endpoint: str, provider: str, path_style: str
) -> None:
    monkeypatch.setenv("RCLONE_BWLIMIT", "1k")
    found = bucket.Bucket.__new__(bucket.Bucket)
    found.name, found.endpoint, found.region = name, endpoint, "eu-west-1"
    variables = rclone._reaching(found)
    assert (variables["RCLONE_S3_PROVIDER"], variables["RCLONE_S3_FORCE_PATH_STYLE"]) == (provider, path_style)
    assert (variables["RCLONE_S3_ENDPOINT"], variables["RCLONE_S3_REGION"]) == (endpoint, "eu-west-1")
    assert "RCLONE_BWLIMIT" not in variables


COPY = "import sys; from pathlib import Path; from loaderbench.machine.progress import Display\n"
COPY += "from loaderbench.bucket.copy import copy\n"
COPY += "copy(sys.argv[1], Path(sys.argv[2]), Display())"


@pytest.mark.slow
def test_a_copy_killed_20_times_resumes_and_fetches_no_arrived_file_again(
    server: str, bucket_root: Path, tmp_path: Path
) -> None:
    """The process is killed by SIGKILL when the proxy has seen a random number of its requests, listings included.

    Objects in flight are fetched again: at most as many as are copied at once.
    """
    source = bucket_root / "images" / "killed"
    draw = random.Random()
    with proxy(server) as between:
        environment = {
            **loopback.environment(between.endpoint),
            "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        }
        command = [sys.executable, "-c", COPY, "s3://images/killed", str(tmp_path)]
        for _ in range(20):
            before = between.gets.copy()
            here = keys_in(tmp_path, "killed/")
            point = between.requests + draw.randrange(1, 90)
            process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            reached = between.wait_for(point)
            process.send_signal(signal.SIGKILL)
            said = process.communicate()[1]
            assert reached, said
            assert process.returncode == -signal.SIGKILL, said
            assert not {key for key in here if between.gets[key] > before[key]}
        here = keys_in(tmp_path, "killed/")
        assert here
        before = between.gets.copy()
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
        assert not {key for key in here if between.gets[key] > before[key]}
    [folder] = tmp_path.glob("s3/*/files")
    assert content(folder) == content(source)
    assert between.gets.total() <= len(content(source)) + 20 * rclone.AT_ONCE


@pytest.mark.slow
def test_a_million_keys_take_less_than_400_mib(tmp_path: Path) -> None:
    """The bucket is simulated; rclone, which reads the list of keys, takes its own memory."""
    command = [sys.executable, "-m", "tests.perf.million_keys"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}", "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=600)
    found = re.search(r"(\d+) objects, handed to rclone after .* s\n(\d+) MiB", done.stdout)
    assert found
    assert int(found[1]) == 1_000_000
    assert int(found[2]) < 400


def test_a_disk_that_ignores_case_is_told(between: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(_: object, __: object, lacking: dict[str, object], files: Path, ___: object) -> None:
        for path in lacking:
            (files / path.casefold()).parent.mkdir(exist_ok=True)
            (files / path.casefold()).touch()

    between.extra = {"set/cat.jpg": b"1", "set/Cat.jpg": b"2"}
    monkeypatch.setattr(copying, "_fetch", fetch)
    with pytest.raises(S3Error, match=r"differ only in upper and lower case \(cat.jpg\)"):
        copy(URL, tmp_path, Display())
