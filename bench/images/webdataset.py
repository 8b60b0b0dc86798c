"""Read WebDataset shards.

In this format, consecutive files whose names are equal up to the first dot of the last part are one sample. The image
is a jpg, jpeg, png or webp; the label is the number in the cls, or `label` in the json.

FFCV's own `DatasetWriter.from_webdataset` is not used: it would store what FFCV reads from the shards instead of the
canonical pixels and JPEG bytes.
"""

import json
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from operator import index
from pathlib import Path

from loaderbench.images.archives import Member, Reject, is_tar, members
from loaderbench.images.splits import files_of
from loaderbench.images.unpack import Archive, Sample, Shard

_IMAGES = ("jpg", "jpeg", "png", "webp")
_LABELS = ("cls", "json")


def find(path: Path, split: str | None) -> Archive | None:
    """Return the archive for a shard, or a folder of files with shards among them, else None. Raises SourceError."""
    if is_tar(path):
        _, notes = files_of(split, [path])
        return Archive("a WebDataset shard", (path,), partial(_shards, [path]), notes=notes)
    if not path.is_dir():
        return None
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    if not any(map(is_tar, entries)) or any(entry.is_dir() for entry in entries):
        return None
    shards, notes = files_of(split, sorted(filter(is_tar, entries)))
    return Archive(f"{len(shards)} WebDataset shards", tuple(shards), partial(_shards, shards), notes=notes)


def _shards(shards: list[Path], _: Reject) -> Iterator[Shard]:
    for number, path in enumerate(shards):
        yield Shard(partial(_samples, number, path))


def _samples(number: int, shard: Path, reject: Reject) -> Iterator[Sample]:
    with shard.open("rb") as file:
        for row, (key, files) in enumerate(groupby(members(file, str(shard), reject), _key)):
            fields = {field: member.read() for member in files if (field := _field(member)) in _IMAGES + _LABELS}
            origin, image = f"{shard}: {key}", next(filter(fields.get, _IMAGES), None)
            label = _label(fields)
            if not image:
                reject(origin, f"no image: none of {', '.join(_IMAGES)}")
            elif label is None:
                reject(origin, "no label: no number in cls, and none as label in json")
            else:  # not named by key, which may come again in another shard
                yield Sample(label, f"{number:05d}-{row:07d}.{image}", fields[image], origin)


def _key(member: Member) -> str:
    return member.name[: len(member.name) - len(_field(member))].removesuffix(".")


def _field(member: Member) -> str:
    """Return what follows the first dot of the name's last part."""
    return member.basename.partition(".")[2].lower()


def _label(fields: dict[str, bytes]) -> int | None:
    try:
        return int(fields["cls"]) if "cls" in fields else index(json.loads(fields["json"])["label"])
    except (KeyError, TypeError, ValueError):
        return None
