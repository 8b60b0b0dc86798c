"""How much of a large object is here? Its pieces come in any order, and what has come outlasts what ends the process.

Behind the place of the content, in the same file, stands how much of each piece is written. It is written after what it
tells of, so a kill leaves nothing on record that is not there.
"""

from __future__ import annotations

import os
import sys
from array import array
from collections import deque
from concurrent.futures import wait
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from loaderbench.bucket.copy_journal import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from concurrent.futures import Executor, Future
    from pathlib import Path
    from threading import Event

    from loaderbench.bucket.listing import Remote

PIECE_BYTES = 16 << 20
"""As much of an object as one request asks for: 0.2 s at the 85 to 90 MB/s that Amazon tells of one connection, several
times what a request waits for its first byte. Amazon advises 8 to 16 MiB."""
PIECES_AT_ONCE = 64
"""Over all objects."""
_AHEAD = 2 * PIECES_AT_ONCE
"""Pieces of one object that are under way, or wait for those before them."""
_ENTRY_BYTES = 8
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Piece:
    """A range of an object."""

    number: int
    start_bytes: int
    size_bytes: int


class Begun:
    """The file of a large object while its pieces come, each from one thread at a time.

    A file of just the object's size has all of it; one that was begun otherwise, or of another version, is begun anew.
    """

    def __init__(self, path: Path, remote: Remote, *, whole: bool = False) -> None:
        """Open the file, or begin one. `whole`: as a single piece. Raises OSError."""
        piece_bytes = remote.size_bytes if whole else min(PIECE_BYTES, remote.size_bytes)
        starts = range(0, remote.size_bytes, piece_bytes)
        self.pieces = [Piece(n, start, min(piece_bytes, remote.size_bytes - start)) for n, start in enumerate(starts)]
        self._size_bytes = remote.size_bytes
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        begun = digest(remote.key, remote.etag, remote.size_bytes, piece_bytes)
        table = self._table()
        if os.fstat(self._file).st_size == remote.size_bytes:
            self._come = array("Q", [piece.size_bytes for piece in self.pieces])
        elif len(table) == len(starts) + 1 and table[-1] == begun:
            self._come = table[:-1]
        else:
            os.ftruncate(self._file, 0)
            self._come = array("Q", bytes(_ENTRY_BYTES * len(starts)))
            self._write(self._size_bytes, (self._come + array("Q", [begun])).tobytes())

    def close(self) -> None:
        """Let the file go. No thread may write any more."""
        os.close(self._file)

    @property
    def size_bytes(self) -> int:
        """How much of the object is here."""
        return sum(self._come)

    def come_bytes(self, piece: Piece) -> int:
        """Return how much of a piece is here, from its beginning."""
        return self._come[piece.number]

    def write(self, piece: Piece, chunk: bytes) -> None:
        """Go on with a piece. Raises OSError."""
        self._write(piece.start_bytes + self._come[piece.number], chunk)
        self._record(piece, self._come[piece.number] + len(chunk))

    def forget(self, piece: Piece) -> int:
        """Let a piece begin anew, and return how much of it was here. Raises OSError."""
        forgotten_bytes = self._come[piece.number]
        self._record(piece, 0)
        return forgotten_bytes

    def read(self, piece: Piece, chunk_bytes: int) -> Iterator[bytes]:
        """Yield the content of a piece that is whole."""
        end_bytes = piece.start_bytes + piece.size_bytes
        for start in range(piece.start_bytes, end_bytes, chunk_bytes):
            yield os.pread(self._file, min(chunk_bytes, end_bytes - start), start)

    def end(self) -> int:
        """Leave the content alone in the file, once all of it is here, and return its time of change in ns."""
        os.ftruncate(self._file, self._size_bytes)
        return os.fstat(self._file).st_mtime_ns

    def _table(self) -> array[int]:
        stored = os.pread(self._file, (len(self.pieces) + 2) * _ENTRY_BYTES, self._size_bytes)
        table = array("Q")
        table.frombytes(stored[: len(stored) // _ENTRY_BYTES * _ENTRY_BYTES])
        return table

    def _record(self, piece: Piece, come_bytes: int) -> None:
        self._come[piece.number] = come_bytes
        entry = come_bytes.to_bytes(_ENTRY_BYTES, sys.byteorder)
        self._write(self._size_bytes + piece.number * _ENTRY_BYTES, entry)

    def _write(self, start_bytes: int, content: bytes) -> None:
        left = memoryview(content)
        while left:
            written_bytes = os.pwrite(self._file, left, start_bytes)
            start_bytes, left = start_bytes + written_bytes, left[written_bytes:]


def begun_bytes(path: Path, remote: Remote) -> int:
    """Return how much of a large object the file at `path` has, if there is one."""
    if not path.exists():
        return 0
    with closing(Begun(path, remote)) as begun:
        return begun.size_bytes


def ahead(
    pool: Executor, transfer: Callable[[_Item], _Result], items: Iterable[_Item], over: Event
) -> Generator[_Result]:
    """Yield what `transfer` returns for each piece of one object, in order, with some handed to the pool ahead.

    They are taken as they are handed over. When it ends, however that is, it sets `over` and waits for what is under
    way.
    """
    under_way: deque[Future[_Result]] = deque()
    try:
        for item in items:
            under_way.append(pool.submit(transfer, item))
            if len(under_way) == _AHEAD:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        over.set()
        for future in under_way:
            future.cancel()
        wait(under_way)
