"""How much room there is in /dev/shm, through which worker processes pass batches on."""

import os
from pathlib import Path

FOLDER = Path("/dev/shm")  # noqa: S108 - where the C library has its shared memory


def free_bytes() -> int:
    """Return the free bytes of /dev/shm; 0 if there is no such folder."""
    try:
        status = os.statvfs(FOLDER)
    except FileNotFoundError:
        return 0
    return status.f_bavail * status.f_frsize
