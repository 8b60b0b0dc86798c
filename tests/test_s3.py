"""A prefix of a bucket becomes a folder: whole, verified, nothing fetched twice, and what goes wrong is said."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import UnauthorizedSSOTokenError

from loaderbench.bucket import client as bucket
from loaderbench.bucket import copy as copying
from loaderbench.bucket import loopback, rclone
from loaderbench.bucket.client import Location, S3Error, relative
from loaderbench.bucket.copy import copy
from loaderbench.machine import disk
from loaderbench.machine.progress import Display
from tests.proxy import point, proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.proxy import Proxy

ROOT = Path(__file__).parent.parent
URL = "s3://images/set"
CLASSES, PER_CLASS = 6, 20


class Shown(Display):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def grow(folder: Path, classes: int, per_class: int) -> Path:
    """Files of random bytes, among them an empty one, in class folders."""
    draw = random.Random(0)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(per_class):
            (folder / f"class{label}" / f"{number}.jpg").write_bytes(draw.randbytes(draw.randrange(1, 4000)))
    (folder / "class0" / "empty.jpg").write_bytes(b"")
    (folder / "class0" / "a b+c%20d#?ü&=~.jpg").write_bytes(b"odd name")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """What the files below a folder hold."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def keys_in(cache: Path, prefix: str = "set/") -> set[str]:
    """The keys whose files are in place in the only copy of a cache."""
    there = {path for folder in cache.glob("s3/*/files") for path in content(folder)}
    return {f"{prefix}{path}" for path in there if not path.endswith(".partial")}


@pytest.fixture(scope="module")
def bucket_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("buckets")
    grow(root / "images" / "set", CLASSES, PER_CLASS)
    grow(root / "images" / "killed", 10, 100)  # now, for the server keeps in mind what a folder holds
    (root / "writable").mkdir()
    return root


@pytest.fixture(scope="module")
def server(bucket_root: Path) -> Iterator[str]:
    with loopback.serve(bucket_root) as endpoint:
        yield endpoint


@pytest.fixture
def original(bucket_root: Path) -> dict[str, bytes]:
    return content(bucket_root / "images" / "set")


def client() -> Any:
    import boto3

    return boto3.client("s3")


