"""Read canonical images, which every format stores, from their folder in the cache.

`pixels.bin` and `jpeg.bin` hold all images end to end, `index.bin` a `ROW` per sample, `sources.bin` the paths, each
ended by NUL, `rejected.json` what was skipped, and `manifest.json` the rest. Samples are in the order of torchvision's
ImageFolder.
"""

import json
import math
import os
import weakref
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from loaderbench.images.tree import Rejected, SourceError
from loaderbench.machine.text import printable

_KINDS = ("pixels", "jpeg")
LAYOUT = 2
"""Version of these files. Raise it when their content changes: the cache then makes them again."""
ROW = np.dtype(
    [
        ("tree_index", "<i8"),  # in the tree that the image was drawn from
        ("pixels_at", "<i8"),
        ("jpeg_at", "<i8"),
        ("jpeg_bytes", "<i4"),
        ("height", "<i4"),
        ("width", "<i4"),
        ("label", "<i4"),
        ("kind", "u1"),  # of the source file: an index into `decoding.KINDS`
        ("pixels_sha256", "u1", 32),
        ("jpeg_sha256", "u1", 32),
    ]
)


@dataclass(frozen=True)
class CanonicalManifest:
    """What a folder of canonical images holds."""

    root: str
    classes: tuple[str, ...]
    """All classes, also those without a sample; a label is an index into them."""
    found: int
    """Images in the tree."""
    drawn: int
    """The samples and the images that could not be decoded."""
    samples: int
    rejected: int
    """Skipped: entries that are no readable file, and drawn images that could not be decoded."""
    digest: str
    """SHA-256 over the digests of all pixels and JPEG bytes, and the labels."""
    pixels_bytes_mean: float
    jpeg_bytes_mean: float
    versions: dict[str, str | None]
    """Versions of all that pixels and JPEG bytes depend on."""
    notes: tuple[str, ...]


class CanonicalImages:
    """Canonical images as a `loaderbench.api.Source`. Pickled, only the folder's path is stored."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        stored = json.loads((folder / "manifest.json").read_bytes())
        tuples = {name: tuple(stored[name]) for name in ("classes", "notes")}
        self.manifest = CanonicalManifest(**{**stored, **tuples})
        self.classes: tuple[str, ...] = self.manifest.classes

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        return type(self), (self.folder,)

    def __len__(self) -> int:
        return self.manifest.samples

    def shape(self, index: int) -> tuple[int, int]:
        """Return height and width of the canonical pixels of one sample."""
        row = self._rows[index]
        return int(row["height"]), int(row["width"])

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """Return the canonical pixels of one sample: RGB, H x W x 3."""
        pixels, start = np.empty((*self.shape(index), 3), np.uint8), self._rows[index]["pixels_at"]
        self._check(os.preadv(self._descriptors["pixels"], [pixels.data], start), pixels.nbytes)
        return pixels

    def jpeg(self, index: int) -> bytes:
        """Return the canonical JPEG bytes of one sample."""
        row = self._rows[index]
        content = os.pread(self._descriptors["jpeg"], row["jpeg_bytes"], row["jpeg_at"])
        self._check(len(content), row["jpeg_bytes"])
        return content

    def mapped(self, kind: Literal["pixels", "jpeg"], index: int) -> NDArray[np.uint8]:
        """Return one sample's pixels (RGB, H x W x 3) or JPEG bytes as a read-only view of the mapped file."""
        row = self._rows[index]
        if kind == "jpeg":
            return self._maps[kind][row["jpeg_at"] :][: row["jpeg_bytes"]]
        shape = (*self.shape(index), 3)
        return self._maps[kind][row["pixels_at"] :][: math.prod(shape)].reshape(shape)

    def label(self, index: int) -> int:
        """Return the class index of one sample."""
        return int(self._rows[index]["label"])

    def original(self, index: int) -> Path:
        """Return the user's own file of one sample. It must only be read."""
        return Path(self.manifest.root, os.fsdecode(self._sources[index]))

    @property
    def label_counts(self) -> tuple[int, ...]:
        """Return the number of samples of each class."""
        return tuple(np.bincount(self._rows["label"], minlength=len(self.classes)).tolist())

    def digests(self, kind: Literal["pixels", "jpeg"]) -> list[bytes]:
        """Return the SHA-256 of each sample's pixels (H x W x 3) or JPEG bytes."""
        return [row.tobytes() for row in self._rows[f"{kind}_sha256"]]

    def rejected(self) -> tuple[Rejected, ...]:
        """Return the skipped entries with their reasons."""
        stored = json.loads((self.folder / "rejected.json").read_bytes())
        return tuple(Rejected(**entry) for entry in stored)

    def _check(self, read_bytes: int, stored_bytes: int) -> None:
        if read_bytes != stored_bytes:
            raise SourceError(f"{printable(self.folder)} is damaged; delete it and run the command again")

    @cached_property
    def _rows(self) -> NDArray[np.void]:
        return np.asarray(np.memmap(self.folder / "index.bin", ROW, "r"))

    @cached_property
    def _sources(self) -> list[bytes]:
        return (self.folder / "sources.bin").read_bytes().split(b"\0")[:-1]

    @cached_property
    def _maps(self) -> dict[str, NDArray[np.uint8]]:
        return {kind: np.asarray(np.memmap(self.folder / f"{kind}.bin", np.uint8, "r")) for kind in _KINDS}

    @cached_property
    def _descriptors(self) -> dict[str, int]:
        # Positioned reads on a plain descriptor are safe in threads and after a fork.
        descriptors = {kind: os.open(self.folder / f"{kind}.bin", os.O_RDONLY) for kind in _KINDS}
        for descriptor in descriptors.values():
            weakref.finalize(self, os.close, descriptor)
        return descriptors
