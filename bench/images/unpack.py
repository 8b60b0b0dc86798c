"""Write an archive's images as files in class-index folders, byte for byte."""

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

RECORD = ".loaderbench.json"
"""In the unpacked folder, hidden from every reader of images: notes, and what was skipped."""
_LONGEST_NAME_BYTES = 255


@dataclass(frozen=True)
class Sample:
    """One image of an archive."""

    label: int
    """Class index, from 0."""
    name: str
    """File name within its class folder."""
    content: bytes
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
        """Fill the folder `out`, see `unpack`."""
        unpack(self, out, on_progress)

    def tree(self, folder: Path, split: str | None) -> ImageTree:  # noqa: ARG002 - the archive is of one split
        """Return the images of the folder that `write` filled."""
        return _with_record(scan(folder))


def class_folder(label: int) -> str:
    """Return the folder of a class index. Zeros keep the order: torchvision's ImageFolder sorts names as text."""
    return f"{label:06d}"


def unpack(archive: Archive, out: Path, on_progress: Callable[[int], None]) -> None:
    """Write the archive's images as `out/<class index>/<name>`. `on_progress` gets the number written so far.

    `out` is empty, or holds what the same call left when it was stopped or killed: then this call resumes after the
    complete shards. Raises SourceError or DiskSpaceError; the caller removes what is in `out` then.
    """
    rejected = SkippedEntries()
    most = most_bytes(sum(file.stat().st_size for file in archive.files)) if archive.files else None
    with closing(UnpackJournal(out, most)) as journal:
        complete = journal.shards
        try:
            for number, shard in enumerate(archive.shards(rejected.add)):
                if number >= complete:
                    _unpack_shard(shard, journal, on_progress)
        except DamagedError as error:
            raise SourceError(f"{error}. The {journal.images:,} images before it are not kept") from None
    rejected.more += journal.rejected.more
    rejected += journal.rejected
    if not journal.images:
        first = f" ({rejected[0]}, ...)" if rejected else ""
        where = f", {printable(archive.files[0])}" if archive.files else ""
        raise SourceError(
            f"no images in {archive.what}{where}: {len(rejected)} entries are skipped{first}. If it holds class "
            "folders, unpack it and name them: make bench DATA=/path/to/imagefolder"
        )
    record = {
        "notes": archive.notes,
        "rejected": rejected.listed(),
        "classes": archive.classes,
    }
    (out / RECORD).write_text(json.dumps(record))
    journal.remove()


def _with_record(tree: ImageTree) -> ImageTree:
    """Return the scanned tree with the archive's notes, rejects and labels."""
    record = json.loads((tree.root / RECORD).read_text())
    rejected = tuple(Rejected(**entry) for entry in record["rejected"])
    indices = np.array([int(folder) for folder in tree.classes], np.int32)
    unnamed = map(str, range(len(record["classes"]), indices.max() + 1))
    return replace(
        tree,
        classes=(*record["classes"], *unnamed),
        labels=indices[tree.labels],
        skipped=tree.skipped + rejected,
        notes=(*record["notes"], *tree.notes),
    )


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
    if not name.lower().endswith(EXTENSIONS) or name.startswith(".") or "/" in name:
        return "not an image by name"
    if len(os.fsencode(name)) > _LONGEST_NAME_BYTES:
        return "name too long"
    if not sample.content:
        return "empty file"
    return "" if 0 <= sample.label < LABELS_BELOW else f"no class index: {sample.label}"


def _write(journal: UnpackJournal, sample: Sample) -> str:
    """Write one image. Return an empty string, or why it is skipped."""
    folder = f"{journal.out}/{class_folder(sample.label)}"
    path = f"{folder}/{sample.name}"
    journal.allow(len(sample.content))
    with full_disk_explained(journal.out.parent, "the unpacked images"):
        try:
            file = open(path, "xb")  # noqa: PTH123, SIM115 - a million Paths would take their time
        except FileNotFoundError:
            os.mkdir(folder)  # noqa: PTH102
            file = open(path, "xb")  # noqa: PTH123, SIM115
        except FileExistsError:
            if not journal.is_left(path):
                return "an image of this name and class came before"
            file = open(path, "wb")  # noqa: PTH123, SIM115
        with file:
            file.write(sample.content)
    journal.add(path, len(sample.content))
    return ""
