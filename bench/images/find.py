"""Turn whatever `--data` names into a local folder of class folders, as `images.tree` scans them.

A folder of class folders is used as it is. An archive is read once, into a tree of class-index folders in the cache.
What the user has is only read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from loaderbench.bucket.client import SCHEME
from loaderbench.bucket.copy import copy
from loaderbench.images import cifar, imagenet, parquet, webdataset
from loaderbench.images import tree as source
from loaderbench.images import unpack as tree
from loaderbench.images.tree import SourceError
from loaderbench.machine.code_digest import code_digest
from loaderbench.machine.files import begun_bytes, building, forget_earlier
from loaderbench.machine.text import printable

if TYPE_CHECKING:
    from loaderbench.images.unpack import Archive
    from loaderbench.machine.progress import Display

_KINDS = (imagenet, cifar, webdataset, parquet)
"""Each finds its own kind of archive; WebDataset takes any tar that the ones before it did not."""


def scan(data: str | Path, cache: Path, display: Display, split: str | None = None) -> source.ImageTree:
    """Return the images that `data` names, with what was left out on the way. Raises SourceError."""
    return tree.with_record(source.scan(folder(data, cache, display, split)))


def folder(data: str | Path, cache: Path, display: Display, split: str | None = None) -> Path:
    """Return the folder of class folders that `data` is, or that is made of it in the cache.

    `split`: which part is read where files are named by split, `train`, `val` or `test`; None takes training, or else
    the only one that is there. Raises SourceError.
    """
    path = copy(str(data), cache, display) if str(data).startswith(SCHEME) else Path(data)
    try:
        found = (archive for kind in _KINDS if (archive := kind.find(path, split)))
        archive = next(found, None)
        if not archive and split not in {None, tree.TRAIN}:
            raise tree.no_split(str(split), path, ())
        return _made(archive, cache, display) if archive else path
    except OSError as error:
        raise SourceError(f"{printable(path)} cannot be read: {os.strerror(error.errno or 0).lower()}") from None


def _made(archive: Archive, cache: Path, display: Display) -> Path:
    """Return the archive's tree of class-index folders, made if it is not there."""
    made = cache / "ingested" / _fingerprint(archive)
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        forget_earlier(made)
        _need_room(archive, made)
        with (
            building(made, goes_on=True) as partial,
            display.stage(f"reading {archive.what}", archive.images) as on_progress,
        ):
            tree.write(archive, partial, on_progress)
    return made


def _fingerprint(archive: Archive) -> str:
    """Return a key that changes with what is read of the archive, with its paths, sizes or times, "-", and one that
    changes with the code that reads it.
    """
    states = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in archive.files]
    key = hashlib.sha256(json.dumps([archive.what, states]).encode()).hexdigest()
    return f"{key[:16]}-{code_digest(sorted(Path(__file__).parent.glob('*.py')))[:8]}"


def _need_room(archive: Archive, made: Path) -> None:
    """Raise SourceError before anything is written if it would not fit. Images hardly shrink, packed or not."""
    folder = made.parent
    size_bytes = sum(file.stat().st_size for file in archive.files) - begun_bytes(made)
    free_bytes = shutil.disk_usage(folder).free
    if size_bytes > free_bytes:
        raise SourceError(
            f"{archive.what} need about {size_bytes / 2**30:.3g} GiB in {printable(folder)}, "
            f"where {free_bytes / 2**30:.3g} GiB is free: use --cache DIR for another disk"
        )
