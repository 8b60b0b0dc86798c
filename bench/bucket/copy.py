"""Copy everything below a prefix of a bucket into a folder, and keep the folder equal to it."""

import hashlib
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from loaderbench.bucket import rclone
from loaderbench.bucket.client import RESUME, Bucket, Location, S3Error, relative
from loaderbench.machine import disk
from loaderbench.machine.progress import Display
from loaderbench.machine.text import names, printable

_NO_PATH = "their keys are no paths of a tree"
_ALSO_FOLDER = "other keys make folders of their names"
_LARGE_BYTES = 64 << 20
"""From this size on, rclone fetches an object in ranges over several connections."""
_SAME_TIME_S = 0.001
_ATTEMPTS = 3
"""Runs of rclone. Each tries every request several times; another run repeats what arrived damaged."""


@dataclass(frozen=True, slots=True)
class _Object:
    """An object as listed."""

    size_bytes: int
    modified_s: float
    etag: str
    """Empty for small objects: one request fetches all of one version."""

    def is_at(self, path: Path) -> bool:
        """Return whether the file at `path` is this version of the object. rclone gives files the object's time."""
        try:
            status = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        same_time = abs(status.st_mtime - self.modified_s) < _SAME_TIME_S
        return stat.S_ISREG(status.st_mode) and status.st_size == self.size_bytes and same_time


def copy(url: str, cache: Path, display: Display) -> Path:
    """Return a folder of the cache that holds every object below `url`; if `url` is an object, return a file.

    Objects that changed since the last copy are fetched again, and files whose object is gone are removed. A bucket of
    the same name at another endpoint has the same folder. Call it under the cache's lock. Raises S3Error; files that
    arrived before are not fetched again by the next call.
    """
    location = Location.parse(url)
    bucket = Bucket(location)
    if not url.endswith("/"):
        location = _one_object(bucket, location) or location
    folder = cache / "s3" / hashlib.sha256(str(location).encode()).hexdigest()[:16]
    files = folder / "files"
    files.mkdir(parents=True, exist_ok=True)
    say_what_restarts(files, display)
    with display.transfer(f"copying {location}") as on_progress:
        on_progress(0, None)
        objects, left_out = _listed(bucket, location)
        if not objects:
            where = f"{location} at {bucket.endpoint}"
            raise S3Error(f"there is no object below {where}. See what is there: aws s3 ls {location}")
        remove_others(files, objects)
        lacking = {path: found for path, found in objects.items() if not found.is_at(files / path)}
        if lacking:
            _fetch(bucket, location, lacking, files, on_progress)
            _check_count(files, objects, location)
    for reason, keys in sorted(left_out.items()):
        display.say(f"not copied, since {reason}: {len(keys)} ({names(keys)})")
    return files / location.name


def _check_count(files: Path, objects: Mapping[str, _Object], location: Location) -> None:
    """Raise S3Error if a disk that ignores case has taken two objects for one file."""
    if sum(len(within) for _, _, within in os.walk(files)) < len(objects):
        same = sorted(path for path, count in Counter(map(str.casefold, objects)).items() if count > 1)
        raise S3Error(
            f"{location} has objects whose names differ only in upper and lower case ({names(same)}), and the disk of "
            "the cache keeps one file for both; use --cache DIR on another disk"
        )


def say_what_restarts(folder: Path, display: Display) -> None:
    """Remove the parts of objects that an earlier run left below a folder, and name the large ones."""
    for path in list(folder.rglob("*.partial")):
        if rclone.PARTIAL.search(path.name):
            name = printable(rclone.PARTIAL.sub("", str(path.relative_to(folder))))
            if path.stat().st_size > _LARGE_BYTES:
                display.say(f"{name} had not arrived in full; it is fetched from scratch")
            path.unlink()


