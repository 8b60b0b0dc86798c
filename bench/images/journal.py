"""Record which part of a long job is safely on disk, so that the next run resumes there."""

import json
import os
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from loaderbench.images.canonical_store import ROW
from loaderbench.images.tree import Rejected, SkippedEntries, SourceError
from loaderbench.machine.disk import need
from loaderbench.machine.files import flush_disk, open_disk

IMAGES_PER_ENTRY = 2048
"""Decoded images after which `PixelJournal` writes an entry."""
BYTES_PER_ENTRY = 1 << 30
"""Unpacked bytes after which `UnpackJournal` writes an entry. Flushing more often would slow the disk down."""

_LOOK_BYTES, _RESERVE_BYTES = 256 << 20, 1 << 30
"""How often the free space is looked at while an archive is unpacked, and how much of it stays free."""


class Journal:
    """A file of JSON lines. Each line states what is safely on disk; it is written after that is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("a+b")
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]  # a kill may leave half a line
        self._file.truncate(len(whole))
        self.entries: list[Any] = [json.loads(line) for line in whole.splitlines()]
        """Of earlier runs."""
        self.rejected = SkippedEntries(Rejected(**image) for entry in self.entries for image in entry["rejected"])
        """Images that were skipped so far."""
        self._written = len(self.rejected)

    def write(self, **state: Any) -> None:
        """Append an entry with the images rejected since the last one. What it states must be on disk already."""
        state["rejected"] = [asdict(image) for image in self.rejected[self._written :]]
        self._file.write(json.dumps(state).encode() + b"\n")
        _force_to_disk(self._file)
        self._written = len(self.rejected)

    def remove(self) -> None:
        """Delete the journal of a job that is complete."""
        self._path.unlink()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class PixelJournal:
    """The files of canonical images while they grow. Use as a context manager; a stop loses nothing, a kill little."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._journal = Journal(folder / "journal.jsonl")
        self._stack.callback(self._journal.close)
        self.rejected = self._journal.rejected
        last = self._journal.entries[-1] if self._journal.entries else {"tried": 0, "pixels": 0, "jpeg": 0}
        # A kill may leave more than the journal states; the same bytes overwrite it.
        self._pixels = self._open("pixels.bin", last["pixels"])
        self._jpeg = self._open("jpeg.bin", last["jpeg"])
        self._rows = self._open("done.bin", 0)
        self.tried: NDArray[np.void] = np.frombuffer(self._rows.read(last["tried"] * ROW.itemsize), ROW)
        """A row for each image that earlier runs tried, in order; label -1 means rejected."""
        self._done = self._saved = len(self.tried)

    def _open(self, name: str, position: int) -> IO[bytes]:
        descriptor = os.open(self._folder / name, os.O_RDWR | os.O_CREAT, 0o644)
        file = self._stack.enter_context(os.fdopen(descriptor, "r+b"))
        file.seek(position)
        return file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with self._stack:
            if not isinstance(error, Exception):
                self._save()

    @property
    def ends(self) -> tuple[int, int]:
        """Return where the next image's pixels and JPEG bytes will start."""
        return self._pixels.tell(), self._jpeg.tell()

    def add(self, row: np.void, pixels: bytes, jpeg: bytes) -> None:
        """Store an image with its row."""
        self._pixels.write(pixels)
        self._jpeg.write(jpeg)
        self._count(row)

    def reject(self, image: Rejected) -> None:
        """Record that an image cannot be decoded."""
        self.rejected.append(image)
        row = np.zeros(1, ROW)
        row["label"] = -1
        self._count(row[0])

    def _count(self, row: np.void) -> None:
        self._rows.write(row.tobytes())
        self._done += 1
        if self._done - self._saved == IMAGES_PER_ENTRY:
            self._save()

    def _save(self) -> None:
        _force_to_disk(self._pixels, self._jpeg, self._rows)
        pixels_end, jpeg_end = self.ends
        self._journal.write(tried=self._done, pixels=pixels_end, jpeg=jpeg_end)
        self._saved = self._done

    def remove(self) -> None:
        """Delete what is needed only to resume."""
        (self._folder / "done.bin").unlink()
        self._journal.remove()


class UnpackJournal:
    """The progress of unpacking an archive shard by shard into the folder `out`. To be closed."""

    def __init__(self, out: Path, most_bytes: int | None) -> None:
        """`most_bytes`: limit of what is written; None for no limit."""
        self.out, self._most_bytes = out, most_bytes
        self._resumes = any(out.iterdir())
        self._disk = open_disk(out)
        self._journal = Journal(out / ".loaderbench.unpacked.jsonl")
        self.remove = self._journal.remove
        self.rejected = self._journal.rejected
        last = self._journal.entries[-1] if self._journal.entries else {"shards": 0, "images": 0, "bytes": 0}
        self.shards: int = last["shards"]
        """Shards that are complete."""
        self.images: int = last["images"]
        """Images that are written."""
        self._bytes: int = last["bytes"]
        self._unsaved_bytes = 0
        self._of_shard: set[str] = set()

    def close(self) -> None:
        """Close the files."""
        self._journal.close()
        os.close(self._disk)

    def is_left(self, path: str) -> bool:
        """Return whether an existing file is left from a shard that a stop or a kill cut short."""
        return self._resumes and path not in self._of_shard

    def allow(self, size_bytes: int) -> None:
        """Raise SourceError if another file of this size exceeds the limit, DiskSpaceError if it leaves too little."""
        if self._most_bytes is not None and self._bytes + size_bytes > self._most_bytes:
            raise SourceError(
                f"it unpacks to more than {self._most_bytes >> 20} MiB, far more than its size; if you trust it, "
                "unpack it and name its folder"
            )
        if self._bytes // _LOOK_BYTES != (self._bytes + size_bytes) // _LOOK_BYTES:
            need(_RESERVE_BYTES, self.out, "the unpacked images and a reserve")

    def add(self, path: str, size_bytes: int) -> None:
        """Count a written image."""
        self.images += 1
        self._bytes += size_bytes
        self._unsaved_bytes += size_bytes
        if self._resumes:
            self._of_shard.add(path)

    def complete_shard(self) -> None:
        """Count a shard, and write an entry if enough was unpacked since the last one."""
        self.shards += 1
        self._of_shard.clear()
        if self._unsaved_bytes >= BYTES_PER_ENTRY:
            flush_disk(self._disk)  # the images are many small files
            self._journal.write(shards=self.shards, images=self.images, bytes=self._bytes)
            self._unsaved_bytes = 0


def _force_to_disk(*files: IO[bytes]) -> None:
    for file in files:
        file.flush()
        os.fsync(file.fileno())
