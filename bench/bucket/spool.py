"""Where do a million objects wait for their turn? On the disk, so that they take no memory."""

from __future__ import annotations

import json
import os
import tempfile
from queue import SimpleQueue
from typing import TYPE_CHECKING

from loaderbench.bucket.listing import Remote

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BATCH = 8
"""Objects that one thread takes at once."""


class Spool:
    """A queue from one thread to many, in a file without a name."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - see close()
        self._places: SimpleQueue[tuple[int, int] | None] = SimpleQueue()
        self._end = 0

    def close(self) -> None:
        """Let the file go."""
        self._file.close()

    def put(self, remotes: Sequence[Remote]) -> None:
        """Append objects. Raises OSError."""
        for start in range(0, len(remotes), BATCH):
            batch = json.dumps([(r.key, r.size_bytes, r.etag) for r in remotes[start : start + BATCH]]).encode()
            self._file.write(batch)
            self._file.flush()
            self._places.put((self._end, len(batch)))
            self._end += len(batch)

    def end(self) -> None:
        """Let every `get` from now on return None once all has been taken."""
        self._places.put(None)

    def get(self) -> list[Remote] | None:
        """Wait for some objects; None: there are no more."""
        if (place := self._places.get()) is None:
            self._places.put(None)  # for the next thread
            return None
        start, length = place
        return [Remote(*stored) for stored in json.loads(os.pread(self._file.fileno(), length, start))]
