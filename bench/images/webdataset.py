"""WebDataset shards: which files of a shard are one sample, and what is its label?

As the format has it: files that follow one another and have the same name up to the first dot of their last part are
one sample. Its image is a jpg, jpeg, png or webp, its label the number in its cls, or `label` in its json.

The samples are a source for every writer, FFCV's too. FFCV's own `DatasetWriter.from_webdataset` is not used: it hands
whole shards to its worker processes, which decode each image once to count it and once to write it. What it stored
would be its own reading of the shards, and not the canonical pixels and JPEG bytes that every format here stores.
"""

from __future__ import annotations

import json
from functools import partial
from itertools import groupby
from operator import index
from typing import TYPE_CHECKING

from loaderbench.images.archives import is_tar, members
from loaderbench.images.unpack import Archive, Sample, Shard, part

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from loaderbench.images.archives import Member, Reject

_IMAGES = ("jpg", "jpeg", "png", "webp")
_LABELS = ("cls", "json")


def find(path: Path, split: str | None) -> Archive | None:
    """Return the archive that a shard or a folder of nothing but shards is, if it is one. Raises SourceError."""
    if is_tar(path):
        _, notes = part([path], split)
        return Archive("a WebDataset shard", (path,), partial(_shards, [path]), notes=notes)
    if not path.is_dir():
        return None
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    if not any(map(is_tar, entries)) or any(entry.is_dir() for entry in entries):
        return None
    shards, notes = part(sorted(filter(is_tar, entries)), split)
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
                reject(origin, "no label: neither a number as cls nor one as label in json")
            else:  # keys may come again in another shard
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
