"""A large object comes in pieces over several connections; it is whole, and what has come is not fetched again."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from loaderbench.bucket import client as bucket
from loaderbench.bucket import listing, loopback, pieces, transfer
from loaderbench.bucket.client import Bucket, Location, S3Error
from loaderbench.bucket.copy import copy
from loaderbench.bucket.pieces import Begun
from loaderbench.bucket.repository import Repository
from loaderbench.machine import files as cache
from loaderbench.machine.progress import Display

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loaderbench.bucket.listing import Remote
    from tests.proxy import Proxy

ROOT = Path(__file__).parent.parent
PIECE_BYTES, CHUNK_BYTES = 256 << 10, 64 << 10
PIECES = 8
SIZE_BYTES = PIECES * PIECE_BYTES - 1000
URL = "s3://images/large"
KEY = "large/object"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("buckets")
    (root / "images" / "large").mkdir(parents=True)
    (root / "images" / "large" / "object").write_bytes(random.Random(0).randbytes(SIZE_BYTES))
    (root / "writable").mkdir()
    return root


@pytest.fixture(scope="module")
def whole(root: Path) -> bytes:
    return (root / "images" / "large" / "object").read_bytes()


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[str]:
    with loopback.serve(root) as endpoint:
        yield endpoint


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", PIECE_BYTES)
    monkeypatch.setattr(transfer, "CHUNK_BYTES", CHUNK_BYTES)


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is not tried again."""
    monkeypatch.setattr(bucket, "TRIES", 1)
    monkeypatch.setattr(transfer, "TRIES", 1)


def listed(url: str = URL) -> tuple[Bucket, Remote]:
    location = Location.parse(url)
    store = Bucket(location)
    [remote] = [remote for page in listing.pages(store, location) for remote in page]
    return store, remote


def counts(path: Path) -> list[int]:
    """Fetch the object to a path, and return what was told on the way of the bytes that came."""
    counted = list[int]()
    store, remote = listed()
    transfer.fetch(store, remote, path, threading.Event(), counted.append)
    return counted


def lacking(path: Path, remote: Remote) -> list[tuple[int, int]]:
    """The first and last bytes that a file which was begun has not, piece by piece."""
    with closing(Begun(path, remote)) as begun:
        found = [(p.start_bytes + begun.come_bytes(p), p.start_bytes + p.size_bytes - 1) for p in begun.pieces]
    return [(first, last) for first, last in found if first <= last]


def asked(between: Proxy) -> list[tuple[int, int]]:
    """The first and last bytes that were asked for, in order."""
    found = [asked.removeprefix("bytes=").split("-") for _, asked in between.asked]
    return sorted((int(first), int(last)) for first, last in found)


def begun_in(cache: Path) -> Path:
    [path] = [path for path in cache.glob("s3/*/partial/*") if path.stat().st_size]
    return path


def test_several_pieces_are_under_way_at_once_and_the_object_is_whole(
    between: Proxy, whole: bytes, tmp_path: Path
) -> None:
    """Nothing is answered before three requests have come."""
    together = threading.Barrier(3)

    def wait(key: str, nth: int) -> str:
        if key and nth <= 3:
            together.wait(300)
        return ""

    between.fault = wait
    assert (copy(URL, tmp_path, Display()) / "object").read_bytes() == whole
    starts = range(0, SIZE_BYTES, PIECE_BYTES)
    assert asked(between) == [(start, min(start + PIECE_BYTES, SIZE_BYTES) - 1) for start in starts]
    assert not together.broken


COPY = f"""
import sys
from pathlib import Path
from loaderbench.machine.progress import Display
from loaderbench.bucket import copy, pieces, transfer
pieces.PIECE_BYTES, transfer.CHUNK_BYTES = {PIECE_BYTES}, {CHUNK_BYTES}
copy.copy("{URL}", Path(sys.argv[1]), Display())
"""


