"""A prefix of a bucket becomes a folder: whole, verified, nothing fetched twice, and what goes wrong is said."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import UnauthorizedSSOTokenError

from loaderbench.bucket import client as bucket
from loaderbench.bucket import copy as copying
from loaderbench.bucket import listing, loopback, transfer
from loaderbench.bucket.client import Location, S3Error
from loaderbench.bucket.copy import copy, relative
from loaderbench.bucket.copy_journal import Journal
from loaderbench.bucket.listing import Remote
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


def keys_in(cache: Path) -> set[str]:
    """The keys whose files are in place in the only copy of a cache."""
    return {f"set/{path}" for folder in cache.glob("s3/*/files") for path in content(folder)}


def on_record(cache: Path, prefix: str) -> set[str]:
    """The keys below the prefix whose files are whole in the only copy of a cache, and on record as such."""
    whole = set()
    for folder in cache.glob("s3/*"):
        with closing(Journal(folder / "journal")) as journal:
            for path, found in content(folder / "files").items():
                remote = Remote(f"{prefix}{path}", len(found), hashlib.md5(found, usedforsecurity=False).hexdigest())
                if journal.holds(remote, (folder / "files" / path).stat().st_mtime_ns):
                    whole.add(remote.key)
    return whole


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
        between.prefix = "later/"
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
        assert (
            "their keys are no paths of a tree: 6 objects (set/../../../evil, set//etc/evil, set/a//evil and 3 more)"
            in said
        )
        assert "other keys make folders of their names: 1 object (set/class0)" in said
        assert all(not between.gets[key] for key in bad)

    def test_the_etag_of_an_encrypted_object_is_not_taken_for_an_md5(self, between: Proxy, tmp_path: Path) -> None:
        between.extra = {f"set/class0/secret{number}": b"secret" for number in range(100)}
        between.encrypted = set(between.extra)
        folder = copy(URL, tmp_path, Display())
        assert all((folder / key.removeprefix("set/")).read_bytes() == b"secret" for key in between.extra)
        assert set(between.gets.values()) == {1}

    def test_beside_an_encrypted_object_the_others_are_verified_still(self, between: Proxy, tmp_path: Path) -> None:
        between.extra = {"set/secret": b"secret", "set/plain": b"plain"}
        between.encrypted = {"set/secret"}
        between.fault = lambda key, nth: "damage" if key == "set/plain" and nth == 1 else ""
        store = bucket.Bucket(Location.parse(URL))
        for key, body in between.extra.items():
            etag = hashlib.md5(body + b"and something" * (key in between.encrypted)).hexdigest()  # noqa: S324
            remote = listing.Remote(key, len(body), etag)
            transfer.fetch(store, remote, tmp_path / "object", threading.Event())
            assert (tmp_path / "object").read_bytes() == body
        assert between.gets == {"set/secret": 1, "set/plain": 2}

    def test_a_denial_of_the_bare_key_does_not_deny_what_is_below(
        self, between: Proxy, original: dict[str, bytes], tmp_path: Path
    ) -> None:
        """A policy may permit to list `set/*` alone; the second listing is that of `set`."""
        between.fault = lambda key, nth: "denied" if not key and nth == 2 else ""
        assert content(copy(URL, tmp_path, Display())) == original

    def test_an_object_larger_than_a_chunk_comes_in_chunks_and_is_verified_too(
        self, between: Proxy, original: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(transfer, "CHUNK_BYTES", 500)
        between.fault = lambda key, nth: "damage" if key == "set/class1/3.jpg" and nth == 1 else ""
        assert content(copy(URL, tmp_path, Display())) == original
        assert between.gets["set/class1/3.jpg"] == 2

    def test_many_folders_and_one_are_listed_alike(self, between: Proxy, tmp_path: Path) -> None:
        """Folders are listed by requests of their own; one below the other is reached too."""
        between.prefix = "deep/"
        expected = {}
        for number in range(20):
            key = "/".join(f"level{level}" for level in range(number % 5)) + f"/{number}" if number % 5 else str(number)
            expected[key] = key.encode()
            client().put_object(Bucket="writable", Key=f"deep/{key}", Body=expected[key])
        assert content(copy("s3://writable/deep", tmp_path, Display())) == expected


@pytest.mark.parametrize("namespace", ["", ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'])
def test_the_objects_of_a_listing_are_read_and_the_rest_is_left_to_botocore(namespace: str) -> None:
    objects = "<Contents><Key>a&amp;b</Key><Size>3</Size><ETag>&quot;e&quot;</ETag><Owner/></Contents>" * 2
    folder = "<CommonPrefixes><Prefix>c/</Prefix></CommonPrefixes>"
    answer = {"body": f"<ListBucketResult{namespace}>{objects}{folder}</ListBucketResult>".encode()}
    read: dict[str, Any] = {}
    listing.read_objects(answer, read)
    assert read == {"Contents": [{"Key": "a&b", "Size": "3", "ETag": '"e"'}] * 2}
    assert b"Contents" not in answer["body"]
    assert b"c/" in answer["body"]


def test_an_answer_that_is_no_list_of_objects_is_left_to_botocore() -> None:
    answer = {"body": b"<html><Contents/></html>"}
    read: dict[str, Any] = {}
    listing.read_objects(answer, read)
    assert answer == {"body": b"<html><Contents/></html>"}
    assert not read


def test_a_listing_that_is_cut_short_is_left_to_botocore() -> None:
    answer = {"body": b"<ListBucketResult><Contents>"}
    read: dict[str, Any] = {}
    listing.read_objects(answer, read)
    assert answer == {"body": b"<ListBucketResult><Contents>"}
    assert not read


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
            ("archived", "class5/7.jpg failed: it is archived; restore it first"),
            ("busy", "was overloaded at fetching s3://images/set/class5/7.jpg"),
            ("reset", "broke at fetching s3://images/set/class5/7.jpg, again and again"),
            ("truncate", "s3://images/set/class5/7.jpg"),
            ("damage", "7.jpg came damaged, again and again: its MD5 is not its ETag"),
            ("change", "changed while it was copied: 1 object (set/class5/7.jpg)"),
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
        monkeypatch.setattr(bucket, "TRIES", 2)
        monkeypatch.setattr(transfer, "TRIES", 2)
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
            ("<!DOCTYPE html><p>", 1, "gave no answer that can be read at listing s3://images/set/"),
        ],
    )
    def test_what_is_no_s3_endpoint_is_said(  # noqa: PLR0913, PLR0917
        self, between: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, markup: str, first: int, said: str
    ) -> None:
        """A portal for example, before which one has to sign in, at once or after a while."""
        monkeypatch.setattr(bucket, "TRIES", 1)
        between.fault = lambda key, nth: markup if not key and nth >= first else ""
        with pytest.raises(S3Error, match=f"{between.endpoint} {said}.*; see that AWS_ENDPOINT_URL names"):
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

        monkeypatch.setattr("obstore.auth.boto3.Boto3CredentialProvider.__call__", expired)
        with pytest.raises(S3Error, match=r"the credentials expired, seen at fetching .*; renew them \(aws sso login"):
            copy(URL, tmp_path, Display())

    def test_too_little_room_is_said(self, between: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        usage = shutil.disk_usage(tmp_path)._replace(free=-(1 << 40))  # type: ignore[attr-defined]
        monkeypatch.setattr(copying.shutil, "disk_usage", lambda _: usage)
        with pytest.raises(S3Error, match=r"has no room for s3://images/set/: .* GiB are free; make some there"):
            copy(URL, tmp_path, Display())

    def test_a_disk_that_fills_up_is_said_and_what_was_copied_stays(self, between: Proxy, tmp_path: Path) -> None:
        """A disk of 128 KiB takes the place of the cache, in a namespace of its own."""
        program = (
            "import shutil; from pathlib import Path; from loaderbench.machine.progress import Display\n"
            "from loaderbench.bucket import copy\n"
            "copy.shutil.disk_usage = lambda _: shutil._ntuple_diskusage(1 << 40, 0, 1 << 40)  # do not see it coming\n"
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
        assert "has no room for s3://images/set/: no space left on device" in done.stdout
        assert int(done.stdout.split()[-1]) > 0


COPY = "import sys; from pathlib import Path; from loaderbench.machine.progress import Display\n"
COPY += "from loaderbench.bucket.copy import copy\n"
COPY += "copy(sys.argv[1], Path(sys.argv[2]), Display())"


def test_after_a_kill_at_any_of_20_points_the_copy_goes_on_and_nothing_on_record_is_fetched_again(
    server: str, bucket_root: Path, tmp_path: Path
) -> None:
    """The process is killed by SIGKILL when the proxy has seen a random number of its requests, listings included.

    What is fetched again are objects in flight: whose request had come, but whose file was not on record when the
    process was dead: at most as many as there are connections.
    """
    source = bucket_root / "images" / "killed"
    draw = random.Random()
    runs = 0
    with proxy(server) as between:
        between.prefix = "killed/"
        environment = {
            **loopback.environment(between.endpoint),
            "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        }
        command = [sys.executable, "-c", COPY, "s3://images/killed", str(tmp_path)]
        for _ in range(20):
            before = between.gets.copy()
            here = on_record(tmp_path, "killed/")
            point = between.requests + draw.randrange(1, 90)
            process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            reached = between.wait_for(point)
            process.send_signal(signal.SIGKILL)
            said = process.communicate()[1]
            assert reached, said
            assert process.returncode == -signal.SIGKILL, said
            runs += 1
            again = {key for key in here if between.gets[key] > before[key]}
            assert not again
        here = on_record(tmp_path, "killed/")
        assert here
        before = between.gets.copy()
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
        assert not {key for key in here if between.gets[key] > before[key]}
    [folder] = tmp_path.glob("s3/*/files")
    assert content(folder) == content(source)
    assert runs == 20
    assert between.gets.total() <= len(content(source)) + 20 * copying.CONNECTIONS
    assert [path.name for path in folder.parent.iterdir() if path.name == "partial"] == []


@pytest.mark.slow
def test_a_million_keys_take_less_than_300_mib_and_the_first_is_fetched_while_they_are_listed(tmp_path: Path) -> None:
    """Simulated at the API: the client's listing, and fetching one object. A second page comes only after that."""
    command = [sys.executable, "-m", "tests.perf.million_keys"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}", "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=600)
    found = re.search(r"(\d+) objects, the first after .* s\n(\d+) MiB", done.stdout)
    assert found
    assert int(found[1]) == 1_000_000
    assert int(found[2]) < 300
