"""Write folders for torchvision's ImageFolder: one folder per class, one file per image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loaderbench.api import Encoding, Source

requires = ()
modes = ("original", "jpeg")
resumes = True


def write(source: Source, out: Path, encoding: Encoding, workers: int) -> None:  # noqa: ARG001
    """Write the canonical JPEG bytes, or in mode `original` links to the user's files. File names are sample indices.

    A complete file from a stopped run is kept.
    """
    for label in range(len(source.classes)):
        (out / f"{label:06d}").mkdir(exist_ok=True)
    for index in range(len(source)):
        folder = out / f"{source.label(index):06d}"
        if encoding.mode == "original":
            original = source.original(index)
            link = folder / f"{index:09d}{original.suffix.lower()}"
            if not link.is_symlink():
                link.symlink_to(original)
        else:
            path, content = folder / f"{index:09d}.jpg", source.jpeg(index)
            if not path.exists() or path.read_bytes() != content:
                path.write_bytes(content)


def payloads(out: Path) -> Iterator[bytes]:
    for path in sorted(out.glob("*/*"), key=lambda path: path.stem):
        yield path.read_bytes()
