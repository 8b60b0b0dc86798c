"""Do the single steps of the work, each a `Step` of `machine.parallel_rate`, in buffers that are reused.

Steps on images never end by themselves, and count images. Random order, crops and flips are drawn beforehand.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import simplejpeg
from numpy.random import Generator
from numpy.typing import NDArray

from loaderbench.api import Crop, Work, random_crop
from loaderbench.images import CanonicalImages
from loaderbench.machine import page_cache
from loaderbench.machine.parallel_rate import StepError

Pixels = NDArray[np.uint8]
Content = TypeVar("Content", bytes, NDArray[np.uint8])
Image = TypeVar("Image")

ORIGINALS = 512
"""Maximum number of the user's own files, which are read into memory."""
POOL_BYTES = 512 << 20
"""Further samples are skipped when those taken exceed this size."""
BATCH_BYTES = 32 << 20
"""Maximum memory of a process's batch, however many images the work's batches have."""
PART_BYTES = 8 << 20
"""Files are read in parts of this size."""
JPEG_START = b"\xff\xd8"
START_OF_SCAN = 0xDA


@dataclass(frozen=True)
class Encoded:
    """An image file in memory."""

    content: bytes | Pixels
    height: int
    width: int
    turbo: bool
    """Whether libjpeg-turbo decodes it; otherwise OpenCV does."""

    def decode(self, buffer: Pixels) -> Pixels:
        """Return the pixels: RGB, H x W x 3. libjpeg-turbo writes them into `buffer`, which must be large enough.

        It uses its fastest methods, because a loader may: fast DCT and plain upsampling of colour.
        """
        pixels: Pixels
        if self.turbo:
            fastest = {"fastdct": True, "fastupsample": True}
            pixels = simplejpeg.decode_jpeg(self.content, "RGB", buffer=buffer, strict=False, **fastest)
        else:
            pixels = _decode_any(self.content)
        return pixels

    def down_to(self, row: int) -> Encoded:
        """Return the image without about the part of its file that is below a row, if libjpeg-turbo decodes it."""
        if not self.turbo:
            return self
        start = _scan_start(self.content)
        return replace(self, content=self.content[: start + (len(self.content) - start) * row // self.height])

    def read(self, buffer: Pixels) -> Pixels:
        """Read all compressed data, and return the least that can be made of it: one pixel for each block of a JPEG."""
        if not self.turbo:
            return self.decode(buffer)
        eighth = {"min_height": 1, "min_width": 1, "min_factor": 8, "fastdct": True, "fastupsample": True}
        pixels: Pixels = simplejpeg.decode_jpeg(self.content, "RGB", buffer=buffer, strict=False, **eighth)
        return pixels


def _scan_start(content: bytes | Pixels) -> int:
    """Return where the compressed data of a JPEG starts, after its headers; its length if that is not found."""
    at = len(JPEG_START)
    while at + 4 <= len(content) and content[at + 1] != START_OF_SCAN:
        at += 2 + int.from_bytes(bytes(content[at + 2 : at + 4]), "big")
    return min(at, len(content))


def encoded(content: bytes | Pixels) -> Encoded | None:
    """Return an image file with its size and decoder; None if neither decoder can decode it."""
    if bytes(content[:2]) == JPEG_START:
        with suppress(ValueError):  # libjpeg-turbo does not support this kind of JPEG
            height, width, colours, _ = simplejpeg.decode_jpeg_header(content, strict=False)
            if colours not in {"CMYK", "YCCK"}:
                return Encoded(content, height, width, turbo=True)
    if (pixels := _decode_any(content)) is None:
        return None
    height, width, _ = pixels.shape
    return Encoded(content, height, width, turbo=False)


def _decode_any(content: bytes | Pixels) -> Any:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)


def raw(source: CanonicalImages, drawn: Sequence[int]) -> list[Pixels]:
    """Return the canonical pixels of samples, memory-mapped: RGB, H x W x 3."""
    return list(_fitting(source.mapped("pixels", index) for index in drawn))


def jpeg(source: CanonicalImages, drawn: Sequence[int]) -> list[Encoded]:
    """Return the canonical JPEG bytes of samples, memory-mapped."""
    contents = list(_fitting(source.mapped("jpeg", index) for index in drawn))
    _make_resident(contents)
    return _encoded(contents)


def original(source: CanonicalImages, drawn: Sequence[int]) -> list[Encoded]:
    """Return the user's own files of samples, read into memory. Raises StepError if none can be decoded."""
    return _encoded(_fitting(source.original(index).read_bytes() for index in drawn[:ORIGINALS]))


def _encoded(contents: Iterable[bytes | Pixels]) -> list[Encoded]:
    if images := [image for content in contents if (image := encoded(content))]:
        return images
    raise StepError("none of the files drawn can be decoded by libjpeg-turbo or OpenCV")


def _fitting(contents: Iterable[Content]) -> Iterator[Content]:
    """Yield contents until they exceed `POOL_BYTES`."""
    left_bytes = POOL_BYTES
    for content in contents:
        yield content
        left_bytes -= content.nbytes if isinstance(content, np.ndarray) else len(content)
        if left_bytes <= 0:
            return


class Batch:
    """A batch of the work's images that is filled repeatedly."""

    def __init__(self, work: Work, dtype: str = "uint8") -> None:
        shape = (work.image_size, work.image_size, 3)
        count = max(1, min(work.batch_size, BATCH_BYTES // (math.prod(shape) * np.dtype(dtype).itemsize)))
        self.images = np.full((count, *shape), 0, dtype)  # written to, so that its memory is resident
        self._places = cycle(self.images)
        self._size = shape[:2]
        self._resized = np.full(shape, 0, np.uint8)

    def put(self, pixels: Pixels, crop: Crop) -> Pixels:
        """Resize a crop of the pixels (H x W x 3) into the next place, and return that: image_size x image_size x 3."""
        place = next(self._places)
        part = pixels[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
        cv2.resize(part, self._size, self._resized if crop.flipped else place, interpolation=cv2.INTER_AREA)
        if crop.flipped:
            cv2.flip(self._resized, 1, place)
        return place


def gather(images: Sequence[Pixels], work: Work, number: int) -> Iterator[int]:
    """Copy raw records in random order from memory-mapped, resident memory into a buffer."""
    records = [image.reshape(-1) for image in _shuffled(images, _random(work, number))]
    _make_resident(records)
    buffer = np.empty(max(record.size for record in records), np.uint8)
    return _repeat([(buffer[: record.size], record) for record in records], np.copyto)


def crop(images: Sequence[Pixels], work: Work, number: int) -> Iterator[int]:
    """Crop pixels in resident memory, in random order, into a batch."""
    random = _random(work, number)
    jobs = [(image, random_crop(image.shape[:2], random.random)) for image in _shuffled(images, random)]
    _make_resident(image.reshape(-1) for image, _ in jobs)
    return _repeat(jobs, Batch(work).put)


def decode(images: Sequence[Encoded], work: Work, number: int) -> Iterator[int]:
    """Decode image files in memory, in random order, into a buffer."""
    buffer = _decoding_buffer(images)
    return _repeat([(image, buffer) for image in _shuffled(images, _random(work, number))], Encoded.decode)


def decode_crop(images: Sequence[Encoded], work: Work, number: int) -> Iterator[int]:
    """Decode image files in memory, in random order, and crop them into a batch."""
    random, buffer, batch = _random(work, number), _decoding_buffer(images), Batch(work)
    jobs = [(image, random_crop((image.height, image.width), random.random)) for image in _shuffled(images, random)]
    return _repeat(jobs, lambda image, crop: batch.put(image.decode(buffer), crop))


def region_decode_crop(images: Sequence[Encoded], work: Work, number: int) -> Iterator[int]:
    """Do the least that a loader does which decodes only the cropped region of each image, in random order.

    It must read the compressed data down to the region's last row, which decoding to an eighth of the size does and
    hardly more, and resize the region, here of a buffer.
    """
    random, buffer, batch = _random(work, number), _decoding_buffer(images), Batch(work)
    pixels = np.full((max(image.height for image in images), max(image.width for image in images), 3), 1, np.uint8)
    jobs = []
    for image in _shuffled(images, random):
        crop = random_crop((image.height, image.width), random.random)
        jobs.append((image.down_to(crop.top + crop.height), crop))

    def do(image: Encoded, crop: Crop) -> None:
        image.read(buffer)
        batch.put(pixels, crop)

    return _repeat(jobs, do)


def output(work: Work, _number: int) -> Iterator[int]:
    """Copy an image into one place of a batch after the other. float16 replaces bfloat16, which NumPy lacks."""
    batch = Batch(work, "float16" if work.dtype == "bfloat16" else work.dtype)
    image = np.full_like(batch.images[0], 0)
    return _repeat([(place, image) for place in batch.images], np.copyto)


@dataclass(frozen=True)
class Part:
    """A part of a file that is read at once."""

    path: Path
    offset_bytes: int
    size_bytes: int


def parts(folder: Path) -> list[Part]:
    """Return all files below a folder in parts, symbolic links to files followed, in order."""
    return [
        Part(path, offset, min(PART_BYTES, size - offset))
        for path in page_cache.files(folder)
        for size in [path.stat().st_size]
        for offset in range(0, size, PART_BYTES)
    ]


def read(everything: Sequence[Part], processes: int, number: int) -> Iterator[int]:
    """Read one process's share of the parts once, one after the other, and count bytes."""
    first, end = (len(everything) * edge // processes for edge in (number, number + 1))
    buffer = memoryview(bytearray(PART_BYTES))
    for part in everything[first:end]:
        with part.path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            file.seek(part.offset_bytes)
            yield file.readinto(buffer[: part.size_bytes])


def _repeat(jobs: Sequence[tuple[Any, Any]], do: Callable[[Any, Any], object]) -> Iterator[int]:
    for first, second in cycle(jobs):
        do(first, second)
        yield 1


def _random(work: Work, number: int) -> Generator:
    return np.random.default_rng((work.seed, number))


def _shuffled(images: Sequence[Image], random: Generator) -> list[Image]:
    return [images[index] for index in random.permutation(len(images))]


def _make_resident(records: Iterable[Pixels]) -> None:
    """Read one byte of each page of flat records, so that it is in memory and in this process's page table."""
    for record in records:
        record[:: mmap.PAGESIZE].max()


def _decoding_buffer(images: Sequence[Encoded]) -> Pixels:
    return np.empty(max(image.height * image.width for image in images) * 3, np.uint8)
