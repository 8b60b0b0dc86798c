"""How does something that takes long to make come into being whole, or not at all?"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Error numbers of a write for which there is no room."""


class BusyError(Exception):
    """Another process holds the lock."""


class StoppedError(Exception):
    """What is being built was stopped from outside, and can go on from what is there."""


@contextmanager
def full_disk_explained(explain: Callable[[str], Exception]) -> Iterator[None]:
    """Raise what `explain` makes of the system's words, in place of the OSError of a write that finds no room."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise explain(os.strerror(error.errno)) from None


def size_bytes(folder: Path, *, of: Callable[[os.stat_result], int] = lambda status: status.st_size) -> int:
    """Return the size of all files below a folder, links as they are; 0 if it is not there. A file may be going."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += 0 if path.is_dir() else of(path.lstat())
    return total


def force_to_disk(path: Path) -> None:
    """Return when a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all, whatever happens to the machine."""
    partial = path.with_suffix(".partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def begun(folder: Path) -> bool:
    """Return whether what is made by `building` is there, whole or in part."""
    return folder.exists() or any(part.exists() for part in _parts(folder))


def begun_bytes(folder: Path) -> int:
    """Return the size of what a stop or a kill has left of what is made by `building`, or of what is `pulled`."""
    come_bytes = size_bytes(pulled(folder), of=lambda status: status.st_blocks * 512)  # large files have holes
    return sum(map(size_bytes, _parts(folder))) + come_bytes


def pulled(folder: Path) -> Path:
    """Return where the files of what is taken from elsewhere wait until all have come, whatever stops that."""
    return folder.with_name(folder.name + ".pulled")


def forget_earlier(folder: Path) -> None:
    """Remove what earlier versions of the project or its libraries had begun of `folder` and never will go on with.

    Its name ends in "-" and a key of what makes it; what comes before is the key of what it is. Call it under a lock.
    """
    what, now = folder.name.rpartition("-")[0], _parts(folder)
    for part in now:
        for left in folder.parent.glob(f"{what}-*{part.suffix}"):
            if left not in now:
                shutil.rmtree(left)


def _parts(folder: Path) -> tuple[Path, Path]:
    """Return where it comes into being: what begins anew each time, and what goes on."""
    return folder.with_name(folder.name + ".partial"), folder.with_name(folder.name + ".begun")


@contextmanager
def building(folder: Path, *, goes_on: bool = False) -> Iterator[Path]:
    """Give an empty folder beside `folder`, and rename it to `folder` when the block has ended well and all of it is on
    the disk. A folder that exists under its own name is therefore whole. Call it under a lock.

    `goes_on`: what a stop or a kill leaves is kept and given again; what an error leaves is not, but for StoppedError.
    """
    partial = _parts(folder)[goes_on]
    if partial.exists() and not goes_on:
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=goes_on)
    try:
        yield partial
        os.sync()
        partial.rename(folder)
    except BaseException as error:
        stopped = isinstance(error, StoppedError) or not isinstance(error, Exception)
        if not (goes_on and stopped):
            shutil.rmtree(partial, ignore_errors=True)
        raise


def take_turn(folder: Path) -> None:
    """Wait for the folder's lock and hold it until this process has ended."""
    fcntl.flock(os.open(folder / ".lock", os.O_WRONLY | os.O_CREAT, 0o644), fcntl.LOCK_EX)


@contextmanager
def locked(folder: Path, busy: str) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process. Raises BusyError with the message `busy`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(busy) from None
        yield
