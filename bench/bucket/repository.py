"""Put formats into a bucket and take them from there, each with a manifest that its files are checked against.

`<prefix>/<format>/manifest.json` is written last: a format with a manifest is complete.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, NonNegativeInt, TypeAdapter, ValidationError

from loaderbench.bucket import rclone
from loaderbench.bucket.client import Bucket, Location, S3Error, relative
from loaderbench.bucket.copy import remove_others, say_what_restarts
from loaderbench.machine.cores import core_count
from loaderbench.machine.disk import need
from loaderbench.machine.files import size_bytes
from loaderbench.machine.progress import Display

LAYOUT = 1
"""Version of the manifest; raise it when its content changes."""
MANIFEST = "manifest.json"
"""Name of the file that describes a format, beside its files, in the cache and in a bucket."""
_FILES = "files"
_MOST_MANIFEST_BYTES = 1 << 30
"""That is one of about five million files."""
_REPEATED_BYTES = 1 << 30
"""How much of a format may be received twice, besides as much as its size, because a connection broke."""


@dataclass(frozen=True)
class _File:
    __pydantic_config__ = ConfigDict(strict=True)

    path: str
    """Relative to `files`."""
    size_bytes: NonNegativeInt
    sha256: str


@dataclass(frozen=True)
class _Manifest:
    layout: int
    record: dict[str, Any]
    """How the format was made, with its encoding and versions: columns of `loaderbench.records.record`."""
    files: Sequence[_File]


_MANIFEST = TypeAdapter(_Manifest)


class Repository:
    """The formats below a location. A format's name is a key of all that it is made of; see `formats.writing`."""

    def __init__(self, url: str) -> None:
        """Connect. Raises S3Error."""
        self.location = Location.parse(url)
        self._bucket = Bucket(self.location)

    @property
    def endpoint(self) -> str:
        """The server's URL."""
        return self._bucket.endpoint

    def has(self, name: str) -> bool:
        """Return whether a format is there. Raises S3Error."""
        return self._manifest(self.location / name) is not None

    def lacks(self, name: str) -> str:
        """Return the message that a format is not there, and what puts it there."""
        return f"{self.location} has no {name}; put it there with: loaderbench publish {self.location} CAMPAIGN"

    def publish(self, folder: Path, record: dict[str, Any], display: Display) -> bool:
        """Upload the files of a format, which are below `files` in `folder`; return False if it is there already.

        Files that an earlier call has uploaded are not uploaded again. `record`: how it was made. Raises S3Error.
        """
        at, root = self.location / folder.name, folder / _FILES
        if self._manifest(at):
            return False
        self._remove_unfinished(at, display)
        paths = sorted(path for path in root.rglob("*") if path.is_file())
        sizes_bytes = [path.stat().st_size for path in paths]
        names = [path.relative_to(root).as_posix() for path in paths]
        with display.transfer(f"publishing {at}") as on_progress:
            rclone.upload(self._bucket, root, names, at / _FILES, on_progress)
        there = {found["Key"]: found["Size"] for found in self._bucket.objects((at / _FILES).prefix)}
        expected = {
            (at / _FILES).prefix + name: size_bytes for name, size_bytes in zip(names, sizes_bytes, strict=True)
        }
        if expected.items() - there.items():
            raise S3Error(f"{at} did not arrive in full; run the same command again")
        files = [_File(*described) for described in zip(names, sizes_bytes, _sha256s(paths), strict=True)]
        manifest = json.dumps(asdict(_Manifest(LAYOUT, record, files)), indent=1)
        self._bucket.write(at.prefix + MANIFEST, manifest.encode())
        return True

    def pull(self, name: str, out: Path, display: Display) -> dict[str, Any] | None:
        """Fill the folder `out` with the files of a format and return its record; None if it is not there.

        Files that an earlier call has fetched are not fetched again. Raises DiskSpaceError or S3Error; if a file is not
        what the manifest says, `out` is removed.
        """
        at = self.location / name
        if not (manifest := self._manifest(at)):
            return None
        out.mkdir(parents=True, exist_ok=True)
        say_what_restarts(out, display)
        paths = [file.path for file in manifest.files]
        remove_others(out, set(paths))
        total_bytes = sum(file.size_bytes for file in manifest.files)
        need(total_bytes - size_bytes(out), out, f"the files of {at}")
        # The manifest has better checksums. The limit counts: an object may be larger than the manifest says.
        options = "--ignore-checksum", f"--max-transfer={2 * total_bytes + _REPEATED_BYTES}B", "--cutoff-mode=hard"
        try:
            with display.transfer(f"pulling {at}") as on_progress:
                rclone.download(self._bucket, at / _FILES, paths, out, on_progress, *options)
            why = _differs(out, manifest.files)
        except S3Error as error:
            if error.code != "Larger":
                raise
            why = "its files are larger than its manifest says"
        if why:
            shutil.rmtree(out)
            raise _refused(at, why)
        return manifest.record

    def _remove_unfinished(self, at: Location, display: Display) -> None:
        """Remove what an earlier call has uploaded of large files: it lies hidden in the bucket, and costs."""
        client, bucket = self._bucket.client, self._bucket.name
        with suppress(S3Error), self._bucket.explained(f"listing the uploads to {at}"):  # not everybody may
            for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=at.prefix):
                for upload in page.get("Uploads", ()):
                    display.say(f"{upload['Key']} had not been uploaded in full; its upload restarts from scratch")
                    client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    def _manifest(self, at: Location) -> _Manifest | None:
        """Return the manifest of the format there; None if there is none. Raises S3Error if it cannot be used."""
        content = self._bucket.read(at.prefix + MANIFEST, _MOST_MANIFEST_BYTES)
        if content is None:
            return None
        try:
            manifest = _MANIFEST.validate_json(content)
        except ValidationError:
            raise _refused(at, "its manifest is damaged") from None
        if manifest.layout != LAYOUT:
            raise _refused(at, f"its manifest has layout {manifest.layout}, not {LAYOUT}")
        if outside := [file.path for file in manifest.files if relative(file.path) is None]:
            raise _refused(at, f"its manifest names a file outside of it, {outside[0]!r}")
        return manifest


def _differs(folder: Path, files: Sequence[_File]) -> str:
    """Return what is wrong with the first file that is not as the manifest says; empty if all are."""
    for file in files:
        path = folder / file.path
        if not path.exists() or path.stat().st_size != file.size_bytes:
            return f"{file.path} has not the size that its manifest says, or is gone"
    for file, sha256 in zip(files, _sha256s([folder / file.path for file in files]), strict=True):
        if sha256 != file.sha256:
            return f"the SHA-256 of {file.path} is not the one that its manifest says"
    return ""


def _sha256s(paths: Sequence[Path]) -> list[str]:
    """Return the SHA-256 of files, of several at a time."""

    def sha256(path: Path) -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor(core_count()) as pool:
        return list(pool.map(sha256, paths))


def _refused(at: Location, why: str) -> S3Error:
    remove = f"aws s3 rm --recursive {at}"
    return S3Error(f"{at} is refused: {why}. Remove it ({remove}) and publish it again, or omit --artifacts")
