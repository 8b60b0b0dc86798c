"""Which formats has somebody made already? Artifacts in a bucket, each with a manifest that its files are held against.

`<prefix>/<artifact>/manifest.json` is written last, so that what has one is whole.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, TypeVar

from loaderbench.bucket.client import Bucket, Location, S3Error
from loaderbench.bucket.copy import CONNECTIONS, relative
from loaderbench.bucket.listing import Remote
from loaderbench.bucket.pieces import begun_bytes
from loaderbench.bucket.transfer import ChangedError, enough_room, fetch, is_large, look
from loaderbench.bucket.upload import Uploads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from loaderbench.machine.progress import Display

LAYOUT = 1
"""Version of the manifest; raise it when what is in it changes."""
MANIFEST = "manifest.json"
"""Name of the file that describes a format, beside its files, in the cache and in a bucket."""
_FILES = "files"
_AT_ONCE = 10 * CONNECTIONS
"""Files that are handed to the threads at once, for each takes memory until it is done."""
_Result = TypeVar("_Result")


class _RefusedError(S3Error):
    """What is published is not what its manifest says."""


@dataclass(frozen=True)
class _File:
    path: str
    """Relative to `files`."""
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class _Manifest:
    layout: int
    record: dict[str, Any]
    """How the artifact was made, with its encoding and versions: columns of `loaderbench.records.record`."""
    files: Sequence[_File]


class Repository:
    """The artifacts below a location. What an artifact is made of is in its name; see `loaderbench.formats.writing`."""

    def __init__(self, url: str) -> None:
        """Connect. Raises S3Error."""
        self.location = Location.parse(url)
        self._bucket = Bucket(self.location)

    @property
    def endpoint(self) -> str:
        """The server's URL."""
        return self._bucket.endpoint

    def has(self, name: str) -> bool:
        """Return whether an artifact is there, whole. Raises S3Error."""
        return self._manifest(self.location / name) is not None

    def lacks(self, name: str) -> str:
        """Say that an artifact is not there, and what puts it there."""
        return f"{self.location} has no {name}; put it there with: loaderbench publish {self.location} CAMPAIGN"

    def publish(self, folder: Path, record: dict[str, Any], display: Display) -> bool:
        """Upload the files of an artifact, which are below `files` in `folder`; return False if it is there already.

        It goes on with what an earlier call has uploaded. `record`: how it was made. Raises S3Error.
        """
        import obstore

        at = self.location / folder.name
        if self._manifest(at):
            return False
        root = folder / _FILES
        paths = sorted(path for path in root.rglob("*") if path.is_file())
        stop = Event()
        with _counted(display, f"publishing {at}", sum(path.stat().st_size for path in paths)) as on_bytes:
            uploads = Uploads(self._bucket, at / _FILES, stop, on_bytes)

            def upload(path: Path) -> _File:
                name = path.relative_to(root).as_posix()
                return _File(name, path.stat().st_size, uploads.put(path, name))

            files = _all(upload, paths, stop)
            uploads.end()
        manifest = json.dumps(asdict(_Manifest(LAYOUT, record, files)), indent=1).encode()
        with self._bucket.explained(f"writing {at}{MANIFEST}"):
            obstore.put(self._bucket.store, f"{at.prefix}{MANIFEST}", manifest, use_multipart=False)
        return True

    def pull(self, name: str, out: Path, display: Display) -> dict[str, Any] | None:
        """Fill the folder `out` with the files of an artifact and return its record; None if there is none.

        It goes on with what an earlier call left in `out`. Raises S3Error; if a file is not what the manifest says,
        `out` is removed.
        """
        at = self.location / name
        if not (manifest := self._manifest(at)):
            return None
        stop, total_bytes = Event(), sum(file.size_bytes for file in manifest.files)
        out.mkdir(parents=True, exist_ok=True)
        with enough_room(out.parent, str(at)), _counted(display, f"pulling {at}", total_bytes) as on_bytes:
            try:
                _all(lambda file: self._fetch(at, file, out / file.path, stop, on_bytes), manifest.files, stop)
            except _RefusedError:
                shutil.rmtree(out)
                raise
        listed = {out / file.path for file in manifest.files}
        for path in list(out.rglob("*")):
            if path.is_file() and path not in listed:
                path.unlink()  # of an artifact that had this name before
        return manifest.record

    def _fetch(self, at: Location, file: _File, path: Path, stop: Event, on_bytes: Callable[[int], None]) -> None:
        """Have a file of an artifact at `path`, where an earlier attempt may have left all of it, or a part."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size == file.size_bytes:
            if _is(path, file):
                on_bytes(file.size_bytes)
                return
            path.unlink()
        remote, left_bytes = Remote(f"{at.prefix}{_FILES}/{file.path}", file.size_bytes, etag=""), 0
        try:
            if is_large(remote):
                remote = look(self._bucket, remote)
                left_bytes = begun_bytes(path, remote)
                on_bytes(left_bytes)
            for _ in range(1 + bool(left_bytes)):  # what was left may be of no use
                fetch(self._bucket, remote, path, stop, on_bytes)
                if _is(path, file):
                    return
                path.unlink()
                on_bytes(-file.size_bytes)
        except ChangedError:
            raise _refused(at, f"{file.path} has not the size that its manifest says, or is gone") from None
        raise _refused(at, f"the SHA-256 of {file.path} is not the one that its manifest says")

    def _manifest(self, at: Location) -> _Manifest | None:
        """Return the manifest of the artifact there; None if there is none. Raises S3Error if it cannot be used."""
        import obstore

        with self._bucket.explained(f"reading {at}{MANIFEST}"):
            try:
                content = bytes(obstore.get(self._bucket.store, f"{at.prefix}{MANIFEST}").bytes())
            except FileNotFoundError:
                return None
        try:
            stored = json.loads(content)
            manifest = _Manifest(**{**stored, "files": [_File(**file) for file in stored["files"]]})
        except (KeyError, TypeError, ValueError):
            raise _refused(at, "its manifest is damaged") from None
        if manifest.layout != LAYOUT:
            raise _refused(at, f"its manifest has layout {manifest.layout}, not {LAYOUT}")
        if outside := [file.path for file in manifest.files if relative(file.path) is None]:
            raise _refused(at, f"its manifest names a file outside of it, {outside[0]!r}")
        return manifest


def _all(transfer: Callable[[Any], _Result], items: Sequence[Any], stop: Event) -> list[_Result]:
    """Transfer items, many at once; set `stop` if one fails. The results are in order."""
    results: list[_Result] = []
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        try:
            for start in range(0, len(items), _AT_ONCE):
                results += pool.map(transfer, items[start : start + _AT_ONCE])
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


@contextmanager
def _counted(display: Display, what: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
    """Show a transfer; call what is given, from any thread, with the bytes that have come, or less than 0: in vain."""
    done_bytes, counting = 0, Lock()
    with display.transfer(what) as on_progress:

        def on_bytes(size_bytes: int) -> None:
            nonlocal done_bytes
            with counting:
                done_bytes += size_bytes
                on_progress(done_bytes, total_bytes)

        yield on_bytes


def _is(path: Path, file: _File) -> bool:
    return path.stat().st_size == file.size_bytes and _sha256(path) == file.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refused(at: Location, why: str) -> _RefusedError:
    remove = f"aws s3 rm --recursive {at}"
    return _RefusedError(f"{at} is refused: {why}; remove it ({remove}) and publish it again, or leave out --artifacts")
