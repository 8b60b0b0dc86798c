"""Turn whatever `--data` names into a local folder of class folders, and list its images.

A folder of class folders is used as it is; the user's files are only read. A bucket is copied, an archive is unpacked
and synthetic images are made, each once, into the cache.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from loaderbench.bucket.client import SCHEME
from loaderbench.bucket.copy import copy
from loaderbench.campaign.schema import Data
from loaderbench.images import cifar, dataset, imagenet, layouts, packed_tree, parquet, synthetic, webdataset
from loaderbench.images.class_folders import scan
from loaderbench.images.splits import TRAIN
from loaderbench.images.tree import ImageTree, SourceError, changed_ns
from loaderbench.images.unpack import Archive
from loaderbench.machine.code_digest import code_digest
from loaderbench.machine.disk import FEWER_IMAGES, need
from loaderbench.machine.files import begun_bytes, building, expanded, forget_earlier
from loaderbench.machine.progress import Display
from loaderbench.machine.text import printable

PROBE = "probe"
"""Folder of the cache for the images that certificates are made with."""
_KINDS = (imagenet, cifar, packed_tree, webdataset, parquet)
"""Kinds of archives, in the order of asking. WebDataset takes any tar that the kinds before it did not."""
_READERS = (
    *("archives", "dataset", "splits", "tables", "imagenet", "cifar"),
    *("inert_pickle", "packed_tree", "webdataset", "parquet", "parquet_pages", "unpack"),
)
"""Modules whose code decides what is unpacked."""
_SYNTHETIC_SAMPLES = 4096
"""Size of the synthetic set if the campaign sets no number."""
_SYNTHETIC_BYTES = 120_000
"""Upper estimate of one synthetic image."""


def find(data: Any, settings: Data, cache: Path, display: Display) -> ImageTree:
    """Return the images of `data`, with what was skipped on the way. Raises SourceError or DiskSpaceError.

    `data`: a path, a URL, the name of a dataset, or a dataset; None and "" make the synthetic set.
    """
    data = str(data) if isinstance(data, Path) else data
    if data is not None and not (isinstance(data, str) and not data):
        tree = _tree(data, settings.split, cache, display)
        for note in tree.notes:
            display.say(note)
        return tree
    if settings.split not in {None, TRAIN}:
        raise SourceError("the synthetic images have no splits: omit --split, or name images with --data")
    return scan(synthetic_folder(settings, cache, display))


def _tree(data: Any, split: str | None, cache: Path, display: Display) -> ImageTree:
    """Return the images that are in `data`, or that are unpacked from it into the cache.

    `split`: which files are read if their names contain splits. None takes training, or the only split that is there.
    Raises SourceError or DiskSpaceError.
    """
    if items := dataset.find(data):
        return items.tree(_unpacked(items, cache, display), split)
    path = copy(data, cache, display) if data.startswith(SCHEME) else _outside(Path(expanded(data)), cache)
    try:
        archive = next((archive for kind in _KINDS if (archive := kind.find(path, split))), None)
        return archive.tree(_unpacked(archive, cache, display), split) if archive else layouts.read(path, split)
    except OSError as error:
        raise SourceError(f"{printable(path)} cannot be read: {os.strerror(error.errno or 0).lower()}") from None


def _outside(path: Path, cache: Path) -> Path:
    """Return the path of the user's images. Raises SourceError if they are in the cache, or the cache is among them."""
    images, made = path.resolve(), cache.resolve()
    in_cache = images.is_relative_to(made) and not images.is_relative_to(made / PROBE)
    if in_cache or made.is_relative_to(images):
        raise SourceError(
            f"{printable(path)} and the cache, {printable(cache)}, are one folder or in each other: formats would be "
            "written among your images. Name another cache, such as --cache ~/.cache/loaderbench"
        )
    return path


def synthetic_folder(settings: Data, cache: Path, display: Display) -> Path:
    """Return the folder of the synthetic set, and make the set if the cache lacks it. Raises DiskSpaceError."""
    samples, code = settings.samples or _SYNTHETIC_SAMPLES, code_digest([Path(synthetic.__file__)])
    folder = cache / "synthetic" / f"{samples}-seed{settings.seed}-{code[:8]}"
    if not folder.exists():
        need(samples * _SYNTHETIC_BYTES, cache, "the synthetic images", FEWER_IMAGES)
        with building(folder) as partial, display.stage("making synthetic images", samples) as on_progress:
            synthetic.write(partial, samples, settings.seed, on_progress)
    return folder


def _unpacked(archive: Archive, cache: Path, display: Display) -> Path:
    """Return the folder of the archive's images, and unpack them if the cache lacks them."""
    folder = cache / "ingested" / _fingerprint(archive)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        forget_earlier(folder)
        archive_bytes = sum(file.stat().st_size for file in archive.files)  # images hardly shrink when packed
        need(archive_bytes - begun_bytes(folder), folder.parent, archive.what)
        with (
            building(folder, goes_on=True) as partial,
            display.stage(f"reading {archive.what}", archive.images) as on_progress,
        ):
            archive.write(partial, on_progress)
    return folder


def _fingerprint(archive: Archive) -> str:
    """Return "key-code". The key depends on what is read, and on the paths, sizes and times of the archive's files."""
    states = [(str(file.resolve()), file.stat().st_size, changed_ns(file.stat())) for file in archive.files]
    key = hashlib.sha256(json.dumps([archive.what, states, archive.key]).encode()).hexdigest()
    return f"{key[:16]}-{code_digest(Path(__file__).with_name(f'{name}.py') for name in _READERS)[:8]}"
