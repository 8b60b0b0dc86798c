"""How does one object become a file? Fetched, verified, and tried again where the connection failed."""

from __future__ import annotations

import hashlib
import os
import random
import re
from typing import TYPE_CHECKING

from bench.cache import full_disk_explained
from bench.s3.bucket import GO_ON, TRIES, PassingError, S3Error
from bench.source import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path
    from threading import Event

    from obstore import Bytes, GetOptions, GetResult

    from bench.s3.bucket import Bucket
    from bench.s3.listing import Remote

CHUNK_BYTES = 1 << 20
"""As much of an object as is held at once."""
_NO_RANGES = "non-partial response"
"""In obstore's words for a server that gives whole objects alone, or like rclone's does not say that it gave a part."""
_MD5 = re.compile(r"[0-9a-f]{32}")


class ChangedError(S3Error):
    """The object is no longer the one that was listed."""


class StoppedError(Exception):
    """The transfer was told to stop."""


def enough_room(folder: Path, what: str) -> AbstractContextManager[None]:
    """Raise S3Error where the disk of the folder, into which `what` goes, is full."""
    return full_disk_explained(lambda why: no_room(folder, what, why.lower()))


def no_room(folder: Path, what: str, why: str) -> S3Error:
    """Return the error that says so."""
    return S3Error(f"{folder} has no room for {what}: {why}; make some there, or use --cache, and {GO_ON}")


def is_large(remote: Remote) -> bool:
    """Return whether the object comes in chunks, and goes on where an earlier attempt left its file.

    A smaller one is held whole and comes anew: that costs half as much as a stream.
    """
    return remote.size_bytes > CHUNK_BYTES


def fetch(
    bucket: Bucket, remote: Remote, path: Path, stop: Event, on_bytes: Callable[[int], None] = lambda _: None
) -> int:
    """Write the object to `path`, whole and verified: its size, its ETag, and its content where the ETag is an MD5.

    Return the file's time of change in ns. Of a large object, what is at `path` already must be its beginning.
    `stop`: ends it soon once set. `on_bytes`: told how many have come; less than 0, how many came in vain. Raises
    ChangedError, S3Error, StoppedError, or OSError if the file cannot be written.
    """
    attempt = _stream if is_large(remote) else _whole
    for tries in range(TRIES - 1):
        try:
            return attempt(bucket, remote, path, stop, on_bytes)
        except PassingError:
            stop.wait(random.uniform(0, 0.25 * 2**tries))  # all at once would overload it again
    return attempt(bucket, remote, path, stop, on_bytes)


def _whole(bucket: Bucket, remote: Remote, path: Path, _: Event, on_bytes: Callable[[int], None]) -> int:
    """Hold a small object whole, and write it once it is verified.

    Thousands come in a second, and Python has one lock for all threads: each call that lets go of it costs a switch.
    """
    import obstore

    what = f"s3://{bucket.name}/{printable(remote.key)}"
    with bucket.explained(f"fetching {what}"):
        try:
            found = obstore.get(bucket.store, remote.key)
        except FileNotFoundError:
            raise ChangedError(f"{what} is gone") from None
        etag = _unchanged(found, remote, what)
        content = memoryview(found.bytes())
    if len(content) != remote.size_bytes:
        raise _cut(what, len(content), remote)
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if _MD5.fullmatch(etag) and md5 != etag and not _encrypted(bucket, remote.key, what):
        raise _damaged(what)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        while content:
            content = content[os.write(descriptor, content) :]
        mtime_ns = os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)
    on_bytes(remote.size_bytes)
    return mtime_ns


def _stream(bucket: Bucket, remote: Remote, path: Path, stop: Event, on_bytes: Callable[[int], None]) -> int:
    from obstore.exceptions import GenericError

    what = f"s3://{bucket.name}/{printable(remote.key)}"
    md5 = hashlib.md5(usedforsecurity=False)
    size_bytes = _reread(path, md5) if is_large(remote) else 0
    with bucket.explained(f"fetching {what}"):
        try:
            etag, chunks = _ask(bucket, remote, what, size_bytes)
        except GenericError as error:
            if _NO_RANGES in str(error):
                _remove(path, size_bytes, on_bytes)
            raise
        with path.open("ab" if size_bytes else "wb") as file:
            for chunk in chunks:
                if stop.is_set():
                    raise StoppedError
                md5.update(chunk)
                size_bytes += file.write(chunk)
                on_bytes(len(chunk))
            file.flush()
            mtime_ns = os.fstat(file.fileno()).st_mtime_ns
    if size_bytes != remote.size_bytes:
        raise _cut(what, size_bytes, remote)
    if _MD5.fullmatch(etag) and md5.hexdigest() != etag and not _encrypted(bucket, remote.key, what):
        _remove(path, size_bytes, on_bytes)
        raise _damaged(what)
    return mtime_ns


def _cut(what: str, size_bytes: int, remote: Remote) -> PassingError:
    return PassingError(f"{size_bytes} bytes of {what} came instead of {remote.size_bytes}, again and again; {GO_ON}")


def _damaged(what: str) -> PassingError:
    return PassingError(f"{what} came damaged, again and again: its MD5 is not its ETag; {GO_ON}")


def _remove(path: Path, size_bytes: int, on_bytes: Callable[[int], None]) -> None:
    """Let the next attempt begin anew."""
    path.unlink()
    on_bytes(-size_bytes)


def _reread(path: Path, md5: hashlib._Hash) -> int:
    """Return how many bytes are in a file, if there is one; they become the beginning of the MD5."""
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                md5.update(chunk)
            return file.tell()
    except FileNotFoundError:
        return 0


def _ask(bucket: Bucket, remote: Remote, what: str, start_bytes: int) -> tuple[str, Iterable[bytes | Bytes]]:
    """Return the ETag of the object, and its content from there on. Raises ChangedError, or what obstore raises."""
    import obstore

    if start_bytes and start_bytes == remote.size_bytes:
        return remote.etag, ()
    options: GetOptions | None = {"range": {"offset": start_bytes}} if start_bytes else None
    try:
        found = obstore.get(bucket.store, remote.key, options=options)
    except FileNotFoundError:
        raise ChangedError(f"{what} is gone") from None
    return _unchanged(found, remote, what), found.stream(min_chunk_size=CHUNK_BYTES)


def _unchanged(found: GetResult, remote: Remote, what: str) -> str:
    """Return the ETag of what was found, if that is what was listed. Raises ChangedError."""
    meta = found.meta
    etag = (meta["e_tag"] or "").strip('"')
    if meta["size"] != remote.size_bytes or (remote.etag and etag != remote.etag):
        raise ChangedError(f"{what} has changed")
    return etag


def _encrypted(bucket: Bucket, key: str, what: str) -> bool:
    """Return whether the object is encrypted by a key of its owner's: its ETag is then no MD5."""
    with bucket.explained(f"asking for the encryption of {what}"):
        head = bucket.client.head_object(Bucket=bucket.name, Key=key)
    return "SSECustomerAlgorithm" in head or head.get("ServerSideEncryption", "AES256") != "AES256"
