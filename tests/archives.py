"""Make tiny archives with the layouts of ImageNet, CIFAR and users."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from loaderbench.campaign.schema import Data
from loaderbench.images import ImageTree, find
from loaderbench.machine.progress import Display

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def image(number: int, suffix: str = ".jpg") -> bytes:
    """An encoded image that differs from those of other numbers."""
    pixels = np.random.default_rng(number).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    return cv2.imencode(suffix, pixels)[1].tobytes()


def link(name: str, target: str, type_: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = type_, target
    return info


def tar(path: Path, entries: Iterable[tuple[str, bytes] | tarfile.TarInfo], mode: str = "w") -> Path:
    """A tar of files (name, content) and of other members, in this order."""
    path.write_bytes(packed(entries, mode))
    return path


def packed(entries: Iterable[tuple[str, bytes] | tarfile.TarInfo], mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as out:  # type: ignore[call-overload]
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                out.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                out.addfile(info, io.BytesIO(entry[1]))
    return stream.getvalue()


def read(data: Any, cache: Path, split: str | None = None) -> ImageTree:
    """The tree that the harness reads from `--data`."""
    return find(data, Data(split=split), cache, Display())


def contents(tree: ImageTree) -> dict[str, bytes]:
    """The images of a tree by path."""
    return {path: (tree.root / path).read_bytes() for path in tree.paths}


def reasons(tree: ImageTree) -> dict[str, str]:
    """The skipped members by their name in the archive, with the reasons."""
    return {entry.path.partition(": ")[2]: entry.reason for entry in tree.skipped}


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes text and bytes like Python 2, which wrote the batches of CIFAR."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]  # noqa: RUF012

    def save_str(self, text: str | bytes) -> None:
        content = text.encode() if isinstance(text, str) else text
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = save_str


def python2_pickle(content: Any) -> bytes:
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(content)
    return stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
