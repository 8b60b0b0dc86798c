"""Read WebDataset shards.

In this format, consecutive files whose names are equal up to the first dot of the last part are one sample. The rest of
a name is its field. The image is in a field such as jpg, or else in one that ends so, such as input.jpg. The label is
the number in the cls, or `label` in the json; if the first sample has neither, all samples are of one class.

FFCV's own `DatasetWriter.from_webdataset` is not used: it would store what FFCV reads from the shards instead of the
canonical pixels and JPEG bytes.
"""

import json
import re
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from operator import attrgetter, index
from pathlib import Path

from loaderbench.images.archives import LARGEST_BYTES, Member, Reject, holds_folders, is_tar, members
from loaderbench.images.splits import files_of
from loaderbench.images.tree import SourceError
from loaderbench.images.unpack import Archive, Sample
from loaderbench.machine.text import names, printable

_IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "ppm", "pgm")
_LABELS = ("cls", "json")
_OF_MACOS = "._"
"""How the names of files begin that macOS adds to an archive."""
_NAMED_FIELDS = 10


def find(path: Path, split: str | None) -> Archive | None:
    """Return the archive for a shard, or a folder of files with shards among them, else None. Raises SourceError."""
    if is_tar(path):
        _, notes = files_of(split, [path])
        return _archive("a WebDataset shard", [path], notes)
    if not path.is_dir():
        return None
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    if not any(map(is_tar, entries)) or any(entry.is_dir() for entry in entries):
        return None
    shards, notes = files_of(split, sorted(filter(is_tar, entries)))
    if len({re.sub(r"\d", "", shard.name) for shard in shards}) > 1 and any(map(holds_folders, shards)):
        told = names([shard.name for shard in shards])
        raise SourceError(f"{printable(path)} holds tar files of folders, not shards: name one with --data: {told}")
    return _archive(f"{len(shards)} WebDataset shards", shards, notes)


def _archive(what: str, shards: list[Path], notes: tuple[str, ...]) -> Archive:
    """Return the archive of these shards. Raises SourceError if the first one holds no image."""
    seen = set[str]()
    for key, fields in _fields(shards[0], lambda *_: None):  # noqa: B007 - both are used below
        seen |= fields.keys()
        if _image(fields):
            break
    else:
        found = ", ".join(sorted(seen)[:_NAMED_FIELDS]) or "no files"
        raise SourceError(f"{printable(shards[0])} holds no sample with an image; its fields are: {found}")
    labelled = "cls" in fields or _label(fields) is not None
    if not labelled:
        notes = (*notes, "The samples have no class (no cls, and no label in json): all are of one class.")
        if "/" in key:
            notes = (*notes, "If the folders in it are the classes, unpack it, and name the folder that holds them.")
    parts = [partial(_samples, number, path, labelled) for number, path in enumerate(shards)]
    return Archive(what, tuple(shards), lambda _: parts, notes=notes)


def _samples(number: int, shard: Path, labelled: bool, reject: Reject) -> Iterator[Sample]:  # noqa: FBT001 - partial binds it
    for row, (key, fields) in enumerate(_fields(shard, reject)):
        origin, image = f"{shard}: {key}", _image(fields)
        label = _label(fields) if labelled else 0
        if not image:
            reject(origin, f"no image: none of {', '.join(_IMAGES)}")
        elif label is None:
            reject(origin, "no label: no number in cls, and none as label in json")
        else:  # not named by key, which may come again in another shard
            yield Sample(label, f"{number:05d}-{row:07d}.{_type(image)}", fields[image], origin)


def _fields(shard: Path, reject: Reject) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield each sample of a shard: its key, and its fields that may be of use, the others empty."""
    with shard.open("rb") as file:
        ours = (member for member in members(file, str(shard), reject) if not member.basename.startswith(_OF_MACOS))
        for key, files in groupby(ours, attrgetter("key")):
            fields: dict[str, bytes] = {}
            left_bytes = LARGEST_BYTES
            for member in files:
                field = _field(member)
                is_used = _type(field) in (*_IMAGES, *_LABELS)
                if is_used and member.size_bytes > left_bytes:
                    reject(member.path, f"larger than {LARGEST_BYTES >> 20} MiB, with the rest of its sample")
                    is_used = False
                fields[field] = member.read() if is_used else b""
                left_bytes -= len(fields[field])
            yield key, fields


def _image(fields: dict[str, bytes]) -> str | None:
    """Return the field with the image; None if there is none."""
    return next((field for field in (*_IMAGES, *fields) if fields.get(field) and _type(field) in _IMAGES), None)


def _type(field: str) -> str:
    return field.rpartition(".")[2]


def _field(member: Member) -> str:
    """Return what follows the first dot of the name's last part."""
    return member.basename.partition(".")[2].lower()


def _label(fields: dict[str, bytes]) -> int | None:
    """Return the label; None if it is no whole number, as 1_0 and true are none."""
    try:
        if "cls" in fields:
            return int(fields["cls"]) if re.fullmatch(rb"\s*[+-]?\d+\s*", fields["cls"]) else None
        label = json.loads(fields["json"])["label"]
        return None if isinstance(label, bool) else index(label)
    except (KeyError, RecursionError, TypeError, ValueError):
        return None
