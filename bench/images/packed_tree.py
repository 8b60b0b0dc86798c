"""Unpack a zip or tar file that holds a folder of images, as people upload them."""

import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, ClassVar

from loaderbench.bucket.client import relative
from loaderbench.images import layouts
from loaderbench.images.archives import LARGEST_BYTES, DamagedError, Reject, is_tar, members
from loaderbench.images.tree import EXTENSIONS, ImageTree, Rejected, SourceError
from loaderbench.images.unpack import RECORD
from loaderbench.machine.disk import full_disk_explained
from loaderbench.machine.text import printable

_TRUTHS = ("LOC_val_solution.csv", *layouts.TABLES)
"""Names of files that give labels."""


@dataclass(frozen=True)
class PackedTree:
    """A zip or tar file of folders of images."""

    what: str
    """For messages."""
    files: tuple[Path, ...]
    """The file."""
    images: ClassVar = None
    resumes: ClassVar = False

    def write(self, out: Path, on_progress: Callable[[int], None]) -> None:
        """Write the images and files of labels into the empty folder `out`, in their folders.

        `on_progress` gets the number of files written so far. Raises SourceError or DiskSpaceError.
        """
        rejected: list[Rejected] = []
        [path], written = self.files, 0
        with full_disk_explained(out.parent, "the unpacked images"):
            for name, file in _files(path, lambda *entry: rejected.append(Rejected(*entry))):
                at = out / name
                at.parent.mkdir(parents=True, exist_ok=True)
                if file is None:
                    at.mkdir(exist_ok=True)  # an empty folder is a class
                elif at.exists():
                    rejected.append(Rejected(f"{path}: {name}", "a file of this name came before"))
                else:
                    at.write_bytes(file.read())
                    written += 1
                    on_progress(written)
        if not written:
            raise SourceError(f"no images in {printable(path)}: images end in {' '.join(EXTENSIONS)}")
        (out / RECORD).write_text(json.dumps([asdict(entry) for entry in rejected]))

    def tree(self, folder: Path, split: str | None) -> ImageTree:
        """Return the images of the folder that `write` filled."""
        root = folder
        while len(inner := layouts.folders_in(root)) == 1 and layouts.folders_in(inner[0]):
            [root] = inner  # most archives hold one folder, with all else in it
        found = layouts.read(root, split)
        rejected = tuple(Rejected(**entry) for entry in json.loads((folder / RECORD).read_text()))
        return replace(found, skipped=found.skipped + rejected)


def find(path: Path, split: str | None) -> PackedTree | None:  # noqa: ARG001 - the folders in it tell
    """Return the packed folders of a zip file, or of a tar whose first two files are images in folders, else None.

    Raises DamagedError.
    """
    if path.suffix.lower() == ".zip" and path.is_file():
        return PackedTree(f"the zip file {path.name}", (path,))
    if not is_tar(path):
        return None
    with path.open("rb") as file:
        first = [member.name for member in islice(members(file, str(path), lambda *_: None), 2)]
    images = [name for name in first if "/" in name and name.lower().endswith(EXTENSIONS)]
    apart = len({name.partition(".")[0] for name in images}) == len(first) > 1
    return PackedTree(f"the tar file {path.name}", (path,)) if apart else None


def _files(path: Path, reject: Reject) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Yield the name and content of each file that is of use; of a folder, the name and None. Raises DamagedError."""
    for name, file in _entries(path, reject):
        if relative(name.rstrip("/")) is None:
            reject(f"{path}: {name}", "a name that leads out of the archive")
        elif file is None or PurePosixPath(name).name in _TRUTHS or name.lower().endswith(EXTENSIONS):
            yield name.rstrip("/"), file


def _entries(path: Path, reject: Reject) -> Iterator[tuple[str, IO[bytes] | None]]:
    if is_tar(path):
        with path.open("rb") as file:
            yield from ((member.name.removeprefix("./"), member.file) for member in members(file, str(path), reject))
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
                        yield info.filename, content
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise DamagedError(f"{printable(path)} cannot be read ({error}); unpack it and name its folder") from None
