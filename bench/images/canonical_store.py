"""What does every format store? The canonical pixels and JPEG bytes of each image, read from their folder.

`pixels.bin` and `jpeg.bin` hold the bytes end to end, `index.bin` a `ROW` per sample, `sources.bin` their paths, each
ended by NUL, `rejected.json` what was left out and `manifest.json` the rest. Samples are in the order of torchvision's
ImageFolder.
"""

from __future__ import annotations

import json
import math
import os
import weakref
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from loaderbench.images.tree import Rejected, SourceError
from loaderbench.machine.text import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAYOUT = 1
"""Version of the store; raise it when what is stored changes."""
ROW = np.dtype(
    [
        ("tree_index", "<i8"),  # of its path in the tree it was drawn from
        ("pixels_at", "<i8"),
        ("jpeg_at", "<i8"),
        ("jpeg_bytes", "<i4"),
        ("height", "<i4"),
        ("width", "<i4"),
        ("label", "<i4"),
        ("pixels_sha256", "u1", 32),
        ("jpeg_sha256", "u1", 32),
    ]
)


@dataclass(frozen=True)
class CanonicalManifest:
    """A store in figures."""

    root: str
    classes: tuple[str, ...]
    """Those with a sample; a label is an index into them."""
    found: int
    """Images in the tree."""
    drawn: int
    """Images tried: the samples, and those that could not be decoded."""
    samples: int
    rejected: int
    """Entries left out: those the scan skipped, and those drawn that could not be decoded."""
    digest: str
    """SHA-256 over all pixels' and JPEGs' digests and the labels."""
    pixels_bytes_mean: float
    jpeg_bytes_mean: float
    versions: dict[str, str | None]
    """Of what decoded, resized and encoded."""
    notes: tuple[str, ...]


class CanonicalImages:
    """The `loaderbench.api.Source` of a store. Pickled, it takes along the folder's path only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        stored = json.loads((folder / "manifest.json").read_bytes())
        tuples = {name: tuple(stored[name]) for name in ("classes", "notes")}
        self.manifest = CanonicalManifest(**{**stored, **tuples})
        self.classes: tuple[str, ...] = self.manifest.classes

    def __reduce__(self) -> tuple[type[CanonicalImages], tuple[Path]]:
        return CanonicalImages, (self.folder,)

    def __len__(self) -> int:
        return self.manifest.samples

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """Return the canonical pixels of one sample: RGB, H x W x 3."""
        row = self._rows[index]
        pixels = np.empty((row["height"], row["width"], 3), np.uint8)
        self._check(os.preadv(self._pixels, [pixels.data], row["pixels_at"]), pixels.nbytes)
        return pixels

    def jpeg(self, index: int) -> bytes:
        """Return the canonical JPEG bytes of one sample."""
        row = self._rows[index]
        content = os.pread(self._jpeg, row["jpeg_bytes"], row["jpeg_at"])
        self._check(len(content), row["jpeg_bytes"])
        return content

    def mapped(self, kind: Literal["pixels", "jpeg"], index: int) -> NDArray[np.uint8]:
        """Return one sample's pixels (RGB, H x W x 3) or JPEG bytes as a read-only view of the mapped file."""
        row = self._rows[index]
        if kind == "jpeg":
            return self._mapped_jpeg[row["jpeg_at"] :][: row["jpeg_bytes"]]
        shape = row["height"], row["width"], 3
        return self._mapped_pixels[row["pixels_at"] :][: math.prod(map(int, shape))].reshape(shape)

    def label(self, index: int) -> int:
        """Return the class index of one sample."""
        return int(self._rows[index]["label"])

    def original(self, index: int) -> Path:
        """Return the user's own file of one sample. It must only be read."""
        return Path(self.manifest.root, os.fsdecode(self._sources[index]))

    @property
    def label_sum(self) -> int:
        """Return the sum of all labels."""
        return int(self._rows["label"].sum())

    def digests(self, kind: Literal["pixels", "jpeg"]) -> list[bytes]:
        """Return the SHA-256 of each sample's pixels (H x W x 3) or JPEG bytes."""
        return [row.tobytes() for row in self._rows[f"{kind}_sha256"]]

    def rejected(self) -> tuple[Rejected, ...]:
        """Return what was left out, with the reasons."""
        stored = json.loads((self.folder / "rejected.json").read_bytes())
        return tuple(Rejected(**entry) for entry in stored)

    def _check(self, read_bytes: int, stored_bytes: int) -> None:
        if read_bytes != stored_bytes:
            raise SourceError(f"{printable(self.folder)} is damaged; delete it and run again")

    @cached_property
    def _rows(self) -> NDArray[np.void]:
        return np.asarray(np.memmap(self.folder / "index.bin", ROW, "r"))

    @cached_property
    def _sources(self) -> list[bytes]:
        return (self.folder / "sources.bin").read_bytes().split(b"\0")[:-1]

    @cached_property
    def _mapped_pixels(self) -> NDArray[np.uint8]:
        return np.asarray(np.memmap(self.folder / "pixels.bin", np.uint8, "r"))

    @cached_property
    def _mapped_jpeg(self) -> NDArray[np.uint8]:
        return np.asarray(np.memmap(self.folder / "jpeg.bin", np.uint8, "r"))

    @cached_property
    def _pixels(self) -> int:
        return self._open("pixels.bin")

    @cached_property
    def _jpeg(self) -> int:
        return self._open("jpeg.bin")

    def _open(self, name: str) -> int:
        # Positioned reads on a plain descriptor are safe in threads and after a fork.
        descriptor = os.open(self.folder / name, os.O_RDONLY)
        weakref.finalize(self, os.close, descriptor)
        return descriptor