def _one_object(bucket: Bucket, location: Location) -> Location | None:
    """Return the location of the object whose key is the prefix without its slash.

    None if there is none, or an empty one, which only stands for a folder, or if listing it is denied: a policy may
    permit only what is below the slash.
    """
    key = location.prefix.removesuffix("/")
    with suppress(S3Error):
        for found in bucket.objects(key, MaxKeys=1) if key else ():  # it comes first of those that begin so
            if found["Key"] == key and found["Size"]:
                folder, slash, name = key.rpartition("/")
                return replace(location, prefix=folder + slash, name=name)
    return None


def _listed(bucket: Bucket, location: Location) -> tuple[dict[str, _Object], dict[str, list[str]]]:
    """Return the objects of a location by their paths, and the keys that are left out by the reason."""
    objects, left_out, folders = dict[str, _Object](), defaultdict[str, list[str]](list), {""}
    options = {"MaxKeys": 1} if location.name else {}
    for found in bucket.objects(location.prefix + location.name, **options):
        key, size_bytes = found["Key"], found["Size"]
        if path := relative(key.removeprefix(location.prefix)):
            whole = location.name or size_bytes >= _LARGE_BYTES
            objects[path] = _Object(
                size_bytes, found["LastModified"].timestamp(), found["ETag"].strip('"') if whole else ""
            )
            while (path := path.rpartition("/")[0]) not in folders:
                folders.add(path)
        elif not key.endswith("/") or size_bytes:  # else it only stands for a folder
            left_out[_NO_PATH].append(key)
    for path in folders & objects.keys():
        del objects[path]
        left_out[_ALSO_FOLDER].append(location.prefix + path)
    return objects, left_out


def remove_others(folder: Path, paths: Container[str]) -> None:
    """Remove the files below a folder that are not among the paths, and folders without files."""
    for parent, _, within in os.walk(folder, topdown=False):
        for name in within:
            path = Path(parent, name)
            if path.relative_to(folder).as_posix() not in paths:
                path.unlink()
        with suppress(OSError):  # it holds something
            Path(parent).rmdir()
    folder.mkdir(exist_ok=True)


def _fetch(
    bucket: Bucket,
    location: Location,
    lacking: Mapping[str, _Object],
    files: Path,
    on_progress: Callable[[int, int | None], None],
) -> None:
    total_bytes = sum(found.size_bytes for found in lacking.values())
    disk.need(total_bytes, files, f"the objects of {location}")

    def show(size_bytes: int, _: int) -> None:  # rclone counts repeated requests too, and knows the total late
        on_progress(min(size_bytes, total_bytes), total_bytes)

    # Of a bucket that is encrypted by a key of its owner's, no ETag is an MD5.
    encrypted = bucket.is_encrypted(location.prefix + next(iter(lacking)))
    unchecked = set(lacking) if encrypted else set[str]()
    options = ["--retries=1", *(["--no-traverse"] if location.name else [])]
    for attempt in range(1, _ATTEMPTS + 1):
        left = {path for path, found in lacking.items() if not found.is_at(files / path)}
        try:
            for wanted, check in (left - unchecked, []), (left & unchecked, ["--ignore-checksum"]):
                rclone.download(bucket, location, wanted, files, show, *options, *check)
            break
        except S3Error as error:
            if not error.passing or attempt == _ATTEMPTS:
                raise
            unchecked |= {name for name in error.damaged if bucket.is_encrypted(location.prefix + name)}
    if changed := [path for path, found in lacking.items() if not _arrived(bucket, location, path, found, files)]:
        raise S3Error(
            f"{location} changed while it was copied: {len(changed)} of its objects ({names(changed)}). {RESUME}"
        )


def _arrived(bucket: Bucket, location: Location, path: str, found: _Object, files: Path) -> bool:
    """Return whether a file is the version that was listed; remove it if its ranges may be of several versions."""
    at = files / path
    if found.etag and at.exists():
        if bucket.head(location.prefix + path).get("ETag", "").strip('"') != found.etag:
            at.unlink()
            return False
        os.utime(at, (found.modified_s, found.modified_s))  # HEAD tells it to the second only
    return found.is_at(at)
