"""Which files of a copy are whole, and of which version? Eight bytes each."""

from __future__ import annotations

import hashlib
import os
from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from loaderbench.bucket.listing import Remote

_ENTRY_BYTES = 8


def digest(*parts: object) -> int:
    """Return 64 bits that stand for the parts. That any two of a million are alike has a chance of 1 in 40 million."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(os.fsencode(text), digest_size=_ENTRY_BYTES).digest(), "little")


class Digests:
    """A set of digests that takes eight bytes each."""

    def __init__(self, digests: array[int]) -> None:
        self._sorted = array("Q", sorted(digests))

    def __contains__(self, wanted: int) -> bool:
        place = bisect_left(self._sorted, wanted)
        return place < len(self._sorted) and self._sorted[place] == wanted


class Journal:
    """The entries of a copy. One says that a file with this time of change holds this version of an object: a file that
    anything has written since, another version for example, has no entry.

    An entry is written at once and for good, by any thread.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        size_bytes = os.fstat(self._file).st_size
        os.ftruncate(self._file, size_bytes - size_bytes % _ENTRY_BYTES)  # a full disk may have cut the last one short
        entries = array("Q")
        entries.frombytes(path.read_bytes())
        self._known = Digests(entries)

    def close(self) -> None:
        """Let the file go."""
        os.close(self._file)

    def add(self, remote: Remote, mtime_ns: int) -> None:
        """Record that the file with this time of change holds the object. Raises OSError."""
        os.write(self._file, _entry(remote, mtime_ns).to_bytes(_ENTRY_BYTES, "little"))

    def holds(self, remote: Remote, mtime_ns: int) -> bool:
        """Return whether this was on record when the journal was opened."""
        return _entry(remote, mtime_ns) in self._known


def _entry(remote: Remote, mtime_ns: int) -> int:
    return digest(remote.key, remote.etag, remote.size_bytes, mtime_ns)
