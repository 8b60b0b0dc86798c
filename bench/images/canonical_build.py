"""Convert the images of a tree into canonical images, on all cores, and keep them in the cache."""

import hashlib
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loaderbench.images.canonical_form import CanonicalSettings, canonical_form, versions
from loaderbench.images.canonical_store import ROW, CanonicalImages, CanonicalManifest
from loaderbench.images.decoding import KINDS, Unreadable
from loaderbench.images.journal import PixelJournal
from loaderbench.images.tree import ImageTree, Rejected, SourceError
from loaderbench.machine.disk import FEWER_IMAGES, full_disk_explained, need
from loaderbench.machine.files import building, size_bytes
from loaderbench.machine.progress import Display
from loaderbench.machine.text import names, printable
from loaderbench.machine.workers import Mapping, map_processes

_PILOT = 32
"""Images that are decoded first, to estimate the size of all."""
_WHAT = "the canonical images"
_LIMIT_S = 60
"""CPU time in which an image must be decoded and encoded again. The largest that Pillow reads takes about 10 s."""
_NAMED_IMAGES = 10
_OF_TORCHVISION = {"JPEG", "PNG", "GIF", "WEBP"}
"""Kinds of files that torchvision.io decodes."""


@dataclass(frozen=True)
class _Converted:
    """The canonical form of one image, as a worker process returns it."""

    height: int
    width: int
    pixels: bytes
    jpeg: bytes
    kind: int
    """Of the file: an index into `KINDS`."""
    sha256: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    """Of the pixels and of the JPEG bytes."""


def canonical(
    tree: ImageTree, settings: CanonicalSettings, cache: Path, display: Display, *, strict: bool
) -> CanonicalImages:
    """Return the canonical images of a tree, and make them if the cache lacks them. Raises as `build` does."""
    folder = canonical_folder(tree, settings, cache)
    if not folder.exists():
        stage = display.stage("decoding once for all formats", settings.count(tree))
        with building(folder, goes_on=True) as partial_, stage as on_progress:
            build(tree, partial_, settings, strict=strict, on_progress=on_progress)
    return CanonicalImages(folder)


def canonical_folder(tree: ImageTree, settings: CanonicalSettings, cache: Path) -> Path:
    """Return where the cache keeps the canonical images of a tree.

    The name is "key-code". The key changes with the settings and the state of the tree; the code with the libraries.
    """
    parts = json.dumps([tree.state, asdict(settings)]), json.dumps(versions())
    key, code = (hashlib.sha256(part.encode()).hexdigest() for part in parts)
    return cache / "canonical" / f"{key[:16]}-{code[:8]}"


def build(
    tree: ImageTree, folder: Path, settings: CanonicalSettings, *, strict: bool, on_progress: Callable[[int], None]
) -> None:
    """Fill `folder` with the canonical form of images drawn from the tree.

    `folder` is empty, or holds what the same call left when it was stopped or killed: then this call resumes there. An
    image that cannot be decoded, takes more than 60 s of CPU time, or ends its process is replaced by the next one
    drawn; `strict` raises instead. `on_progress` gets the number of images stored so far. Raises SourceError or
    DiskSpaceError; the caller removes what is in `folder` then.
    """
    if strict and tree.skipped:
        raise SourceError(_refusal(tree.skipped))
    order = list(range(len(tree.paths)))
    random.Random(settings.seed).shuffle(order)
    rows = np.zeros(settings.count(tree), ROW)
    if strict:
        order = order[: len(rows)]
    with (
        full_disk_explained(folder, _WHAT, FEWER_IMAGES),
        map_processes(partial(_convert, tree.root, settings), limit_s=_LIMIT_S, instead=Unreadable) as convert,
    ):
        _check_space(folder, len(rows), _images(convert, tree, order[:_PILOT]))
        with PixelJournal(folder) as journal:
            for stored in _store(partial(_images, convert, tree), tree, order, rows, journal):
                on_progress(stored)
        rows = rows[rows["jpeg_bytes"] > 0]
        rows = rows[np.argsort(rows["tree_index"])]
        if strict and journal.rejected:
            raise SourceError(_refusal(journal.rejected))
        if not len(rows):
            where, failed = printable(tree.root), journal.rejected
            raise SourceError(f"none of {len(failed)} images in {where} can be read:\n{_lines(failed)}")
        _describe(folder, tree, rows, journal.rejected, settings)
        journal.remove()


def _check_space(folder: Path, images: int, pilot: Iterator[_Converted | Unreadable]) -> None:
    """Raise DiskSpaceError unless the images fit on the disk, judged by the mean size in the pilot."""
    sizes_bytes = [len(image.pixels) + len(image.jpeg) for image in pilot if isinstance(image, _Converted)]
    mean_bytes = sum(sizes_bytes) / max(len(sizes_bytes), 1) + ROW.itemsize
    need(images * mean_bytes - size_bytes(folder), folder, _WHAT, FEWER_IMAGES)


