"""How does one object become a file? Fetched, verified, and tried again where the connection failed; a large one in
pieces, over several connections at once.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
from contextlib import closing
from dataclasses import replace
from functools import partial
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, TypeVar

from loaderbench.bucket.client import GO_ON, TRIES, PassingError, S3Error
from loaderbench.bucket.pieces import Begun, ahead, begun_bytes
from loaderbench.machine.files import full_disk_explained
from loaderbench.machine.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from loaderbench.bucket.client import Bucket
    from loaderbench.bucket.listing import Remote
    from loaderbench.bucket.pieces import Piece

CHUNK_BYTES = 1 << 20
"""As much of an object as one thread holds at once."""
_GONE = {"404", "412", "InvalidRange", "NoSuchKey", "PreconditionFailed"}
"""S3's error codes for an object that is not there, or not as it was asked for."""
_MD5 = re.compile(r"[0-9a-f]{32}")
_Result = TypeVar("_Result")


class ChangedError(S3Error):
    """The object is no longer the one that was listed."""


class StoppedError(Exception):
    """The transfer was told to stop."""


class _DamagedError(PassingError):
    """What came is not what the ETag tells of."""


class _NoPartsError(Exception):
    """The server gives whole objects alone."""


def enough_room(folder: Path, what: str) -> AbstractContextManager[None]:
    """Raise S3Error where the disk of the folder, into which `what` goes, is full."""
    return full_disk_explained(lambda why: no_room(folder, what, why.lower()))


def no_room(folder: Path, what: str, why: str) -> S3Error:
    """Return the error that says so."""
    return S3Error(f"{folder} has no room for {what}: {why}; make some there, or use --cache, and {GO_ON}")


def is_large(remote: Remote) -> bool:
    """Return whether the object comes in chunks, and goes on where an earlier attempt left its file.

    A smaller one is held whole and comes anew.
    """
    return remote.size_bytes > CHUNK_BYTES


def look(bucket: Bucket, remote: Remote) -> Remote:
    """Return the object with its ETag. Raises ChangedError if it is gone or has another size, or S3Error."""
    what = _what(bucket, remote)
    with bucket.explained(f"asking for {what}"):
        answer = _ask(bucket.client.head_object, bucket, remote)
    if answer["ContentLength"] != remote.size_bytes:
        raise ChangedError(f"{what} has changed")
    return replace(remote, etag=_etag(answer))


def fetch(
    bucket: Bucket, remote: Remote, path: Path, stop: Event, on_bytes: Callable[[int], None] = lambda _: None
) -> int:
    """Write the object to `path`, whole and verified: its size, its ETag, and its content where the ETag is an MD5.

    Return the file's time of change in ns. What an earlier call left of a large object at `path` is not fetched again.
    `stop`: ends it soon once set. `on_bytes`: told how many have come, by one thread at a time; less than 0, how many
    came in vain. Raises ChangedError, S3Error, StoppedError, or OSError if the file cannot be written.
    """
    if is_large(remote):
        attempt = partial(_large, bucket, remote, path, stop, on_bytes)
        return _again(attempt, stop, _DamagedError)  # what else may pass, each piece has tried again
    return _again(partial(_small, bucket, remote, path, on_bytes), stop)


def _again(attempt: Callable[[], _Result], stop: Event, passing: type[PassingError] = PassingError) -> _Result:
    for number in range(TRIES - 1):
        if stop.is_set():
            raise StoppedError
        try:
            return attempt()
        except passing:
            stop.wait(random.uniform(0, 0.25 * 2**number))  # all at once would overload it again
    return attempt()


def _small(bucket: Bucket, remote: Remote, path: Path, on_bytes: Callable[[int], None]) -> int:
    """Hold an object whole, and write it once it is verified.

    Thousands come in a second, and Python has one lock for all threads: each call that lets go of it costs a switch.
    """
    import obstore

    what = _what(bucket, remote)
    with bucket.explained(f"fetching {what}"):
        try:
            found = obstore.get(bucket.store, remote.key)
        except FileNotFoundError:
            raise ChangedError(f"{what} is gone") from None
        etag = (found.meta["e_tag"] or "").strip('"')
        if found.meta["size"] != remote.size_bytes or (remote.etag and etag != remote.etag):
            raise ChangedError(f"{what} has changed")
        content = memoryview(found.bytes())
    if len(content) != remote.size_bytes:
        came = f"{len(content)} bytes of {what} came instead of {remote.size_bytes}"
        raise PassingError(f"{came}, again and again; {GO_ON}")
    _verify(bucket, remote, etag, hashlib.md5(content, usedforsecurity=False))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        while content:
            content = content[os.write(descriptor, content) :]
        mtime_ns = os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)
    on_bytes(remote.size_bytes)
    return mtime_ns


def _large(bucket: Bucket, remote: Remote, path: Path, stop: Event, on_bytes: Callable[[int], None]) -> int:
    try:
        return _by_pieces(bucket, remote, path, stop, on_bytes)
    except _NoPartsError:
        on_bytes(-begun_bytes(path, remote))
        return _by_pieces(bucket, remote, path, stop, on_bytes, whole=True)


