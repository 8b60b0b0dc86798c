"""Unpack zip and tar files that hold folders of images, or ImageNet in other tars than its own.

Those are one tar for each synset, and Hugging Face's, in which the name of an image ends in its synset.
"""

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, cast

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
    most_bytes,
)
from loaderbench.images.journal import UnpackJournal
from loaderbench.images.splits import files_of
from loaderbench.images.tree import EXTENSIONS, ImageTree, Rejected, SkippedEntries, SourceError, folders_in, is_ignored
from loaderbench.images.unpack import RECORD
from loaderbench.machine.disk import full_disk_explained
from loaderbench.machine.errors import FixableError
from loaderbench.machine.text import printable

_SYNSET = re.compile(r"n\d{8}")
_PIECE_BYTES = {zipfile.ZIP_BZIP2: 64, zipfile.ZIP_LZMA: 4096}
"""Packed bytes that can stand for tens of MiB."""
_ENDS_IN_SYNSET = re.compile(r"_(n\d{8})\.JPEG$")


@dataclass(frozen=True)
class PackedTree:
    """Zip or tar files of folders of images."""

    what: str
    """For messages."""
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    """What the user may want to know, one sentence each."""
    holds_splits: bool = False
    """Whether folders in it may be splits."""
    images: ClassVar = None
    key: ClassVar = ""

    def write(self, out: Path, on_progress: Callable[[int], None]) -> None:
        """Write the images and files of labels into the folder `out`, in their folders.

        `out` is empty, or holds what the same call left when it was stopped or killed: then this call resumes there.
        `on_progress` gets the number of files written so far. Raises SourceError or DiskSpaceError.
        """
        rejected = SkippedEntries()
        places: set[str] = set()
        most = most_bytes(sum(file.stat().st_size for file in self.files))
        with full_disk_explained(out.parent, "the unpacked images"), closing(UnpackJournal(out, most)) as journal:
            complete = journal.shards  # each entry of an archive counts as one
            for number, (path, name, file) in enumerate(_files(self.files, rejected.add)):
                place = _place(path, name)
                if file is not None and place in places:
                    rejected.add(f"{path}: {name}", "a file of this name came before")
                elif number >= complete and _write(out / place, file, journal):
                    on_progress(journal.images)
                if number >= complete:
                    journal.complete_shard()
                places.add(place)
        if not journal.images:
            raise SourceError(f"no images in {printable(self.files[0])}: images end in {' '.join(EXTENSIONS)}")
        (out / RECORD).write_text(json.dumps(rejected.listed()))
        journal.remove()

    def tree(self, folder: Path, split: str | None) -> ImageTree:
        """Return the images of the folder that `write` filled."""
        root = folder
        while len(inner := folders_in(root)) == 1 and folders_in(inner[0]):
            [root] = inner  # most archives hold one folder, with all else in it
        found = layouts.read(root, split if self.holds_splits else None)
        rejected = tuple(Rejected(**entry) for entry in json.loads((folder / RECORD).read_text()))
        return replace(found, skipped=found.skipped + rejected, notes=(*self.notes, *found.notes))


def _write(at: Path, file: Member | None, journal: UnpackJournal) -> bool:
    """Write a file, or make a folder, which is a class even if it is empty. Return whether it was a file."""
    (at if file is None else at.parent).mkdir(parents=True, exist_ok=True)
    if file is not None:
        journal.allow(file.size_bytes)
        journal.add(str(at), at.write_bytes(file.read()))
    return file is not None


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
        return PackedTree(f"the zip file {path.name}", (path,), holds_splits=True)
    tars = [path] if is_tar(path) else sorted(filter(is_tar, path.iterdir())) if path.is_dir() else []
    if tars and all(_SYNSET.fullmatch(tar.stem) for tar in tars):
        return PackedTree(f"ImageNet's images of {len(tars)} synsets", tuple(tars))
    if tars and _ENDS_IN_SYNSET.search(first_name(tars[0])):
        chosen, notes = files_of(split, tars)
        return PackedTree("ImageNet's images", tuple(chosen), notes)
    if len(tars) != 1 or folders_in(path) or not holds_folders(tars[0]):
        return None
    return PackedTree(f"the tar file {tars[0].name}", (tars[0],), holds_splits=True)


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
                if _gives_labels(place.name) or name.lower().endswith(EXTENSIONS):
                    yield path, name, file
        yield from ((path, folder, None) for folder in sorted(folders - filled))


def _gives_labels(name: str) -> bool:
    return name == imagenet.SOLUTION or tables.is_table(name)


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