class TestCopy:
    def test_a_prefix_becomes_the_same_tree(self, between: Proxy, original: dict[str, bytes], tmp_path: Path) -> None:
        assert content(copy(URL, tmp_path, Display())) == original

    def test_what_is_there_is_not_fetched_again(
        self, between: Proxy, original: dict[str, bytes], tmp_path: Path
    ) -> None:
        first = copy(URL, tmp_path, Display())
        assert between.gets == Counter({f"set/{path}": 1 for path in original})
        before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
        assert copy(URL + "/", tmp_path, Display()) == first
        assert set(between.gets.values()) == {1}
        assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before

    def test_a_later_run_fetches_what_changed_and_removes_what_is_gone(self, between: Proxy, tmp_path: Path) -> None:
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

    def test_a_version_that_comes_back_is_fetched_again(self, between: Proxy, tmp_path: Path) -> None:
        for body in (b"1", b"2", b"1"):
            client().put_object(Bucket="writable", Key="back/object", Body=body)
            assert content(copy("s3://writable/back", tmp_path, Display())) == {"object": body}

    def test_a_file_that_was_changed_here_is_fetched_again(
        self, between: Proxy, original: dict[str, bytes], tmp_path: Path
    ) -> None:
        folder = copy(URL, tmp_path, Display())
        (folder / "class1" / "3.jpg").write_bytes(original["class1/3.jpg"][::-1])
        (folder / "class1" / "4.jpg").unlink()
        between.gets.clear()
        assert content(copy(URL, tmp_path, Display())) == original
        assert between.gets == Counter({"set/class1/3.jpg": 1, "set/class1/4.jpg": 1})

    @pytest.mark.parametrize("late", ["set/class0", "set/class0/"])
    def test_keys_that_are_no_paths_are_left_out_and_counted(
        self, between: Proxy, original: dict[str, bytes], tmp_path: Path, late: str
    ) -> None:
        """One key is also the name of a folder; it comes after what lies in the folder, or before."""
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

    def test_the_etag_of_an_encrypted_object_is_not_taken_for_an_md5(self, between: Proxy, tmp_path: Path) -> None:
        """All in one bucket are fetched once; beside others, which are checked, those are fetched twice."""
        between.extra = {f"secrets/secret{number}": b"secret" for number in range(100)}
        between.extra |= {f"set/class0/secret{number}": b"secret" for number in range(100)}
        between.encrypted = set(between.extra)
        for url in ("s3://images/secrets", URL):
            folder = copy(url, tmp_path, Display())
            assert len([path for path in folder.rglob("secret*") if path.read_bytes() == b"secret"]) == 100
        times = {key: 1 + key.startswith("set/class0/secret") for key in between.gets}
        assert between.gets == times

    def test_beside_an_encrypted_object_the_others_are_verified_still(self, between: Proxy, tmp_path: Path) -> None:
        between.extra = {"set/secret": b"secret", "set/plain": b"plain"}
        between.encrypted = {"set/secret"}
        between.fault = lambda key, nth: "damage" if key == "set/plain" and nth == 1 else ""
        folder = copy(URL, tmp_path, Display())
        assert {name: (folder / name).read_bytes() for name in ("secret", "plain")} == {
            "secret": b"secret",
            "plain": b"plain",
        }
        assert between.gets["set/plain"] == 2

    def test_a_denial_of_the_bare_key_does_not_deny_what_is_below(
        self, between: Proxy, original: dict[str, bytes], tmp_path: Path
    ) -> None:
        """A policy may permit to list `set/*` alone; the second listing is that of `set`."""
        between.fault = lambda key, nth: "denied" if not key and nth == 2 else ""
        assert content(copy(URL, tmp_path, Display())) == original

    def test_many_folders_and_one_are_listed_alike(self, between: Proxy, tmp_path: Path) -> None:
        """Folders are listed by requests of their own; one below the other is reached too."""
        expected = {}
        for number in range(20):
            key = "/".join(f"level{level}" for level in range(number % 5)) + f"/{number}" if number % 5 else str(number)
            expected[key] = key.encode()
            client().put_object(Bucket="writable", Key=f"deep/{key}", Body=expected[key])
        assert content(copy("s3://writable/deep", tmp_path, Display())) == expected


def test_a_log_is_told_how_far_a_transfer_is_its_rate_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_key_is_a_path_below_or_none(key: str, path: str | None) -> None:
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
def test_rclone_reaches_the_endpoint_that_boto3_found_and_heeds_no_settings_of_its_user(
    monkeypatch: pytest.MonkeyPatch, name: str, endpoint: str, provider: str, path_style: str
) -> None:
    monkeypatch.setenv("RCLONE_BWLIMIT", "1k")
    found = bucket.Bucket.__new__(bucket.Bucket)
    found.name, found.endpoint, found.region = name, endpoint, "eu-west-1"
    variables = rclone._reaching(found)
    assert (variables["RCLONE_S3_PROVIDER"], variables["RCLONE_S3_FORCE_PATH_STYLE"]) == (provider, path_style)
    assert (variables["RCLONE_S3_ENDPOINT"], variables["RCLONE_S3_REGION"]) == (endpoint, "eu-west-1")
    assert "RCLONE_BWLIMIT" not in variables


