"""Which formats has somebody made already? Artifacts in a bucket, each with a manifest that its files are held against.

`<prefix>/<artifact>/manifest.json` is written last, so that what has one is whole.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from threading import Event
from typing import TYPE_CHECKING, Any, TypeVar

from bench.s3.bucket import Bucket, Location, S3Error
from bench.s3.copy import CONNECTIONS, relative
from bench.s3.listing import Remote
from bench.s3.transfer import ChangedError, enough_room, fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bench.display import Display

LAYOUT = 1
"""Version of the manifest; raise it when what is in it changes."""
_MANIFEST, _FILES = "manifest.json", "files"
_AT_ONCE = 10 * CONNECTIONS
"""Files that are handed to the threads at once, for each takes memory until it is done."""
_Result = TypeVar("_Result")


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
    """How the artifact was made, with its encoding and versions: columns of `bench.records`."""
    files: Sequence[_File]


class Repository:
    """The artifacts below a location. What an artifact is made of is in its name; see `bench.prepare`."""

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

        `record`: how it was made. Raises S3Error.
        """
        at = self.location / folder.name
        if self._manifest(at):
            return False
        root = folder / _FILES
        paths = sorted(path for path in root.rglob("*") if path.is_file())
        sizes_bytes = [path.stat().st_size for path in paths]

        def upload(path: Path) -> _File:
            name = path.relative_to(root).as_posix()
            self._put(f"{at.prefix}{_FILES}/{name}", path)
            return _File(name, path.stat().st_size, _sha256(path))

        with display.transfer(f"publishing {at}") as on_progress:
            files = _all(upload, paths, sizes_bytes, on_progress, Event())
        manifest = asdict(_Manifest(LAYOUT, record, files))
        self._put(f"{at.prefix}{_MANIFEST}", json.dumps(manifest, indent=1).encode())
        return True

    def pull(self, name: str, out: Path, display: Display) -> dict[str, Any] | None:
        """Fill the empty folder `out` with the files of an artifact and return its record; None if there is none.

        Raises S3Error, also if a file is not what the manifest says; what is in `out` then is the caller's to remove.
        """
        at = self.location / name
        if not (manifest := self._manifest(at)):
            return None
        stop = Event()

        def download(file: _File) -> None:
            path = out / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                fetch(self._bucket, Remote(f"{at.prefix}{_FILES}/{file.path}", file.size_bytes, etag=""), path, stop)
            except ChangedError:
                raise _refused(at, f"{file.path} has not the size that its manifest says, or is gone") from None
            if _sha256(path) != file.sha256:
                raise _refused(at, f"the SHA-256 of {file.path} is not the one that its manifest says")

        sizes_bytes = [file.size_bytes for file in manifest.files]
        with enough_room(out, str(at)), display.transfer(f"pulling {at}") as on_progress:
            _all(download, manifest.files, sizes_bytes, on_progress, stop)
        return manifest.record

    def _put(self, key: str, content: Path | bytes) -> None:
        import obstore

        with self._bucket.explained(f"writing s3://{self._bucket.name}/{key}"):
            obstore.put(self._bucket.store, key, content)

    def _manifest(self, at: Location) -> _Manifest | None:
        """Return the manifest of the artifact there; None if there is none. Raises S3Error if it cannot be used."""
        import obstore

        with self._bucket.explained(f"reading {at}{_MANIFEST}"):
            try:
                content = bytes(obstore.get(self._bucket.store, f"{at.prefix}{_MANIFEST}").bytes())
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


def _all(
    transfer: Callable[[Any], _Result],
    items: Sequence[Any],
    sizes_bytes: Sequence[int],
    on_progress: Callable[[int, int | None], None],
    stop: Event,
) -> list[_Result]:
    """Transfer items of these sizes, many at once; set `stop` if one fails. The results are in order."""
    results: list[_Result] = []
    done_bytes, total_bytes = 0, sum(sizes_bytes)
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        try:
            for start in range(0, len(items), _AT_ONCE):
                some = slice(start, start + _AT_ONCE)
                results += pool.map(transfer, items[some])
                done_bytes += sum(sizes_bytes[some])
                on_progress(done_bytes, total_bytes)
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refused(at: Location, why: str) -> S3Error:
    remove = f"aws s3 rm --recursive {at}"
    return S3Error(f"{at} is refused: {why}; remove it ({remove}) and publish it again, or leave out --artifacts")