def _by_pieces(  # noqa: PLR0913 - what, where to, and who is told
    bucket: Bucket, remote: Remote, path: Path, stop: Event, on_bytes: Callable[[int], None], *, whole: bool = False
) -> int:
    with closing(Begun(path, remote, whole=whole)) as begun:
        md5 = _Pieces(bucket, remote, begun, stop, on_bytes).have()
        try:
            _verify(bucket, remote, remote.etag, md5)
        except _DamagedError:
            path.unlink()
            on_bytes(-remote.size_bytes)
            raise
        return begun.end()


class _Pieces:
    """A large object on its way."""

    def __init__(
        self, bucket: Bucket, remote: Remote, begun: Begun, stop: Event, on_bytes: Callable[[int], None]
    ) -> None:
        self._bucket, self._remote, self._begun = bucket, remote, begun
        self._stop, self._on_bytes = stop, on_bytes
        self._over, self._counting = Event(), Lock()

    def have(self) -> hashlib._Hash:
        """Have all pieces come that are not here, and return the MD5 of the content if there is one to compare."""
        md5 = hashlib.md5(usedforsecurity=False)
        with closing(ahead(self._bucket.threads, self._have, self._begun.pieces, self._over)) as here:
            for piece in here:
                if _MD5.fullmatch(self._remote.etag):
                    for chunk in self._begun.read(piece, CHUNK_BYTES):
                        md5.update(chunk)
        return md5

    def _have(self, piece: Piece) -> Piece:
        _again(partial(self._go_on, piece), self._stop)
        return piece

    def _go_on(self, piece: Piece) -> None:
        """Have what lacks of a piece come over one connection."""
        start, end = piece.start_bytes + self._begun.come_bytes(piece), piece.start_bytes + piece.size_bytes
        if start == end:
            return
        asked = {"IfMatch": f'"{self._remote.etag}"'} if self._remote.etag else {}
        if end - start < self._remote.size_bytes:
            asked["Range"] = f"bytes={start}-{end - 1}"
        what = _what(self._bucket, self._remote)
        with self._bucket.explained(f"fetching {what}"):
            answer = _ask(self._bucket.client.get_object, self._bucket, self._remote, **asked)
            with closing(answer["Body"]) as body:
                if "Range" in asked and "ContentRange" not in answer:
                    start = self._start_anew(piece)
                part = f"bytes {start}-{end - 1}/{self._remote.size_bytes}"
                if answer.get("ContentRange", part) != part or answer.get("ContentLength") != end - start:
                    raise ChangedError(f"{what} has changed")
                for chunk in body.iter_chunks(CHUNK_BYTES):
                    if self._stop.is_set() or self._over.is_set():
                        raise StoppedError
                    self._begun.write(piece, chunk)
                    self._count(len(chunk))

    def _start_anew(self, piece: Piece) -> int:
        """Return where a piece starts of which the server has given the beginning too, for it gives no parts."""
        if piece.size_bytes < self._remote.size_bytes:
            raise _NoPartsError
        self._count(-self._begun.forget(piece))
        return piece.start_bytes

    def _count(self, size_bytes: int) -> None:
        with self._counting:
            self._on_bytes(size_bytes)


def _what(bucket: Bucket, remote: Remote) -> str:
    return f"s3://{bucket.name}/{printable(remote.key)}"


def _ask(request: Callable[..., dict[str, Any]], bucket: Bucket, remote: Remote, **options: str) -> dict[str, Any]:
    """Return what boto3 does of the object. Raises ChangedError if it is of another version, or what boto3 raises."""
    what = _what(bucket, remote)
    try:
        answer = request(Bucket=bucket.name, Key=remote.key, **options)
    except bucket.client.exceptions.ClientError as error:
        if error.response["Error"]["Code"] in _GONE:
            raise ChangedError(f"{what} has changed, or is gone") from None
        raise
    if remote.etag and _etag(answer) != remote.etag:
        raise ChangedError(f"{what} has changed")
    return answer


def _etag(answer: dict[str, Any]) -> str:
    etag: str = answer.get("ETag", "")
    return etag.strip('"')


def _verify(bucket: Bucket, remote: Remote, etag: str, md5: hashlib._Hash) -> None:
    """Raise _DamagedError if the ETag is the MD5 of something else."""
    what = _what(bucket, remote)
    if _MD5.fullmatch(etag) and md5.hexdigest() != etag and not _encrypted(bucket, remote.key, what):
        raise _DamagedError(f"{what} came damaged, again and again: its MD5 is not its ETag; {GO_ON}")


def _encrypted(bucket: Bucket, key: str, what: str) -> bool:
    """Return whether the object is encrypted by a key of its owner's: its ETag is then no MD5."""
    with bucket.explained(f"asking for the encryption of {what}"):
        head = bucket.client.head_object(Bucket=bucket.name, Key=key)
    return "SSECustomerAlgorithm" in head or head.get("ServerSideEncryption", "AES256") != "AES256"