class TestFaults:
    @pytest.mark.parametrize("fault", ["reset", "truncate", "slow", "busy", "damage"])
    def test_what_passes_is_tried_again_and_the_tree_is_whole(
        self, between: Proxy, original: dict[str, bytes], tmp_path: Path, fault: str
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

    def test_a_listing_that_is_throttled_is_asked_for_again(
        self, between: Proxy, original: dict[str, bytes], tmp_path: Path
    ) -> None:
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
    def test_what_does_not_pass_is_said_and_what_was_copied_stays(  # noqa: PLR0913, PLR0917
        self,
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

    def test_a_bucket_that_is_not_there_is_named(self, between: Proxy, tmp_path: Path) -> None:
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
    def test_what_is_no_s3_endpoint_is_said(  # noqa: PLR0913, PLR0917
        self, between: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, markup: str, first: int, said: str
    ) -> None:
        """A portal for example, before which one has to sign in, at once or after a while."""
        monkeypatch.setattr(bucket, "TRIES", 1)
        between.fault = lambda key, nth: markup if not key and nth >= first else ""
        with pytest.raises(S3Error, match=f"{between.endpoint} {said}.*. Check that AWS_ENDPOINT_URL names"):
            copy(URL, tmp_path, Display())

    def test_a_prefix_without_objects_is_said_and_the_earlier_copy_is_kept(
        self, between: Proxy, tmp_path: Path
    ) -> None:
        with pytest.raises(S3Error, match="there is no object below s3://images/no/such/"):
            copy("s3://images/no/such", tmp_path, Display())

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "does not accept these credentials"),
            ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "there are no AWS credentials"),
            ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "http://127.0.0.1:9 does not answer"),
        ],
    )
    def test_what_is_wrong_with_the_environment_is_said(
        self,
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

    def test_credentials_that_expire_and_cannot_be_renewed_are_said(
        self, between: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def expired(self: object) -> None:
            raise UnauthorizedSSOTokenError

        monkeypatch.setattr("botocore.credentials.Credentials.get_frozen_credentials", expired)
        with pytest.raises(S3Error, match=r"the credentials expired while listing .*\. Renew them \(aws sso login"):
            copy(URL, tmp_path, Display())

    def test_a_large_object_that_changes_while_its_ranges_come_is_said_and_not_kept(
        self, between: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its ETag is no MD5, so only the ETag after the last range can tell."""
        monkeypatch.setattr(copying, "_LARGE_BYTES", 1000)
        monkeypatch.setattr(bucket.Bucket, "head", lambda self, key: {"ETag": f"of {key} now"})
        between.extra = {"large/object": b"x" * 2000, "large/small": b"x"}
        with pytest.raises(S3Error, match=r"large/ changed while it was copied: 1 of its objects \(object\)"):
            copy("s3://images/large", tmp_path, Display())
        assert keys_in(tmp_path, "") == {"small"}

    def test_a_large_object_of_which_a_part_is_left_is_named_and_the_part_removed(
        self, between: Proxy, original: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(copying, "_LARGE_BYTES", 1000)
        folder = copy(URL, tmp_path, Display())
        (folder / "class1" / "3.jpg").rename(folder / "class1" / "3.jpg.0123abcd.partial")
        (folder / "class1" / "3.jpg.0123abcd.partial").write_bytes(bytes(2000))
        shown = Shown()
        assert content(copy(URL, tmp_path, shown)) == original
        assert "class1/3.jpg had not arrived in full; it is fetched from scratch" in shown.said

    def test_an_object_that_does_not_come_without_an_error_is_said(
        self, between: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """rclone copies what it finds of the names that it is given, and does not mind those that it does not."""
        download = rclone.download
        monkeypatch.setattr(rclone, "download", lambda b, at, names, *rest: download(b, at, sorted(names)[1:], *rest))
        with pytest.raises(S3Error, match=r"changed while it was copied: 1 of its objects"):
            copy(URL, tmp_path, Display())

    def test_too_little_room_is_said(self, between: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        usage = shutil.disk_usage(tmp_path)._replace(free=-(1 << 40))  # type: ignore[attr-defined]
        monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage)
        with pytest.raises(
            disk.DiskSpaceError, match=r"the objects of s3://images/set/ need about .* GiB is free; use --cache"
        ):
            copy(URL, tmp_path, Display())

    def test_a_disk_that_fills_up_is_said_and_what_was_copied_stays(self, between: Proxy, tmp_path: Path) -> None:
        """A disk of 128 KiB takes the place of the cache, in a namespace of its own."""
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


COPY = "import sys; from pathlib import Path; from loaderbench.machine.progress import Display\n"
COPY += "from loaderbench.bucket.copy import copy\n"
COPY += "copy(sys.argv[1], Path(sys.argv[2]), Display())"


def test_after_a_kill_at_any_of_20_points_the_copy_resumes_and_no_file_that_arrived_is_fetched_again(
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
