"""How far has a store been filled? What of it is on the disk for good, so that after a stop or a kill it goes on."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import asdict
from typing import IO, TYPE_CHECKING

import numpy as np

from loaderbench.images.canonical_store import ROW
from loaderbench.images.tree import Rejected

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

EVERY = 2048
"""Images after which what was done is made to last."""
_JOURNAL = ("done.bin", "failed.jsonl")
"""A `ROW` for each image tried, in order, with label -1 for those that failed; and why these did."""


class Filling:
    """The files that grow while a store is filled. Use as a context manager; a stop leaves them ready to go on."""

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        files = ("pixels.bin", "jpeg.bin", *_JOURNAL)
        self._pixels, self._jpeg, self._done, self._failed = (self._open(folder / name) for name in files)
        content = self._done.read()
        self.tried: NDArray[np.void] = np.frombuffer(content, ROW, len(content) // ROW.itemsize)
        """Rows of the images tried before, in order; label -1: it failed."""
        lines = self._failed.read().splitlines(keepends=True)[: int((self.tried["label"] < 0).sum())]
        self.failed = [Rejected(**json.loads(line)) for line in lines]
        """Those of them that failed."""
        last = self.tried[self.tried["label"] >= 0][-1:]
        pixels_end = int((last["pixels_at"] + last["height"].astype(np.int64) * last["width"] * 3).sum())
        jpeg_end = int((last["jpeg_at"] + last["jpeg_bytes"]).sum())
        # A kill may have left more than the journal vouches for; it is written over by the same.
        self._pixels.seek(pixels_end)
        self._jpeg.seek(jpeg_end)
        self._failed.seek(sum(map(len, lines)))
        self._done.seek(self.tried.nbytes)
        self._unsaved: list[bytes] = []

    def _open(self, path: Path) -> IO[bytes]:
        return self._stack.enter_context(os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with self._stack:
            if not isinstance(error, Exception):
                self._save()

    @property
    def ends(self) -> tuple[int, int]:
        """Return where the next image's pixels and JPEG bytes will be."""
        return self._pixels.tell(), self._jpeg.tell()

    def add(self, row: np.void, pixels: bytes, jpeg: bytes) -> None:
        """Store an image and its `ROW`."""
        self._pixels.write(pixels)
        self._jpeg.write(jpeg)
        self._note(row)

    def fail(self, rejected: Rejected) -> None:
        """Keep that an image failed."""
        self.failed.append(rejected)
        self._failed.write(json.dumps(asdict(rejected)).encode() + b"\n")
        rows = np.zeros(1, ROW)
        rows["label"] = -1
        self._note(rows[0])

    def _note(self, row: np.void) -> None:
        self._unsaved.append(row.tobytes())
        if len(self._unsaved) == EVERY:
            self._save()

    def _save(self) -> None:
        """Make it last. Not before that is the journal written which vouches for it."""
        _force_to_disk(self._pixels, self._jpeg, self._failed)
        self._done.writelines(self._unsaved)
        _force_to_disk(self._done)
        self._unsaved.clear()


def _force_to_disk(*files: IO[bytes]) -> None:
    for file in files:
        file.flush()
        os.fsync(file.fileno())


def forget(folder: Path) -> None:
    """Remove the journal of a store that is filled."""
    for name in _JOURNAL:
        (folder / name).unlink()
