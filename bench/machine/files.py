"""Write files and folders completely or not at all, resume interrupted folders, and lock folders."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from loaderbench.machine.disk import full_disk_explained, obstacle
from loaderbench.machine.errors import FixableError
from loaderbench.machine.text import printable

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""Errors of file systems that have no locks, such as some of FUSE and NFS."""
_syncfs = ctypes.CDLL(None, use_errno=True).syncfs
_turns: list[BaseFileLock] = []
"""Locks that this process holds until it ends."""


class BusyError(Exception):
    """Another process holds the lock."""


class StoppedError(Exception):
    """The building of a folder was stopped from outside, and can resume."""


def expanded(path: str | os.PathLike[str]) -> str:
    """Return a path with a leading `~` or `~user` replaced by the home folder. Raises FixableError if there is none."""
    text = os.fspath(path)
    if not text.startswith("~"):
        return text  # as it is, for it may be a URL
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        raise FixableError(f"{text}: no home folder is known for ~; set HOME, or write the path in full") from None


def size_bytes(folder: Path, *, of: Callable[[os.stat_result], int] = lambda status: status.st_size) -> int:
    """Return the size of all files below a folder, links as they are; 0 if there is no folder.

    Files may vanish meanwhile. `of`: the size of a file by its status.
    """
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += 0 if path.is_dir() else of(path.lstat())
    return total


def new_file(path: Path, flags: int = 0) -> IO[bytes]:
    """Open a new file for writing. It takes the place of another one, or of a link, which is not followed.

    `flags`: further ones of `os.open`.
    """
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o666), "wb")


def open_plain(path: Path, most_bytes: int) -> IO[bytes]:
    """Open a file for reading that may be a stranger's.

    Raises FileNotFoundError, or ValueError for a link, a device, a folder, or more than `most_bytes`.
    """
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
        status = os.fstat(file.fileno())
    except (IsADirectoryError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        what = "a link" if error.errno == errno.ELOOP else os.strerror(error.errno or 0).lower()
        raise ValueError(f"{printable(path)} is not read: {what}") from None
    if not stat.S_ISREG(status.st_mode) or status.st_size > most_bytes:
        file.close()
        what = f"more than {most_bytes >> 20} MiB" if stat.S_ISREG(status.st_mode) else "no regular file"
        raise ValueError(f"{printable(path)} is not read: {what}")
    return file


def open_disk(folder: Path) -> int:
    """Return a descriptor of a folder for `flush_disk`, opened before the first write that is to be flushed."""
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)


def flush_disk(descriptor: int) -> None:
    """Flush all that was written to the file system of a descriptor to its disk.

    Raises OSError if anything written since the descriptor was opened could not be kept.
    """
    if _syncfs(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def force_to_disk(path: Path) -> None:
    """Flush a file's content, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Write a file so that its path never names a part of it.

    `durable`: flush the content to the disk first, so that this also holds after a power cut. Raises DiskSpaceError.
    """
    partial = path.with_suffix(".partial")
    with full_disk_explained(path.parent, path.name, "make room there"):
        with new_file(partial) as file:
            file.write(content if isinstance(content, bytes) else content.encode())
        if durable:
            force_to_disk(partial)
    partial.rename(path)


def begun(folder: Path) -> bool:
    """Return whether a folder that `building` makes exists, complete or partial."""
    return folder.exists() or any(part.exists() for part in _parts(folder))


def begun_bytes(folder: Path) -> int:
    """Return the size of what an interrupt or a kill left of a folder that `building` makes or that is `pulled`."""
    received = size_bytes(pulled(folder), of=lambda status: status.st_blocks * 512)  # large files have holes
    return sum(map(size_bytes, _parts(folder))) + received


def pulled(folder: Path) -> Path:
    """Return where downloaded files of a folder wait until all have been received, whatever interrupts that."""
    return folder.with_name(folder.name + ".pulled")


def forget_earlier(folder: Path) -> None:
    """Remove partial folders that earlier versions of the project or its libraries left and that never resume.

    The folder's name is "WHAT-KEY": `WHAT` is the key of its content, `KEY` that of the code. Call this under a lock.
    """
    what, now = folder.name.rpartition("-")[0], _parts(folder)
    for part in now:
        for left in folder.parent.glob(f"{what}-*{part.suffix}"):
            if left not in now:
                shutil.rmtree(left)


def _parts(folder: Path) -> tuple[Path, Path]:
    """Return the names of the partial folder: one that restarts from scratch, and one that resumes."""
    return folder.with_name(folder.name + ".partial"), folder.with_name(folder.name + ".begun")


@contextmanager
def building(folder: Path, *, goes_on: bool = False) -> Iterator[Path]:
    """Give an empty folder beside `folder`; when the block succeeds, flush it to the disk and rename it to `folder`.

    So a folder under its own name is complete, and all of it has reached the disk: a write that failed later than the
    program noticed raises OSError. Call this under a lock. `goes_on`: after an interrupt or a kill, keep
    the partial folder and give it again. After an error it is deleted; a StoppedError counts as an interrupt.
    """
    partial = _parts(folder)[goes_on]
    if partial.is_symlink():
        partial.unlink()
    elif partial.exists() and not goes_on:
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=goes_on)
    disk = open_disk(partial)
    try:
        yield partial
        _flush(disk, folder)
        partial.rename(folder)
        force_to_disk(folder.parent)
    except BaseException as error:
        stopped = isinstance(error, StoppedError) or not isinstance(error, Exception)
        if not (goes_on and stopped):
            shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        os.close(disk)


def _flush(disk: int, folder: Path) -> None:
    """Flush a folder's files to the disk. Raises DiskSpaceError, or FixableError if the disk lost some of them."""
    try:
        with full_disk_explained(folder.parent, f"the files of {folder.name}"):
            flush_disk(disk)
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        raise FixableError(f"{printable(folder)}: the disk lost what was written ({why}); use another disk") from None


def take_turn(folder: Path) -> None:
    """Wait for the folder's lock and hold it until this process ends."""
    _turns.append(_acquired(folder, blocking=True))


@contextmanager
def locked(folder: Path, busy: str) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process.

    Raises FixableError if it cannot be made, and BusyError with the message `busy` if another process holds it.
    """
    if why := obstacle(folder):
        raise FixableError(f"{why}; use another folder")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = _acquired(folder, blocking=False)
    except Timeout:
        raise BusyError(busy) from None
    try:
        yield
    finally:
        lock.release()


def _acquired(folder: Path, *, blocking: bool) -> BaseFileLock:
    """Return the folder's lock, acquired. Raises Timeout, or FixableError if it is another user's.

    Where the file system has no locks, the lock is a file that names this process, and that counts while it lives.
    """
    path = folder / ".lock"
    lock: BaseFileLock = FileLock(path, mode=folder.stat().st_mode & 0o666)  # for those who may write to the folder
    try:
        lock.acquire(blocking=blocking)
    except PermissionError:
        raise FixableError(f"{printable(path)} cannot be opened: it is another user's; use another folder") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FixableError(f"{printable(path)} is a link, which no lock follows; remove it") from None
        if error.errno not in _NO_LOCKS:
            raise
        lock = SoftFileLock(path.with_name(".held"))
        lock.acquire(blocking=blocking)
    return lock
