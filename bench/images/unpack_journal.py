"""How far has an archive been unpacked? Which shards are on the disk for good, so that after a stop it goes on."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from loaderbench.images.tree import Rejected

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

EVERY_BYTES = 1 << 30
"""Of images, after which the whole shards are made to last: more often would keep the disk from working ahead."""
_JOURNAL = ".loaderbench.unpacked.jsonl"
"""In the tree: a line for each time, with what had been done by then."""


class Unpacking:
    """The state of a tree that is written shard by shard. Use as a context manager."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._goes_on = (out / _JOURNAL).exists()
        self._journal = (out / _JOURNAL).open("a+b")
        self._journal.seek(0)
        content = self._journal.read()
        whole = content[: content.rfind(b"\n") + 1]  # a kill may have left half a line
        self._journal.truncate(len(whole))
        lines = [json.loads(line) for line in whole.splitlines()]
        last = lines[-1] if lines else {"shards": 0, "images": 0}
        self.shards: int = last["shards"]
        """How many of them are whole."""
        self.images: int = last["images"]
        """How many are written."""
        self.rejected = [Rejected(**entry) for line in lines for entry in line["rejected"]]
        """What was left out of the shards."""
        self._told = len(self.rejected)
        self._unsaved_bytes = 0
        self._of_shard: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._journal.close()

    def is_left(self, path: str) -> bool:
        """Return whether a file that is there is what a stop left of a shard that was not whole."""
        return self._goes_on and path not in self._of_shard

    def add(self, path: str, size_bytes: int) -> None:
        """Count an image that was written."""
        self.images += 1
        self._unsaved_bytes += size_bytes
        if self._goes_on:
            self._of_shard.add(path)

    def reject(self, path: str, reason: str) -> None:
        """Keep that something was left out."""
        self.rejected.append(Rejected(path, reason))

    def shard_is_whole(self) -> None:
        """Count a shard, and make it last if it is time to."""
        self.shards += 1
        self._of_shard.clear()
        if self._unsaved_bytes < EVERY_BYTES:
            return
        os.sync()  # the journal vouches for what is on the disk
        told = [asdict(entry) for entry in self.rejected[self._told :]]
        line = {"shards": self.shards, "images": self.images, "rejected": told}
        self._journal.write(json.dumps(line).encode() + b"\n")
        self._journal.flush()
        os.fsync(self._journal)
        self._told, self._unsaved_bytes = len(self.rejected), 0

    def forget(self) -> None:
        """Remove the journal of a tree that is whole."""
        (self.out / _JOURNAL).unlink()