def _store(
    images: Callable[[Sequence[int]], Iterator[_Converted | Unreadable]],
    tree: ImageTree,
    order: Sequence[int],
    rows: NDArray[np.void],
    journal: PixelJournal,
) -> Iterator[int]:
    """Store readable images in `order` until `rows` is full or none is left; yield the number stored so far."""
    stored = tried = 0
    while stored < len(rows) and tried < len(order):
        # Sorted, so that reading the samples in order later reads the disk in order.
        batch = sorted(order[tried : tried + len(rows) - stored])
        earlier = journal.tried[tried : tried + len(batch)]
        tried += len(batch)
        kept = earlier[earlier["label"] >= 0]
        rows[stored : stored + len(kept)] = kept
        stored += len(kept)
        left = batch[len(earlier) :]
        for index, image in zip(left, images(left), strict=True):
            if isinstance(image, Unreadable):
                journal.reject(Rejected(tree.paths[index], str(image)))
                continue
            position = (index, *journal.ends, len(image.jpeg))
            rows[stored] = (*position, image.height, image.width, tree.labels[index], image.kind, *image.sha256)
            journal.add(rows[stored], image.pixels, image.jpeg)
            stored += 1
            yield stored


def _describe(
    folder: Path, tree: ImageTree, rows: NDArray[np.void], failed: list[Rejected], settings: CanonicalSettings
) -> None:
    """Write the index, the manifest and what was skipped."""
    notes, drawn = list(tree.notes), set(rows["label"].tolist())
    if settings.samples and len(rows) < settings.samples:
        notes.append(f"{settings.samples} images were requested; the folder has {len(rows)} readable ones.")
    if missed := [tree.classes[label] for label in sorted(set(tree.labels.tolist()) - drawn)]:
        notes.append(f"{len(missed)} classes have no image among the samples, and keep their labels: {names(missed)}.")
    counts = Counter(KINDS[kind] for kind in rows["kind"])
    if others := {kind: count for kind, count in counts.items() if kind not in _OF_TORCHVISION}:
        told = ", ".join(f"{kind} {count}" for kind, count in sorted(others.items()))
        notes.append(
            f"{sum(others.values())} of {len(rows)} files are of kinds that torchvision.io cannot decode ({told}); "
            "a loader that reads the files with it decodes these with PIL."
        )
    rejected = [*tree.skipped, *failed]
    columns = ("pixels_sha256", "jpeg_sha256", "label")
    manifest = CanonicalManifest(
        root=str(tree.root),
        classes=tree.classes,
        found=len(tree.paths),
        drawn=len(rows) + len(failed),
        samples=len(rows),
        rejected=len(rejected),
        digest=hashlib.sha256(b"".join(rows[column].tobytes() for column in columns)).hexdigest(),
        pixels_bytes_mean=float(np.mean(rows["height"] * rows["width"] * 3)),
        jpeg_bytes_mean=float(np.mean(rows["jpeg_bytes"])),
        versions=versions(),
        notes=tuple(notes),
    )
    paths = [os.fsencode(tree.paths[index]) + b"\0" for index in rows["tree_index"]]
    (folder / "index.bin").write_bytes(rows.tobytes())
    (folder / "sources.bin").write_bytes(b"".join(paths))
    (folder / "rejected.json").write_text(json.dumps([asdict(entry) for entry in rejected]))
    (folder / "manifest.json").write_text(json.dumps(asdict(manifest), indent=1))


def _refusal(rejected: Sequence[Rejected]) -> str:
    return (
        f"{len(rejected)} images cannot be read:\n{_lines(rejected)}\n"
        "Repair or remove them, or omit --strict to continue without them."
    )


def _lines(rejected: Sequence[Rejected]) -> str:
    left = len(rejected) - _NAMED_IMAGES
    more = [f"  and {left} more"] if left > 0 else []
    return "\n".join([f"  {entry}" for entry in rejected[:_NAMED_IMAGES]] + more)


def _images(convert: Mapping, tree: ImageTree, batch: Sequence[int]) -> Iterator[_Converted | Unreadable]:
    """Yield the canonical form of each image of the batch, in order, or why there is none."""
    yield from convert([tree.paths[index] for index in batch])


def _convert(root: Path, settings: CanonicalSettings, path: str) -> _Converted | Unreadable:
    """Return the canonical form of one image of the tree, or why there is none."""
    try:
        pixels, jpeg, kind = canonical_form(root / path, settings.max_side, settings.quality)
    except Unreadable as error:
        return error
    height, width = pixels.shape[:2]
    content = pixels.tobytes()
    return _Converted(height, width, content, jpeg, KINDS.index(kind), (_sha256(content), _sha256(jpeg)))


def _sha256(content: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
