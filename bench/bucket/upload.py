"""How does a file come into a bucket? Whole, and once: what an earlier attempt put there is told by its ETag, of a
large file part by part.
"""

from __future__ import annotations

import base64
import hashlib
from contextlib import closing, suppress
from threading import Event
from typing import TYPE_CHECKING, Any, BinaryIO

from loaderbench.bucket import listing
from loaderbench.bucket.client import S3Error
from loaderbench.bucket.pieces import ahead
from loaderbench.bucket.transfer import StoppedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from loaderbench.bucket.client import Bucket, Location

PART_BYTES, MOST_PARTS = 5 << 20, 9000
"""Of an upload: S3 takes parts from 5 MiB on, and up to 10,000 of them."""


class Uploads:
    """Files on their way to a location, by any number of threads."""

    def __init__(self, bucket: Bucket, location: Location, stop: Event, on_bytes: Callable[[int], None]) -> None:
        """Look what is there. `stop`: ends it soon once set. `on_bytes`: told how many are there. Raises S3Error."""
        self._bucket, self._location, self._stop, self._on_bytes = bucket, location, stop, on_bytes
        self._etags = {remote.key: remote.etag for page in listing.pages(bucket, location) for remote in page}
        self._begun: dict[str, list[str]] = {}
        """The ids of uploads in parts that were not completed, by key."""
        with suppress(S3Error):  # where nobody may know, or can tell, files begin anew
            self._find_begun()

    def put(self, path: Path, name: str) -> str:
        """Have a file there and return its SHA-256. Raises S3Error, StoppedError or OSError."""
        if self._stop.is_set():
            raise StoppedError
        key = self._location.prefix + name
        with self._bucket.explained(f"writing s3://{self._bucket.name}/{key}"):
            large = path.stat().st_size > PART_BYTES
            return self._put_in_parts(path, key) if large else self._put_whole(path, key)

    def end(self) -> None:
        """Remove the parts of uploads that were begun and will not be completed: hidden as they are, they cost."""
        for key, ids in self._begun.items():
            for upload_id in ids:
                with suppress(S3Error), self._bucket.explained(f"removing what is left of {key}"):
                    self._bucket.client.abort_multipart_upload(Bucket=self._bucket.name, Key=key, UploadId=upload_id)

    def _find_begun(self) -> None:
        with self._bucket.explained(f"listing the uploads to {self._location}"):
            pages = self._bucket.client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self._bucket.name, Prefix=self._location.prefix):
                for upload in page.get("Uploads", ()):
                    self._begun.setdefault(upload["Key"], []).append(upload["UploadId"])

    def _put_whole(self, path: Path, key: str) -> str:
        import obstore

        content = path.read_bytes()
        if self._etags.get(key) != _etag([content]):
            obstore.put(self._bucket.store, key, content, use_multipart=False)
        self._on_bytes(len(content))
        return hashlib.sha256(content).hexdigest()

    def _put_in_parts(self, path: Path, key: str) -> str:
        size_bytes, sha256 = path.stat().st_size, hashlib.sha256()
        part_bytes = max(PART_BYTES, -(-size_bytes // MOST_PARTS))
        if there := self._etags.get(key):
            with path.open("rb") as file:
                chunks = self._read(file, part_bytes, sha256.update)
                if _etag(chunks, in_parts="-" in there) == there:
                    self._on_bytes(size_bytes)
                    return sha256.hexdigest()
        return self._put_parts(path, key, range(0, size_bytes, part_bytes))

    def _put_parts(self, path: Path, key: str, starts: range) -> str:
        """Upload what is not there yet, many parts at once, and let S3 make one object of all."""
        client, address, there = self._bucket.client, *self._begin(path, key, starts)
        sha256 = hashlib.sha256()

        def put(start: int) -> dict[str, Any]:
            if self._stop.is_set():
                raise StoppedError
            number = start // starts.step + 1
            content = _part(path, start, starts.step)
            if number not in there:
                md5 = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
                there[number] = client.upload_part(**address, PartNumber=number, Body=content, ContentMD5=md5)["ETag"]
            self._on_bytes(len(content))
            return {"PartNumber": number, "ETag": there[number]}

        parts = []
        with path.open("rb") as file, closing(ahead(self._bucket.threads, put, starts, Event())) as put_parts:
            for part in put_parts:
                sha256.update(file.read(starts.step))
                parts.append(part)
        client.complete_multipart_upload(**address, MultipartUpload={"Parts": parts})
        return sha256.hexdigest()

    def _begin(self, path: Path, key: str, starts: range) -> tuple[dict[str, str], dict[int, str]]:
        """Return what names an upload to S3, and the ETags of its parts; it is one that was begun, if of this file."""
        client, address = self._bucket.client, {"Bucket": self._bucket.name, "Key": key}
        for upload_id in self._begun.get(key, ()):
            with suppress(S3Error), self._bucket.explained(f"listing the parts of {key}"):
                pages = client.get_paginator("list_parts").paginate(**address, UploadId=upload_id)
                there = {part["PartNumber"]: part["ETag"] for page in pages for part in page.get("Parts", ())}
                contents = (_part(path, (number - 1) * starts.step, starts.step) for number in there)
                if all(_etag([c]) == etag.strip('"') for c, etag in zip(contents, there.values(), strict=True)):
                    self._begun[key].remove(upload_id)
                    return {**address, "UploadId": upload_id}, there
        return {**address, "UploadId": client.create_multipart_upload(**address)["UploadId"]}, {}

    def _read(self, file: BinaryIO, chunk_bytes: int, see: Callable[[bytes], None]) -> Iterator[bytes]:
        """Yield the content of a file; call `see` with all that is yielded. Raises StoppedError."""
        while chunk := file.read(chunk_bytes):
            if self._stop.is_set():
                raise StoppedError
            see(chunk)
            yield chunk


def _part(path: Path, start: int, size_bytes: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size_bytes)


def _etag(chunks: Iterable[bytes], *, in_parts: bool = False) -> str:
    """Return what S3 gives for an ETag: the MD5 of the content or, of what came in parts, that of their MD5s.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
    """
    md5, parts = hashlib.md5(usedforsecurity=False), 0
    for chunk in chunks:
        md5.update(hashlib.md5(chunk, usedforsecurity=False).digest() if in_parts else chunk)
        parts += 1
    return f"{md5.hexdigest()}-{parts}" if in_parts else md5.hexdigest()
