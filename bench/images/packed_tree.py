"""Unpack zip and tar files that hold folders of images, or ImageNet in other tars than its own.

Those are one tar for each synset, and Hugging Face's, in which the name of an image ends in its synset.
"""

import io
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, cast

from loaderbench.bucket.client import relative
from loaderbench.images import imagenet, layouts, tables
from loaderbench.images.archives import (
    LARGEST_BYTES,
    DamagedError,
    Member,
    Reject,
    first_name,
    holds_folders,
    is_tar,
    members,
)
from loaderbench.images.splits import files_of
from loaderbench.images.tree import EXTENSIONS, ImageTree, folders_in, is_ignored
from loaderbench.images.unpack import Archive, Sample, Shard
from loaderbench.machine.errors import FixableError
from loaderbench.machine.text import printable

_SYNSET = re.compile(r"n\d{8}")
_PIECE_BYTES = {zipfile.ZIP_BZIP2: 64, zipfile.ZIP_LZMA: 4096}
"""Packed bytes that can stand for tens of MiB."""
_ENDS_IN_SYNSET = re.compile(r"_(n\d{8})\.JPEG$")


@dataclass(frozen=True)
class PackedTree(Archive):
    """Zip or tar files of folders of images. Each file in them is a shard."""

    holds_splits: bool = False
    """Whether folders in it may be splits."""

    def tree(self, folder: Path, split: str | None) -> ImageTree:
        """Return the images of the folder that `write` filled."""
        root = folder
        while len(inner := folders_in(root)) == 1 and folders_in(inner[0]):
            [root] = inner  # most archives hold one folder, with all else in it
        return self.described(layouts.read(root, split if self.holds_splits else None), folder)


def _packed(what: str, files: Sequence[Path], notes: tuple[str, ...] = (), *, holds_splits: bool = False) -> PackedTree:
    return PackedTree(what, tuple(files), partial(_shards, files), notes=notes, holds_splits=holds_splits)


def _shards(files: Sequence[Path], reject: Reject) -> Iterator[Shard]:
    """Yield each file that is of use, and each empty folder, which is a class too, as a shard of its own."""
    places: set[str] = set()
    for path, name, file in _files(files, reject):
        place = _place(path, name)
        if file is not None and place in places:
            reject(f"{path}: {name}", "a file of this name came before")
        else:
            places.add(place)
            yield partial(_one, place, f"{path}: {name}", file)


def _one(place: str, origin: str, file: Member | None, _: Reject) -> Iterator[Sample]:
    yield Sample(None, place, file.read() if file else None, origin)


def _place(path: Path, name: str) -> str:
    """Return where a file of an archive goes, with ImageNet's synset as its folder."""
    base = PurePosixPath(name).name
    if synset := _ENDS_IN_SYNSET.search(base):
        return f"{synset[1]}/{base}"
    return f"{path.stem}/{base}" if _SYNSET.fullmatch(path.stem) else name


def find(path: Path, split: str | None) -> PackedTree | None:
    """Return the packed folders of a zip file, of a tar that holds images and no samples, or of ImageNet.

    ImageNet may be one tar or a folder of tars, see `_place`. None for other files. Raises SourceError.
    """
    if path.suffix.lower() == ".zip" and path.is_file():
        return _packed(f"the zip file {path.name}", [path], holds_splits=True)
    tars = [path] if is_tar(path) else sorted(filter(is_tar, path.iterdir())) if path.is_dir() else []
    if tars and all(_SYNSET.fullmatch(tar.stem) for tar in tars):
        return _packed(f"ImageNet's images of {len(tars)} synsets", tars)
    if tars and _ENDS_IN_SYNSET.search(first_name(tars[0])):
        chosen, notes = files_of(split, tars)
        return _packed("ImageNet's images", chosen, notes)
    if len(tars) != 1 or folders_in(path) or not holds_folders(tars[0]):
        return None
    return _packed(f"the tar file {tars[0].name}", tars, holds_splits=True)


def _files(paths: Iterable[Path], reject: Reject) -> Iterator[tuple[Path, str, Member | None]]:
    """Yield the archive, name and content of each file that is of use; of an empty folder None as the content.

    Raises DamagedError.
    """
    for path in paths:
        folders, filled = set[str](), set[str]()
        for name, file in _entries(path, reject):
            place = PurePosixPath(name)
            if relative(name.rstrip("/")) is None:
                reject(f"{path}: {name}", "a name that leads out of the archive")
            elif file is None:
                folders.add(str(place))
            elif not is_ignored(place.name):
                filled.update(map(str, place.parents))
                gives_labels = place.name == imagenet.SOLUTION or tables.is_table(place.name)
                if gives_labels or name.lower().endswith(EXTENSIONS):
                    yield path, name, file
        yield from ((path, folder, None) for folder in sorted(folders - filled))


def _entries(path: Path, reject: Reject) -> Iterator[tuple[str, Member | None]]:
    if is_tar(path):
        with path.open("rb") as file:
            yield from ((member.name.removeprefix("./"), member) for member in members(file, str(path), reject))
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.file_size > LARGEST_BYTES:
                    reject(f"{path}: {info.filename}", f"larger than {LARGEST_BYTES >> 20} MiB")
                elif info.is_dir():
                    yield info.filename, None
                else:
                    with archive.open(info) as content:
                        content_: Any = _InPieces(cast("zipfile.ZipExtFile", content), info.compress_type)
                        yield info.filename, Member(info.filename, str(path), content_, info.file_size)
    except FixableError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged file can make `zipfile` raise anything
        raise DamagedError(f"{printable(path)} cannot be read ({error}); unpack it and name its folder") from None


class _InPieces(io.RawIOBase):
    """A file of a zip, unpacked in small pieces: of bzip2 and LZMA, `zipfile` unpacks all that it reads at once."""

    def __init__(self, file: zipfile.ZipExtFile, compression: int) -> None:
        self._file = file
        self._piece_bytes = _PIECE_BYTES.get(compression, 1 << 20)
        file.MIN_READ_SIZE = min(self._piece_bytes, file.MIN_READ_SIZE)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._file.read(min(len(buffer), self._piece_bytes))
        buffer[: len(content)] = content
        return len(content)
