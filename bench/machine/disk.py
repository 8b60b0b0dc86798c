"""Check that a disk has room, and explain one that fills up."""

import shutil
from pathlib import Path

from loaderbench.machine.errors import FixableError
from loaderbench.machine.text import printable

GIB = 1 << 30
ANOTHER_DISK = "use --cache DIR for another disk"
FEWER_IMAGES = f"{ANOTHER_DISK}, or --samples N for fewer images"


class DiskSpaceError(FixableError):
    """A disk with too little room."""


def need(size_bytes: float, folder: Path, what: str, fix: str = ANOTHER_DISK) -> None:
    """Raise DiskSpaceError if fewer than `size_bytes` are free on the disk of `folder`, which exists.

    `what`: is to be written, in words. `fix`: what the user can do.
    """
    free_bytes = shutil.disk_usage(folder).free
    if size_bytes > free_bytes:
        raise DiskSpaceError(
            f"{printable(folder)}: {what} need about {size_bytes / GIB:.3g} GiB, but only {free_bytes / GIB:.3g} GiB "
            f"is free; {fix}"
        )


def filled_up(folder: Path, what: str, why: str, fix: str = ANOTHER_DISK) -> DiskSpaceError:
    """Return the error of a disk that filled up while `what` was written. `why`: in the system's words."""
    return DiskSpaceError(f"{printable(folder)} filled up ({why}): {what} are not complete, nothing is kept; {fix}")
