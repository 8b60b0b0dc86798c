"""Put a format into the page cache or evict it, and check afterwards that a trial read it from there."""

import ctypes
import mmap
import os
from pathlib import Path
from typing import Literal

import psutil

from loaderbench.machine.disk import size

Cache = Literal["warm", "cold", "limited"]

WARM_RESIDENT_PCT, WARM_READ_PCT = 99, 1
WARM_READ_BYTES = 1 << 20
"""The window of a warm trial may read this much whatever the format's size: a library's page may be used first then."""
COLD_RESIDENT_PCT, COLD_READ_PCT = 1, 95
TRIAL_BYTES = 10**9
"""What the processes and batches of a trial take at least of the memory, about: as much as with 2 workers."""
_FILE_SERVERS = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs"),
    *("fuse", "fuseblk", "virtiofs"),
}
"""Types of file systems, without what follows a dot, as in `fuse.sshfs`."""
_SYS_CACHESTAT = 451  # Linux 6.5; the same number on all architectures
_libc = ctypes.CDLL(None, use_errno=True)


def warm_or_evict(folder: Path, cache: Cache) -> float | None:
    """Read a format's files, or evict them; return the share that is then in the page cache, as `resident_pct` does."""
    if cache == "warm":
        read_through(folder)
    else:
        evict(folder)
    return resident_pct(folder)


def warm_state(
    before_pct: float | None, after_pct: float | None, window_read_bytes: int | None, size_bytes: int
) -> str:
    """Return the `cache_state` of a warm trial, as `Record` explains it.

    `before_pct`, `after_pct`: share of the format in the page cache before and after the trial. `window_read_bytes`:
    what the trial read from the disk in its window; libraries are loaded before it. `size_bytes`: size of the format.
    """
    if before_pct is None or after_pct is None or window_read_bytes is None:
        return "unproven"
    resident = min(before_pct, after_pct) >= WARM_RESIDENT_PCT
    most_bytes = max(WARM_READ_BYTES, WARM_READ_PCT * size_bytes / 100)
    return "warm" if resident and window_read_bytes <= most_bytes else "unproven"


def cold_state(before_pct: float | None, read_bytes: int | None, payload_bytes: int, elsewhere: str) -> str:
    """Return the `cache_state` of a cold trial, as `Record` explains it.

    `read_bytes`: what the trial read from the disk. `payload_bytes`: what must be read to read every sample.
    `elsewhere`: who sees only this machine's page cache, while another may have cached the data: a `guest` of a virtual
    machine, or a `client` of a file server; or an empty string.
    """
    if before_pct is None or read_bytes is None:
        return "unproven"
    if before_pct > COLD_RESIDENT_PCT or 100 * read_bytes < COLD_READ_PCT * payload_bytes:
        return "unproven"
    return f"{elsewhere}-cold" if elsewhere else "cold"


def limited_state(before_pct: float | None) -> str:
    """Return the `cache_state` of a trial that began without its format in memory, as `Record` explains it.

    What was resident before would not count as memory of the trial.
    """
    return "unproven" if before_pct is None or before_pct > COLD_RESIDENT_PCT else "limited"


def why_not_kept(size_bytes: int, memory_bytes: int) -> str:
    """Return why a format of this size does not stay in the page cache during a trial; an empty string if it can.

    `memory_bytes`: what this machine or container may hold, see `cgroup.memory_limit_bytes`.
    """
    if size_bytes + TRIAL_BYTES <= memory_bytes:
        return ""
    return (
        f"the format of {size(size_bytes)} and a trial, which takes {size(TRIAL_BYTES)} or more, do not fit into the "
        f"{size(memory_bytes)} of memory of this machine or container, so that trials read from the disk"
    )


def on_file_server(folder: Path) -> bool:
    """Return whether another machine or a user-space program serves the file system of a folder, and may cache it."""
    real = folder.resolve()
    mounts = [mount for mount in psutil.disk_partitions(all=True) if real.is_relative_to(mount.mountpoint)]
    if not mounts:
        return False
    *_, last = sorted(mounts, key=lambda mount: len(Path(mount.mountpoint).parts))  # of equals, the one mounted last
    return last.fstype.partition(".")[0] in _FILE_SERVERS


def read_through(folder: Path) -> int:
    """Read every file once, so that it is in the page cache, and return the bytes read."""
    buffer = bytearray(1 << 20)
    total = 0
    for path in files(folder):
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                total += count
    return total


def evict(folder: Path) -> None:
    """Take every file out of the page cache. Pages that are mapped, or of a file system in memory, stay there."""
    for path in files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())  # pages that are not on the disk yet cannot be dropped
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def resident_pct(folder: Path) -> float | None:
    """Return the share of the files' pages that is in the page cache, in %; None if the kernel does not report it.

    Without root: by cachestat(2) if it exists and is allowed, else by mincore(2), which is true for the user's own
    files only.
    """
    resident = pages = 0
    for path in files(folder):
        with path.open("rb") as file:
            count = -(-os.fstat(file.fileno()).st_size // mmap.PAGESIZE)
            cached = _cachestat(file.fileno())
            if cached is None and os.fstat(file.fileno()).st_uid == os.geteuid():
                cached = _mincore(file.fileno(), count)
        if cached is None:
            return None
        resident += cached
        pages += count
    return 100 * resident / pages if pages else None


def files(folder: Path) -> list[Path]:
    """Return all files below a folder in order, symbolic links to files followed."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _CacheStat(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64) for name in ("cached", "dirty", "writeback", "evicted", "recently_evicted")
    )


def _cachestat(descriptor: int) -> int | None:
    found, everything = _CacheStat(), _Range(0, 0)
    if _libc.syscall(_SYS_CACHESTAT, descriptor, ctypes.byref(everything), ctypes.byref(found), 0):
        return None
    return int(found.cached)


def _mincore(descriptor: int, pages: int) -> int | None:
    if not pages:
        return 0
    with mmap.mmap(descriptor, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as mapping:
        states = (ctypes.c_ubyte * pages)()
        start = ctypes.c_char.from_buffer(mapping)
        failed = _libc.mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(len(mapping)), states)
        del start
    return None if failed else sum(state & 1 for state in states)
