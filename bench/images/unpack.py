"""Write the images of an archive as files, byte for byte."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from loaderbench.images.archives import DamagedError, Reject, most_bytes
from loaderbench.images.class_folders import scan
from loaderbench.images.journal import UnpackJournal
from loaderbench.images.tree import EXTENSIONS, LABELS_BELOW, ImageTree, Rejected, SkippedEntries, SourceError
from loaderbench.machine.disk import full_disk_explained
from loaderbench.machine.text import printable

_SKIPPED = ".loaderbench.json"
"""In the unpacked folder, hidden from every reader of images: what was skipped."""
_LONGEST_NAME_BYTES = 255


@dataclass(frozen=True)
class Sample:
    """One image of an archive."""

    label: int | None
    """Class index, from 0. None: its folder says the class."""
    name: str
    """File name within its class folder. Without a label: the path of the file, or of an empty folder."""
    content: bytes | None
    """None makes an empty folder."""
    origin: str
    """Where it comes from, for messages."""


Shard = Callable[[Reject], Iterator[Sample]]
"""Yields the images of a part of an archive in one pass. No image of another part has the same label and name. Raises
SourceError."""


@dataclass(frozen=True)
class Archive:
    """Images that are not files in class folders yet."""

    what: str
    """For messages."""
    files: tuple[Path, ...]
    """All files that it is read from. They are only read."""
    shards: Callable[[Reject], Iterable[Shard]]
    """Gives the shards, always in the same order. Each is read, or skipped, before the next one is requested."""
    images: int | None = None
    """Number of images, if it is known before they are read."""
    notes: tuple[str, ...] = ()
    """What the user may want to know, one sentence each."""
    classes: tuple[str, ...] = ()
    """Names of the classes, by class index. Empty if they are unknown: then the index is the name."""
    key: str = ""
    """Changes with the content, if that is in no file."""

    def write(self, out: Path, on_progress: Callable[[int], None]) -> None:
        """Write the images into their class folders in the folder `out`. `on_progress` gets the number written so far.

        `out` is empty, or holds what the same call left when it was stopped or killed: then this call resumes after the
        complete shards. Raises SourceError or DiskSpaceError; the caller removes what is in `out` then.
        """
        rejected = SkippedEntries()
        most = most_bytes(sum(file.stat().st_size for file in self.files)) if self.files else None
        with full_disk_explained(out.parent, "the unpacked images"), closing(UnpackJournal(out, most)) as journal:
            complete = journal.shards
            try:
                for number, shard in enumerate(self.shards(rejected.add)):
                    if number >= complete:
                        _unpack_shard(shard, journal, on_progress)
            except DamagedError as error:
                raise SourceError(f"{error}. The {journal.images:,} images before it are not kept") from None
        rejected.more += journal.rejected.more
        rejected += journal.rejected
        if not journal.images:
            first = f" ({rejected[0]}, ...)" if rejected else ""
            where = f", {printable(self.files[0])}" if self.files else ""
            raise SourceError(
                f"no images in {self.what}{where}: {len(rejected)} entries are skipped{first}. Images end in "
                f"{' '.join(EXTENSIONS)}. If it holds class folders, unpack it and name them: "
                "make bench DATA=/path/to/imagefolder"
            )
        (out / _SKIPPED).write_text(json.dumps(rejected.listed()))
        journal.remove()

    def tree(self, folder: Path, split: str | None) -> ImageTree:  # noqa: ARG002 - the archive is of one split
        """Return the images of the folder that `write` filled."""
        tree = scan(folder)
        indices = np.array([int(name) for name in tree.classes], np.int32)
        unnamed = map(str, range(len(self.classes), indices.max() + 1))
        return self.described(replace(tree, classes=(*self.classes, *unnamed), labels=indices[tree.labels]), folder)

    def described(self, tree: ImageTree, folder: Path) -> ImageTree:
        """Return a tree with the archive's notes, and what `write` skipped on the way to the folder."""
        skipped = tuple(Rejected(**entry) for entry in json.loads((folder / _SKIPPED).read_text()))
        return replace(tree, skipped=tree.skipped + skipped, notes=(*self.notes, *tree.notes))


def class_folder(label: int) -> str:
    """Return the folder of a class index. Zeros keep the order: torchvision's ImageFolder sorts names as text."""
    return f"{label:06d}"


def _unpack_shard(shard: Shard, journal: UnpackJournal, on_progress: Callable[[int], None]) -> None:
    for sample in shard(journal.rejected.add):
        if reason := _refusal(sample) or _write(journal, sample):
            journal.rejected.add(sample.origin, reason)
        else:
            on_progress(journal.images)
    journal.complete_shard()


def _refusal(sample: Sample) -> str:
    """Return why an image is skipped, or an empty string. Its name may come from an archive, so it is not trusted."""
    name = sample.name
    if sample.label is None:  # `packed_tree` has chosen it by its path
        return ""
    if not name.lower().endswith(EXTENSIONS) or name.startswith(".") or "/" in name:
        return "not an image by name"
    if len(os.fsencode(name)) > _LONGEST_NAME_BYTES:
        return "name too long"
    if not sample.content:
        return "empty file"
    return "" if 0 <= sample.label < LABELS_BELOW else f"no class index: {sample.label}"


def _write(journal: UnpackJournal, sample: Sample) -> str:
    """Write one image. Return an empty string, or why it is skipped."""
    place = sample.name if sample.label is None else f"{class_folder(sample.label)}/{sample.name}"
    path = f"{journal.out}/{place}"
    if sample.content is None:
        os.makedirs(path, exist_ok=True)  # noqa: PTH103
        return ""
    journal.allow(len(sample.content))
    try:
        file = open(path, "xb")  # noqa: PTH123, SIM115 - a million Paths would take their time
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path))  # noqa: PTH103, PTH120
        file = open(path, "xb")  # noqa: PTH123, SIM115
    except FileExistsError:
        if not journal.is_left(path):
            return "an image of this name and class came before"
        file = open(path, "wb")  # noqa: PTH123, SIM115
    with file:
        file.write(sample.content)
    journal.add(path, len(sample.content))
    return ""
