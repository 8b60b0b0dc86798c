"""Read the Python archives of CIFAR-10 and CIFAR-100.

The batches are pickles, and a pickle can run any program; `inert_pickle` runs nothing. The pixels become PNG files,
which are lossless.
"""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from loaderbench.images import inert_pickle
from loaderbench.images.archives import DamagedError, Reject, first_name, is_tar, members
from loaderbench.images.splits import TRAIN, no_split
from loaderbench.images.tree import SourceError
from loaderbench.images.unpack import Archive, Sample
from loaderbench.machine.text import printable

SIDE = 32
"""Height and width of every image, pixels."""


@dataclass(frozen=True)
class _Edition:
    name: str
    folder: str
    tar: str
    mark: str
    """A file that only the folder of this edition holds."""
    batches: tuple[str, ...]
    """File names of the training images."""
    test_batch: str
    labels: bytes
    """Key of a batch's class indices."""


EDITIONS = (
    _Edition(
        "CIFAR-10",
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        "batches.meta",
        tuple(f"data_batch_{number}" for number in range(1, 6)),
        "test_batch",
        b"labels",
    ),
    _Edition("CIFAR-100", "cifar-100-python", "cifar-100-python.tar.gz", "meta", ("train",), "test", b"fine_labels"),
)
_IMAGES = {"train": 50_000, "test": 10_000}


def find(path: Path, split: str | None) -> Archive | None:
    """Return CIFAR's archive for its tar file, the extracted folder, or a folder that holds one of them, else None.

    Raises SourceError.
    """
    for edition in EDITIONS:
        for place in (path, path / edition.folder, path / edition.tar):
            if _holds(place, edition):
                return _archive(place, edition, split or TRAIN)
    return None


def _holds(place: Path, edition: _Edition) -> bool:
    if is_tar(place):
        return edition.folder in PurePosixPath(first_name(place)).parts
    return (place / edition.mark).is_file()


def _archive(place: Path, edition: _Edition, split: str) -> Archive:
    if split not in _IMAGES:
        raise no_split(split, place, _IMAGES)
    what, others = ("training", "test") if split == TRAIN else ("test", "training")
    if split != TRAIN:
        edition = replace(edition, batches=(edition.test_batch,))
    unpacked = (place / name for name in edition.batches if (place / name).is_file())
    files = (place,) if place.is_file() else tuple(unpacked)
    note = f"These are {edition.name}'s {what} images; its {others} images are skipped."
    samples = partial(_samples, place, edition)
    return Archive(f"{edition.name}'s {what} images", files, lambda _: [samples], _IMAGES[split], (note,))


def _samples(place: Path, edition: _Edition, reject: Reject) -> Iterator[Sample]:
    missing = set(edition.batches)
    for name, content in _batches(place, edition, reject):
        missing.discard(name)
        origin = f"{place}: {name}"
        for row, (pixels, label) in enumerate(_images(content, edition, origin)):
            bgr = pixels.reshape(3, SIDE, SIDE).transpose(1, 2, 0)[:, :, ::-1]
            png = cv2.imencode(".png", bgr)[1].tobytes()
            yield Sample(label, f"{name}-{row:05d}.png", png, f"{origin}, image {row}")
    if missing:
        raise SourceError(f"{printable(place)} lacks {', '.join(sorted(missing))}; download {edition.tar} again")


def _batches(place: Path, edition: _Edition, reject: Reject) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each batch that is read."""
    if place.is_dir():
        yield from ((name, (place / name).read_bytes()) for name in edition.batches if (place / name).is_file())
        return
    with place.open("rb") as file:
        for member in members(file, str(place), reject):
            if member.basename in edition.batches:
                yield member.basename, member.read()


def _images(content: bytes, edition: _Edition, origin: str) -> Iterator[tuple[np.ndarray[Any, Any], int]]:
    """Yield the pixels (3,072 values: red, green, blue, row by row) and the label of each image of a batch."""
    try:
        batch = inert_pickle.load(content)
        pixels, labels = batch[b"data"].integers(), batch[edition.labels]
        labels = labels.integers().tolist() if isinstance(labels, inert_pickle.Array) else labels
        shape = (len(labels), 3 * SIDE * SIDE)
        if pixels.dtype != np.uint8 or pixels.shape != shape:
            raise ValueError(f"its data is not a uint8 array of shape {shape}")  # noqa: TRY301
        if not all(type(label) is int for label in labels):
            raise ValueError("its labels are no numbers")  # noqa: TRY301
    except Exception as error:  # noqa: BLE001 - a damaged pickle can make the unpickler raise anything
        reason = str(error) if isinstance(error, (pickle.UnpicklingError, ValueError)) else repr(error)
        message = f"{printable(origin)} is no batch of {edition.name} ({reason}); download {edition.tar} again"
        raise DamagedError(message) from None
    yield from zip(pixels, labels, strict=True)
