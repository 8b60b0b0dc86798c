"""Which part of a format is in the page cache? Asked of the kernel, without root."""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SYS_CACHESTAT = 451  # Linux 6.5; the same number on all architectures
_libc = ctypes.CDLL(None, use_errno=True)


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _CacheStat(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64) for name in ("cached", "dirty", "writeback", "evicted", "recently_evicted")
    )


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
    """Take every file out of the page cache as far as the kernel will: what is mapped or in memory only stays."""
    for path in files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())  # what is not yet on the disk cannot be dropped
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def resident_pct(folder: Path) -> float | None:
    """Return the share of the files' pages that is in the page cache; None where the kernel does not tell.

    cachestat(2) where it is there and allowed, else mincore(2), which tells the truth about the user's own files only.
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
