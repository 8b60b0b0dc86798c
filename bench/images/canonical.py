"""How does an image become what every format stores? Once, into canonical pixels and JPEG bytes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
import PIL
from PIL import features

from loaderbench.images.canonical_store import LAYOUT, ROW, CanonicalManifest
from loaderbench.images.pixel_journal import Filling, forget
from loaderbench.images.tree import Rejected, SourceError, Unreadable, decode
from loaderbench.machine.files import full_disk_explained
from loaderbench.machine.text import names, printable
from loaderbench.machine.workers import WorkerDiedError, map_processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from loaderbench.images.tree import ImageTree

    Convert = Callable[[Sequence[str]], Iterator[Any]]

LONGEST_JPEG_SIDE = 65_500
PILOT = 32  # images decoded to foresee the size of the store


@dataclass(frozen=True)
class CanonicalSettings:
    """Which images of a tree, in which canonical form."""

    samples: int | None
    """How many to draw; None takes all."""
    seed: int
    """Of the draw."""
    max_side: int | None
    """Longest side in pixels; None keeps every size."""
    quality: int
    """Of the JPEG bytes, 1 to 100."""


@dataclass(frozen=True)
class _Image:
    height: int
    width: int
    pixels: bytes
    jpeg: bytes
    sha256: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    """Of pixels and JPEG bytes."""


def versions() -> dict[str, str | None]:
    """Return the versions that pixels and JPEG bytes depend on."""
    codecs = {name: features.version(name) for name in ("libjpeg_turbo", "webp", "libtiff", "avif")}
    return {"layout": str(LAYOUT), "cv2": cv2.__version__, "Pillow": PIL.__version__, **codecs}


def fingerprint(tree: ImageTree, settings: CanonicalSettings) -> str:
    """Return a key that changes with the tree's paths, sizes or times and with the settings, "-", and one that changes
    with the versions of what decodes and encodes.
    """
    skipped = [asdict(entry) for entry in tree.skipped]
    key = hashlib.sha256(json.dumps([str(tree.root), asdict(settings), skipped]).encode())
    key.update(os.fsencode("\0".join(tree.paths)))
    key.update(tree.sizes_bytes.tobytes())
    key.update(tree.mtimes_ns.tobytes())
    return f"{key.hexdigest()[:16]}-{hashlib.sha256(json.dumps(versions()).encode()).hexdigest()[:8]}"


def canonical(path: Path, max_side: int | None, quality: int) -> tuple[NDArray[np.uint8], bytes]:
    """Return the pixels (RGB, H x W x 3) and JPEG bytes that FFCV 1.0.2 would store of a file.

    The arithmetic is that of `resizer` and `encode_jpeg` in ffcv/fields/rgb_image.py. Raises
    Unreadable.
    """
    pixels = decode(path)
    height, width = pixels.shape[:2]
    if max_side is not None and (ratio := max_side / max(height, width)) < 1:
        size = int(ratio * width), int(ratio * height)
        if not min(size):
            raise Unreadable(f"{width} x {height} pixels are too narrow to shrink to {max_side}")
        pixels = cast("NDArray[np.uint8]", cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
    elif max(height, width) > LONGEST_JPEG_SIDE:
        raise Unreadable(f"{width} x {height} pixels exceed JPEG's {LONGEST_JPEG_SIDE} a side")
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return pixels, cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def build(  # noqa: PLR0913
    tree: ImageTree,
    folder: Path,
    settings: CanonicalSettings,
    *,
    strict: bool,
    on_progress: Callable[[int], None] | None = None,
    processes: int | None = None,
) -> None:
    """Fill `folder` with the canonical form of images drawn from the tree.

    It is empty, or holds what the same call has left when it was stopped or killed: then this one goes on from there.
    An image that cannot be decoded is replaced by the next one drawn; `strict` raises instead. `on_progress` gets the
    number of images stored so far. Raises SourceError; what is in `folder` then is the caller's to remove.
    """
    if strict and tree.skipped:
        raise SourceError(_refusal(tree.skipped))
    order = list(range(len(tree.paths)))
    random.Random(settings.seed).shuffle(order)
    wanted = min(settings.samples or len(order), len(order))
    with map_processes(partial(_convert, tree.root, settings), processes) as convert:
        pilot = _images(convert, tree, order[:PILOT])
        sizes_bytes = [len(i.pixels) + len(i.jpeg) for i in pilot if isinstance(i, _Image)]
        need_bytes = wanted * (sum(sizes_bytes) / max(len(sizes_bytes), 1) + ROW.itemsize)
        free_bytes = shutil.disk_usage(folder).free + sum(path.stat().st_size for path in folder.iterdir())
        if need_bytes > free_bytes:
            free = f"where {free_bytes / 2**30:.3g} GiB is free"
            raise SourceError(_no_space(folder, need_bytes, free))
        with full_disk_explained(partial(_filled_up, folder, need_bytes)):
            with Filling(folder) as filling:
                rows, failed = _store(convert, tree, order, wanted, filling, strict, on_progress)
            if not len(rows):
                where = printable(tree.root)
                raise SourceError(f"none of {len(failed)} images in {where} can be read:\n{_lines(failed)}")
            _describe(folder, tree, rows, failed, settings)
            forget(folder)


def _store(  # noqa: PLR0913, PLR0917
    convert: Convert,
    tree: ImageTree,
    order: Sequence[int],
    wanted: int,
    filling: Filling,
    strict: bool,  # noqa: FBT001
    on_progress: Callable[[int], None] | None,
) -> tuple[NDArray[np.void], list[Rejected]]:
    """Write the first `wanted` readable images of `order`; return their rows and what failed."""
    rows = np.zeros(wanted, ROW)
    stored = tried = 0
    while stored < wanted and tried < len(order):
        # Sorted, so that reading the samples in order later reads the disk in order.
        batch = sorted(order[tried : tried + wanted - stored])
        before = filling.tried[tried : tried + len(batch)]
        tried += len(batch)
        kept = before[before["label"] >= 0]
        rows[stored : stored + len(kept)] = kept
        stored += len(kept)
        left = batch[len(before) :]
        for index, image in zip(left, _images(convert, tree, left), strict=True):
            if isinstance(image, Unreadable):
                filling.fail(Rejected(tree.paths[index], str(image)))
                continue
            at = (index, *filling.ends, len(image.jpeg))
            rows[stored] = (*at, image.height, image.width, tree.labels[index], *image.sha256)
            filling.add(rows[stored], image.pixels, image.jpeg)
            stored += 1
            if on_progress:
                on_progress(stored)
        if strict and filling.failed:
            raise SourceError(_refusal(filling.failed))
    return rows[np.argsort(rows["tree_index"][:stored])], filling.failed


def _describe(
    folder: Path, tree: ImageTree, rows: NDArray[np.void], failed: list[Rejected], settings: CanonicalSettings
) -> None:
    """Write what makes the images a store; the manifest comes last."""
    kept, rows["label"] = np.unique(rows["label"], return_inverse=True)
    classes = tuple(tree.classes[label] for label in kept)
    notes = list(tree.notes)
    if settings.samples and len(rows) < settings.samples:
        notes.append(f"{settings.samples} images were asked for; the folder has {len(rows)}.")
    if dropped := sorted(set(tree.classes) - set(classes)):
        notes.append(f"{len(dropped)} classes have no image among the samples: {names(dropped)}.")
    rejected = [*tree.skipped, *failed]
    columns = ("pixels_sha256", "jpeg_sha256", "label")
    manifest = CanonicalManifest(
        root=str(tree.root),
        classes=classes,
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
    _write(folder / "index.bin", rows.tobytes())
    _write(folder / "sources.bin", b"".join(paths))
    _write(folder / "rejected.json", json.dumps([asdict(entry) for entry in rejected]).encode())
    _write(folder / "manifest.json", json.dumps(asdict(manifest), indent=1).encode())


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file)


def _refusal(rejected: Sequence[Rejected]) -> str:
    return (
        f"{len(rejected)} images cannot be read:\n{_lines(rejected)}\n"
        "Mend or remove them, or leave out --strict to go on without them."
    )


def _lines(rejected: Sequence[Rejected]) -> str:
    more = [f"  and {len(rejected) - 10} more"] if len(rejected) > 10 else []  # noqa: PLR2004
    return "\n".join([f"  {entry}" for entry in rejected[:10]] + more)


def _no_space(folder: Path, need_bytes: float, free: str) -> str:
    return (
        f"the canonical images need about {need_bytes / 2**30:.3g} GiB in {printable(folder)}, "
        f"{free}: use --samples N for fewer or --cache DIR for another disk"
    )


def _filled_up(folder: Path, need_bytes: float, why: str) -> SourceError:
    return SourceError(_no_space(folder, need_bytes, f"which filled up ({why}); nothing half-made is kept"))


def _images(convert: Convert, tree: ImageTree, batch: Sequence[int]) -> Iterator[_Image | Unreadable]:
    """Yield the canonical form of each image of the batch, in order."""
    try:
        yield from convert([tree.paths[index] for index in batch])
    except WorkerDiedError as error:
        raise SourceError(
            f"a decoding process died at or soon after {printable(tree.root / str(error.item))}; if memory was short, "
            "run again, otherwise move that image away"
        ) from None


def _convert(root: Path, settings: CanonicalSettings, path: str) -> _Image | Unreadable:
    """Return the canonical form of one image of the tree, or why there is none."""
    try:
        pixels, jpeg = canonical(root / path, settings.max_side, settings.quality)
    except Unreadable as error:
        return error
    height, width = pixels.shape[:2]
    content = pixels.tobytes()
    return _Image(height, width, content, jpeg, (_sha256(content), _sha256(jpeg)))


def _sha256(content: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
