"""Check that a disk has room, and explain one that fills up."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from rich.filesize import decimal

from loaderbench.machine.errors import FixableError
from loaderbench.machine.text import printable

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TRIED_BYTES = 1 << 16
ANOTHER_DISK = "use --cache DIR for another disk"
FEWER_IMAGES = f"{ANOTHER_DISK}, or --samples N for fewer images"


def size(size_bytes: float) -> str:
    """Return a number of bytes in the unit that suits it."""
    return decimal(round(size_bytes))


class DiskSpaceError(FixableError):
    """A disk with too little room."""


def obstacle(folder: Path) -> str:
    """Return why nothing can be written to a folder, or why it cannot be made; empty if it can."""
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with TemporaryFile(dir=existing) as file:
            file.write(bytes(_TRIED_BYTES))
    except OSError as error:
        return f"{printable(folder)} cannot be written: {os.strerror(error.errno or 0).lower()}"
    return ""


def need(size_bytes: float, folder: Path, what: str, fix: str = ANOTHER_DISK) -> None:
    """Raise DiskSpaceError if fewer than `size_bytes` are free on the disk of `folder`, which exists.

    `what`: is to be written, in words. `fix`: what the user can do.
    """
    free_bytes = shutil.disk_usage(folder).free
    if size_bytes > free_bytes:
        raise DiskSpaceError(
            f"{printable(folder)}: {what} need about {size(size_bytes)}, but only {size(free_bytes)} are free; {fix}"
        )


@contextmanager
def full_disk_explained(folder: Path, what: str, fix: str = ANOTHER_DISK) -> Iterator[None]:
    """Raise DiskSpaceError instead of the OSError of a write to `folder` for which there is no room.

    `what`: is being written, in words. `fix`: what the user can do.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        why = os.strerror(error.errno)
        raise DiskSpaceError(f"{printable(folder)} filled up ({why}); {what} are not kept; {fix}") from None
