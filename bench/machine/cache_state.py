"""Was a trial's data in the page cache, or on the disk? Brought about before a trial, and judged after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from loaderbench.machine import page_cache as pagecache

if TYPE_CHECKING:
    from pathlib import Path

    from loaderbench.api import Artifact

WARM_RESIDENT_PCT, WARM_READ_PCT = 99, 1
WARM_READ_BYTES = 1 << 20
"""So much may be read whatever the format's size: a page of a library may be used for the first time."""
COLD_RESIDENT_PCT, COLD_READ_PCT = 1, 95


def bring_about(folder: Path, cache: Literal["warm", "cold"]) -> float | None:
    """Read the files through, or take them out of the page cache; return which share of them is then in it, in %.

    None where the kernel does not tell.
    """
    if cache == "warm":
        pagecache.read_through(folder)
    else:
        pagecache.evict(folder)
    return pagecache.resident_pct(folder)


def judge(
    cache: Literal["warm", "cold"],
    artifact: Artifact,
    resident_pct: float | None,
    read_bytes: int | None,
    *,
    virtual_machine: bool,
) -> str:
    """Return the `cache_state` that the share resident before and the bytes read prove; see `Record`."""
    if resident_pct is None or read_bytes is None:
        return "unproven"
    if cache == "warm":
        most_bytes = max(WARM_READ_BYTES, WARM_READ_PCT * artifact.size_bytes / 100)
        return "warm" if resident_pct >= WARM_RESIDENT_PCT and read_bytes <= most_bytes else "unproven"
    if resident_pct > COLD_RESIDENT_PCT or 100 * read_bytes < COLD_READ_PCT * artifact.payload_bytes:
        return "unproven"
    return "guest-cold" if virtual_machine else "cold"
