"""Is everything below a prefix here, as a folder? A copy that goes on where it stopped and follows what has changed."""

from __future__ import annotations

import gc
import hashlib
import os
import re
import shutil
import stat
from array import array
from collections import Counter
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING

from loaderbench.bucket import listing
from loaderbench.bucket.client import GO_ON, Bucket, DeniedError, Location, S3Error
from loaderbench.bucket.copy_journal import Digests, Journal, digest
from loaderbench.bucket.pieces import begun_bytes
from loaderbench.bucket.spool import Spool
from loaderbench.bucket.transfer import ChangedError, StoppedError, enough_room, fetch, is_large, no_room
from loaderbench.machine.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loaderbench.bucket.listing import Remote
    from loaderbench.machine.progress import Display

CONNECTIONS = 64
"""Objects fetched at once."""
_CHANGED = "changed while it was copied"
_NO_PATH = "their keys are no paths of a tree"
_ALSO_FOLDER = "other keys make folders of their names"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_NAME_BYTES, _LONGEST_PATH_BYTES, _DEEPEST = 255, 3000, 100
_SHOWN_S = 0.2
_NAMED = 3
_GIB = 1 << 30


def copy(url: str, cache: Path, display: Display) -> Path:
    """Return a folder of the cache that holds every object below `url`, fetching what it lacks; if `url` is an object,
    a file.

    Objects that changed since the last time are fetched anew, and files whose object is gone are removed. A bucket of
    the same name at another endpoint has the same folder: what is in it is held against what is listed there. Call it
    under the cache's lock. Raises S3Error; what was fetched by then is not fetched again by the next call.
    """
    location = Location.parse(url)
    bucket = Bucket(location)
    if not url.endswith("/"):
        with suppress(DeniedError):  # only what is below the slash may be permitted
            location = listing.one_object(bucket, location) or location
    folder = cache / "s3" / hashlib.sha256(str(location).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with (
        _frozen(),
        closing(Journal(folder / "journal")) as journal,
        display.transfer(f"copying {location}") as on_progress,
    ):
        left_out = _Copy(bucket, location, folder, journal).run(on_progress)
    for reason in left_out.reasons():
        display.say(f"not copied, since {reason}: {left_out[reason]}")
    return folder / "files" / location.name


@contextmanager
def _frozen() -> Iterator[None]:
    """Have the garbage collector pass over all that is there by now: to look through it stops every thread."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def relative(key: str) -> str | None:
    """Return the path that a key, without its prefix, is as a file of a tree; None if it is none."""
    names = key.split("/")
    if any(name in {"", ".", ".."} or len(name.encode()) > _LONGEST_NAME_BYTES for name in names):
        return None
    if len(key.encode()) > _LONGEST_PATH_BYTES or len(names) > _DEEPEST or _CONTROL.search(key):
        return None
    return key


class _Tally:
    """Keys by what is the matter with them: counted, and the first few kept."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, list[str]] = {}
        self._lock = Lock()

    def add(self, reason: str, key: str) -> None:
        with self._lock:
            self._counts[reason] += 1
            if self._counts[reason] <= _NAMED:
                self._first.setdefault(reason, []).append(printable(key))

    def reasons(self) -> list[str]:
        return sorted(self._counts)

    def __getitem__(self, reason: str) -> str:
        """Return how many there are, and the first few by name."""
        count = self._counts[reason]
        more = f" and {count - _NAMED} more" if count > _NAMED else ""
        return f"{count} {'object' if count == 1 else 'objects'} ({', '.join(self._first[reason])}{more})"


class _Copy:
    """One run: a thread lists, and as many as there are connections fetch what the folder lacks."""

    def __init__(self, bucket: Bucket, location: Location, folder: Path, journal: Journal) -> None:
        self._bucket, self._location, self._folder, self._journal = bucket, location, folder, journal
        self._files, self._partial = folder / "files", folder / "partial"
        self._partial.mkdir(exist_ok=True)
        self._holds_earlier_files = self._files.exists()
        self._files.mkdir(exist_ok=True)
        self._spool = Spool(self._partial)
        self._stop = Event()
        self._paths = array("Q")
        """Digests of those of all objects."""
        self._lacking_bytes = 0
        self._fetched_bytes = [0] * CONNECTIONS
        """By each thread, so that none waits for another to count."""
        self._listed = False
        self._made = self._files
        """The folder that was made last."""
        self._left_out, self._changed = _Tally(), _Tally()

    def run(self, on_progress: Callable[[int, int | None], None]) -> _Tally:
        """Make the folder what the location is; return what is left out. `on_progress`: see `Display.transfer`."""
        room = enough_room(self._folder, str(self._location))
        with room, closing(self._spool), ThreadPoolExecutor(CONNECTIONS + 1) as pool:
            running = {pool.submit(self._list), *(pool.submit(self._fetch, n) for n in range(CONNECTIONS))}
            try:
                while running:
                    ended, running = wait(running, _SHOWN_S, FIRST_EXCEPTION)
                    on_progress(sum(self._fetched_bytes), self._lacking_bytes if self._listed else None)
                    for task in ended:
                        task.result()
            finally:
                self._stop.set()
                self._spool.end()
        if _CHANGED in self._changed.reasons():
            raise S3Error(f"{self._location} {_CHANGED}: {self._changed[_CHANGED]}; {GO_ON}")
        if not self._paths:
            where = f"{self._location} at {self._bucket.endpoint}"
            raise S3Error(f"there is no object below {where}; see what is there: aws s3 ls {self._location}")
        if self._holds_earlier_files:
            self._remove_others(Digests(self._paths), self._files)
        shutil.rmtree(self._partial)
        return self._left_out

    def _list(self) -> None:
        """Hand all that the folder lacks to the other threads, as it is found."""
        for page in listing.pages(self._bucket, self._location):
            if self._stop.is_set():
                return
            lacking = [remote for remote in page if self._lacks(remote)]
            self._lacking_bytes += sum(remote.size_bytes - self._begun_bytes(remote) for remote in lacking)
            self._spool.put(lacking)
        self._listed = True
        self._spool.end()
        left_bytes, free_bytes = self._lacking_bytes - sum(self._fetched_bytes), shutil.disk_usage(self._folder).free
        if left_bytes > free_bytes:
            why = f"{left_bytes / _GIB:.1f} GiB are to come and {free_bytes / _GIB:.1f} GiB are free"
            raise no_room(self._folder, str(self._location), why)

    def _lacks(self, remote: Remote) -> bool:
        path = relative(remote.key.removeprefix(self._location.prefix))
        if path is None:
            if not remote.key.endswith("/") or remote.size_bytes:  # else it only stands for a folder
                self._left_out.add(_NO_PATH, remote.key)
            return False
        self._paths.append(digest(path))
        try:
            status = (self._files / path).stat()
        except (FileNotFoundError, NotADirectoryError):
            self._make_folder((self._files / path).parent)
            return True
        if stat.S_ISDIR(status.st_mode):
            self._left_out.add(_ALSO_FOLDER, remote.key)
            return False
        return status.st_size != remote.size_bytes or not self._journal.holds(remote, status.st_mtime_ns)

    def _fetch(self, number: int) -> None:
        """Fetch what is handed over until there is no more; `number`: of this thread."""
        on_bytes = partial(self._count, number)
        while batch := self._spool.get():
            for remote in batch:
                if self._stop.is_set():
                    return
                try:
                    self._fetch_one(remote, on_bytes)
                except ChangedError:
                    self._changed.add(_CHANGED, remote.key)
                except IsADirectoryError:
                    self._left_out.add(_ALSO_FOLDER, remote.key)
                except StoppedError:
                    return

    def _fetch_one(self, remote: Remote, on_bytes: Callable[[int], None]) -> None:
        """Fetch an object to its place; what is on record there is never fetched again.

        A small one is written where it belongs: Linux moves one file at a time between folders of a disk, so that
        threads that move many wait for each other.
        """
        path = self._files / remote.key.removeprefix(self._location.prefix)
        large = is_large(remote)
        part = self._begun(remote) if large else path
        self._journal.add(remote, fetch(self._bucket, remote, part, self._stop, on_bytes))
        if large:
            part.rename(path)

    def _count(self, number: int, size_bytes: int) -> None:
        self._fetched_bytes[number] += size_bytes

    def _begun(self, remote: Remote) -> Path:
        """Return where what has come of a large object is kept for the next run, if this one ends before it."""
        return self._partial / f"{digest(remote.key, remote.etag, remote.size_bytes):016x}"

    def _begun_bytes(self, remote: Remote) -> int:
        return begun_bytes(self._begun(remote), remote) if is_large(remote) else 0

    def _make_folder(self, folder: Path) -> None:
        """Make a folder of the tree, in place of files if need be: a name that is both is a folder.

        Only the thread that lists calls it, and nothing else makes folders.
        """
        if folder == self._made:
            return
        for level in (*reversed(folder.parents), folder):
            while self._files in level.parents and not level.is_dir():
                try:
                    level.mkdir()
                except FileExistsError:
                    level.unlink()
                    self._left_out.add(_ALSO_FOLDER, f"{self._location.prefix}{level.relative_to(self._files)}")
        self._made = folder

    def _remove_others(self, listed: Digests, folder: Path) -> None:
        """Remove files below that are no object's, and folders without files."""
        with os.scandir(folder) as entries:
            for entry in entries:
                path = Path(entry)
                if entry.is_dir(follow_symlinks=False):
                    self._remove_others(listed, path)
                elif digest(path.relative_to(self._files)) not in listed:
                    path.unlink()
        if folder != self._files and not any(folder.iterdir()):
            folder.rmdir()
