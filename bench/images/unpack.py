"""How do an archive's images become a tree of class-index folders? Each is written once, byte by byte as it is."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from loaderbench.images.archives import DamagedError
from loaderbench.images.tree import EXTENSIONS, ImageTree, Rejected, SourceError
from loaderbench.images.unpack_journal import Unpacking
from loaderbench.machine.files import full_disk_explained
from loaderbench.machine.text import names, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from loaderbench.images.archives import Reject

_RECORD = ".loaderbench.json"
"""In the tree, hidden from every reader of images: what was left out of it."""
_LONGEST_NAME_BYTES = 255
_LABELS = 1_000_000
TRAIN = "train"
"""The split that is read if none is asked for, and it is there."""
_SPLIT = re.compile(r"(?<![a-z])(train|val|valid|validation|test)(?![a-z])")
_SHORT = {"valid": "val", "validation": "val"}


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


@dataclass(frozen=True)
class Shard:
    """A part of an archive. No image of another one has the same label and name."""

    samples: Callable[[Reject], Iterator[Sample]]
    """Yields the images in one pass; raises SourceError."""


@dataclass(frozen=True)
class Archive:
    """Images that are not a tree of files yet."""

    what: str
    """For messages."""
    files: tuple[Path, ...]
    """All that it is read from. They are only read."""
    shards: Callable[[Reject], Iterator[Shard]]
    """Yields the parts, always in the same order; each is read, or left alone, before the next one is asked for."""
    images: int | None = None
    """How many there are, if that is known before they are read."""
    notes: tuple[str, ...] = ()
    """What the user may want to know, one sentence each."""


def one_shard(samples: Callable[[Reject], Iterator[Sample]], _: Reject) -> Iterator[Shard]:
    """Yield all images as one part."""
    yield Shard(samples)


def class_folder(label: int) -> str:
    """Return the folder of a class index. Zeros keep the order: torchvision's ImageFolder sorts names as text."""
    return f"{label:06d}"


def part(files: list[Path], split: str | None) -> tuple[list[Path], tuple[str, ...]]:
    """Return the files of a split, told by the last word for one in their names, and a note unless these are all and of
    training. None takes the only split that all names tell of, or training.

    Where no name tells of training, what tells of no split is it. Raises SourceError.
    """
    words = {file: found[-1] for file in files if (found := _SPLIT.findall(file.name.lower()))}
    splits = {file: _SHORT.get(word, word) for file, word in words.items()}
    unnamed = [file for file in files if file not in splits]
    there = sorted(set(splits.values()))
    split = split or (there[0] if len(there) == 1 and not unnamed else TRAIN)
    chosen = [file for file in files if splits.get(file) == split] or (unnamed if split == TRAIN else [])
    if files and not chosen:
        raise no_split(split, files[0].parent, there)
    others = [file.name for file in files if file not in chosen]
    if split == TRAIN and not others:
        return chosen, ()
    left = f"; {len(others)} others are left out: {names(others)}" if others else ""
    return chosen, (f"The files of the split {split} are read{left}.",)


def no_split(split: str, where: Path, there: Iterable[str]) -> SourceError:
    """Return the error of a split that is not there, which names those that are."""
    known = ", ".join(sorted(set(there)))
    tells = f"there are: {known}" if known else "its names tell of none, and the split's own folder has to be named"
    return SourceError(f"{printable(where)} has no split {split}: {tells}")


def write(archive: Archive, out: Path, on_progress: Callable[[int], None]) -> None:
    """Write the archive's images as `out/<class index>/<name>`. `on_progress` gets the number of those written so far.

    `out` is empty, or holds what the same call has left when it was stopped or killed: then this one goes on after the
    shards that are whole. Raises SourceError; what is in `out` then is the caller's to remove.
    """
    rejected: list[Rejected] = []
    with Unpacking(out) as done:
        begin = done.shards
        try:
            for number, shard in enumerate(archive.shards(lambda *entry: rejected.append(Rejected(*entry)))):
                if number >= begin:
                    _unpack(shard, done, on_progress)
        except DamagedError as error:
            raise SourceError(f"{error}. {done.images:,} images came before; none of them is kept") from None
    rejected += done.rejected
    if not done.images:
        first = f" ({rejected[0]}, ...)" if rejected else ""
        where = printable(archive.files[0])
        raise SourceError(
            f"no images in {archive.what}, {where}: {len(rejected)} entries are left out{first}. If it holds class "
            "folders, unpack it and name them: make bench DATA=/path/to/imagefolder"
        )
    record = {"notes": archive.notes, "rejected": [asdict(entry) for entry in rejected]}
    (out / _RECORD).write_text(json.dumps(record))
    done.forget()


def _unpack(shard: Shard, done: Unpacking, on_progress: Callable[[int], None]) -> None:
    """Write the images of a shard."""
    for sample in shard.samples(done.reject):
        if reason := _refusal(sample) or _write(done, sample):
            done.reject(sample.origin, reason)
            continue
        on_progress(done.images)
    done.shard_is_whole()


def with_record(tree: ImageTree) -> ImageTree:
    """Return the scanned tree with what was left out when it was made of an archive, if it was."""
    path = tree.root / _RECORD
    if not path.exists():
        return tree
    record = json.loads(path.read_text())
    rejected = tuple(Rejected(**entry) for entry in record["rejected"])
    return replace(tree, skipped=tree.skipped + rejected, notes=(*record["notes"], *tree.notes))


def _refusal(sample: Sample) -> str:
    """Return why an image is left out, or nothing. Its name may come from an archive, so it is not trusted."""
    name = sample.name
    if not name.lower().endswith(EXTENSIONS) or name.startswith(".") or "/" in name:
        return "not an image by name"
    if len(os.fsencode(name)) > _LONGEST_NAME_BYTES:
        return "name too long"
    if not sample.content:
        return "empty file"
    return "" if 0 <= sample.label < _LABELS else f"no class index: {sample.label}"


def _write(done: Unpacking, sample: Sample) -> str:
    """Write one image and return nothing, or why it is left out."""
    folder = f"{done.out}/{class_folder(sample.label)}"
    path = f"{folder}/{sample.name}"
    with full_disk_explained(partial(_filled_up, done.out.parent)):
        try:
            file = open(path, "xb")  # noqa: PTH123, SIM115 - a million Paths would take their time
        except FileNotFoundError:
            os.mkdir(folder)  # noqa: PTH102
            file = open(path, "xb")  # noqa: PTH123, SIM115
        except FileExistsError:
            if not done.is_left(path):
                return "an image of this name and class came before"
            file = open(path, "wb")  # noqa: PTH123, SIM115
        with file:
            file.write(sample.content)
    done.add(path, len(sample.content))
    return ""


def _filled_up(folder: Path, why: str) -> SourceError:
    kept = "nothing half-made is kept"
    return SourceError(f"{printable(folder)} filled up ({why}); {kept}: use --cache DIR for another disk")
