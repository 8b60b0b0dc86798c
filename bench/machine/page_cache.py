"""Put a format into the page cache or evict it, and check afterwards that a trial read it from there."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path
from typing import Literal

Cache = Literal["warm", "cold"]

WARM_RESIDENT_PCT, WARM_READ_PCT = 99, 1
WARM_READ_BYTES = 1 << 20
"""A warm trial may read this much whatever the format's size: a library's page may be used for the first time."""
COLD_RESIDENT_PCT, COLD_READ_PCT = 1, 95
_SYS_CACHESTAT = 451  # Linux 6.5; the same number on all architectures
_libc = ctypes.CDLL(None, use_errno=True)


def warm_or_evict(folder: Path, cache: Cache) -> float | None:
    """Read a format's files, or evict them; return the share that is then in the page cache, as `resident_pct` does."""
    if cache == "warm":
        read_through(folder)
    else:
        evict(folder)
    return resident_pct(folder)


def cache_state(  # noqa: PLR0913 - what proves it
    cache: Cache,
    resident_pct: float | None,
    read_bytes: int | None,
    *,
    size_bytes: int,
    payload_bytes: int,
    virtual_machine: bool,
) -> str:
    """Return the `cache_state` of a trial, as `Record` explains it.

    `resident_pct`: share in the page cache before the trial. `read_bytes`: what the trial read. `size_bytes`: size of
    the format. `payload_bytes`: what must be read to read every sample.
    """
    if resident_pct is None or read_bytes is None:
        return "unproven"
    if cache == "warm":
        most_bytes = max(WARM_READ_BYTES, WARM_READ_PCT * size_bytes / 100)
        return "warm" if resident_pct >= WARM_RESIDENT_PCT and read_bytes <= most_bytes else "unproven"
    if resident_pct > COLD_RESIDENT_PCT or 100 * read_bytes < COLD_READ_PCT * payload_bytes:
        return "unproven"
    return "guest-cold" if virtual_machine else "cold"


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