def test_after_a_kill_within_pieces_exactly_what_lacks_is_asked_for(
    between: Proxy, whole: bytes, tmp_path: Path
) -> None:
    """Of the pieces three come whole, and the others to the middle."""
    between.fault = lambda key, nth: "stall" if key and nth > 3 else ""
    environment = {**loopback.environment(between.endpoint), "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    process = subprocess.Popen([sys.executable, "-c", COPY, str(tmp_path)], env=environment, stdout=subprocess.DEVNULL)
    _, remote = listed()
    deadline = time.monotonic() + 300
    while not within_pieces(tmp_path, remote) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = within_pieces(tmp_path, remote)
    assert left
    between.fault = lambda key, nth: ""
    between.asked.clear()
    assert (copy(URL, tmp_path, Display()) / "object").read_bytes() == whole
    assert asked(between) == left


def within_pieces(cache: Path, remote: Remote) -> list[tuple[int, int]] | None:
    """What lacks, once that is the ends of all pieces but three."""
    for path in cache.glob("s3/*/partial/*"):
        if path.stat().st_size > SIZE_BYTES:
            found = lacking(path, remote)
            if len(found) == PIECES - 3 and all(first % PIECE_BYTES for first, _ in found):
                return found
    return None


@pytest.mark.parametrize("fault", ["reset", "truncate", "busy", "slow"])
def test_a_piece_that_is_cut_goes_on_and_the_others_do_not_notice(
    between: Proxy, whole: bytes, tmp_path: Path, fault: str
) -> None:
    between.fault = lambda key, nth: fault if key and nth in {2, 5} else ""
    assert (copy(URL, tmp_path, Display()) / "object").read_bytes() == whole
    assert between.gets[KEY] == PIECES + 2 * (fault != "slow")
    if fault == "truncate":
        again = [first for first, _ in asked(between) if first % PIECE_BYTES]
        assert len(again) == 2


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize("left", ["part", "all", "damaged", "of another version", "of no use"])
def test_the_next_run_fetches_what_lacks(
    between: Proxy, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    """It finds a part of the object, all of it with nothing on record, a part with a byte that is wrong, or one whose
    record tells of something else; or it finds a server that gives no parts.
    """
    between.fault = lambda key, nth: "truncate" if key and nth > 3 else ""
    with pytest.raises(S3Error, match="broke at fetching s3://images/large/object, again and again"):
        copy(URL, tmp_path, Display())
    begun, (_, remote) = begun_in(tmp_path), listed()
    missing = lacking(begun, remote)
    missing_bytes = sum(last + 1 - first for first, last in missing)
    assert 0 < missing_bytes < SIZE_BYTES
    if left == "all":
        begun.write_bytes(whole)
    elif left == "damaged":
        content = bytearray(begun.read_bytes())
        content[0] ^= 1
        begun.write_bytes(content)
    elif left == "of another version":
        begun.write_bytes(begun.read_bytes()[:-1] + b"?")
    monkeypatch.setattr(transfer, "TRIES", 2)
    between.fault = lambda key, nth: ""
    if left == "of no use":
        between.extra = {KEY: whole}
    between.asked.clear()
    between.sent_bytes.clear()
    assert (copy(URL, tmp_path, Display()) / "object").read_bytes() == whole
    if left == "part":
        assert asked(between) == missing
    sent_bytes = {
        "part": missing_bytes,
        "all": 0,
        "damaged": missing_bytes + SIZE_BYTES,
        "of another version": SIZE_BYTES,
    }
    assert between.sent_bytes[KEY] == sent_bytes.get(left, between.sent_bytes[KEY])


def test_a_server_that_gives_no_parts_gives_the_object_over_one_connection(
    between: Proxy, whole: bytes, tmp_path: Path
) -> None:
    between.extra = {KEY: whole}
    counted = counts(tmp_path / "object")
    assert (tmp_path / "object").read_bytes() == whole
    assert sum(counted) == SIZE_BYTES
    assert [range_ for _, range_ in between.asked].count("") == 1


def test_one_piece_that_is_cut_begins_anew_where_no_parts_are_given(
    between: Proxy, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", SIZE_BYTES)
    between.extra = {KEY: whole}
    between.fault = lambda key, nth: "truncate" if key and nth == 1 else ""
    counted = counts(tmp_path / "object")
    assert (tmp_path / "object").read_bytes() == whole
    assert sum(counted) == SIZE_BYTES
    assert min(counted) < 0
    assert between.gets[KEY] == 2


def test_an_object_that_changes_between_its_pieces_is_not_taken(
    between: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "PIECES_AT_ONCE", 1)
    s3, versions = boto3.client("s3"), [bytes([number]) * SIZE_BYTES for number in range(2)]
    s3.put_object(Bucket="writable", Key="changing/object", Body=versions[0])

    def change(key: str, nth: int) -> str:
        if key and nth == 3:
            s3.put_object(Bucket="writable", Key="changing/object", Body=versions[1])
        return ""

    between.fault = change
    with pytest.raises(S3Error, match=r"changed while it was copied: 1 object \(changing/object\)"):
        copy("s3://writable/changing", tmp_path, Display())
    assert between.gets["changing/object"] < PIECES
    assert not list(tmp_path.glob("s3/*/files/*"))
    assert (copy("s3://writable/changing", tmp_path, Display()) / "object").read_bytes() == versions[1]


def test_a_version_that_is_answered_with_is_compared_too(between: Proxy, tmp_path: Path) -> None:
    """Not every server minds If-Match."""
    between.fault = lambda key, nth: "change" if key and nth == 3 else ""
    with pytest.raises(S3Error, match="changed while it was copied"):
        copy(URL, tmp_path, Display())


def test_what_came_damaged_is_fetched_again_and_taken_back(between: Proxy, whole: bytes, tmp_path: Path) -> None:
    between.fault = lambda key, nth: "damage" if key and nth == 3 else ""
    counted = counts(tmp_path / "object")
    assert (tmp_path / "object").read_bytes() == whole
    assert sum(counted) == SIZE_BYTES
    assert min(counted) == -SIZE_BYTES
    assert max(counted) <= CHUNK_BYTES


def test_a_transfer_stops_within_a_piece_and_goes_on(
    between: Proxy, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", SIZE_BYTES)
    store, remote = listed()
    stop, path = threading.Event(), tmp_path / "object"
    with pytest.raises(transfer.StoppedError):
        transfer.fetch(store, remote, path, stop, lambda _: stop.set())
    assert lacking(path, remote) == [(CHUNK_BYTES, SIZE_BYTES - 1)]
    between.asked.clear()
    transfer.fetch(store, remote, path, threading.Event())
    assert path.read_bytes() == whole
    assert asked(between) == [(CHUNK_BYTES, SIZE_BYTES - 1)]


def test_a_disk_that_fills_up_is_said_and_what_came_stays(
    between: Proxy, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, write = [6 * CHUNK_BYTES], os.pwrite

    def full(file: int, content: Any, start: int) -> int:
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] -= len(content)
        return write(file, content, start)

    with monkeypatch.context() as patch:
        patch.setattr(pieces.os, "pwrite", full)
        with pytest.raises(S3Error, match="has no room for s3://images/large/: no space left on device"):
            copy(URL, tmp_path, Display())
    left = lacking(begun_in(tmp_path), listed()[1])
    assert sum(last + 1 - first for first, last in left) < SIZE_BYTES
    between.asked.clear()
    assert (copy(URL, tmp_path, Display()) / "object").read_bytes() == whole
    assert asked(between) == left


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize("left", ["part", "damaged"])
def test_a_format_that_is_pulled_goes_on_within_a_file(
    between: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    files = tmp_path / "format" / "files"
    files.mkdir(parents=True)
    content = random.Random(1).randbytes(SIZE_BYTES)
    (files / "one").write_bytes(content)
    there, out = Repository("s3://writable/ready"), tmp_path / "back"
    there.publish(files.parent, {"left": left}, Display())
    between.fault = lambda key, nth: "truncate" if key.endswith("one") and nth > 3 else ""
    with pytest.raises(S3Error, match="broke at fetching"):
        there.pull("format", out, Display())
    _, remote = listed("s3://writable/ready/format/files")
    missing = lacking(out / "one", remote)
    assert 0 < sum(last + 1 - first for first, last in missing) < SIZE_BYTES
    if left == "damaged":
        with (out / "one").open("r+b") as file:
            file.write(bytes([content[0] ^ 1]))
    monkeypatch.setattr(transfer, "TRIES", 2)
    between.fault = lambda key, nth: ""
    between.asked.clear()
    assert there.pull("format", out, Display()) is not None
    assert (out / "one").read_bytes() == content
    files_asked = [range_ for key, range_ in between.asked if key.endswith("one")]
    assert len(files_asked) == len(missing) + PIECES * (left == "damaged")


def test_room_is_reckoned_with_what_has_come_and_not_with_the_holes(tmp_path: Path) -> None:
    cache.pulled(tmp_path / "format").mkdir()
    remote = listing.Remote("key", 100 << 20, etag="")
    with closing(Begun(cache.pulled(tmp_path / "format") / "one", remote)) as begun:
        begun.write(begun.pieces[-1], bytes(CHUNK_BYTES))
    assert CHUNK_BYTES <= cache.begun_bytes(tmp_path / "format") < 2 * CHUNK_BYTES
