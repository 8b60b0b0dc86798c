"""Decode an image file into upright RGB pixels."""

import fcntl
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from loaderbench.machine.cgroup import memory_limit_bytes
from loaderbench.machine.cores import core_count

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM", "GIF", "JPEG2000", "AVIF")
"""Formats that are decoded, whatever the file's name. Pillow's others are refused: some run programs."""
_WITHOUT_RANGE = {"F": "floats", "I": "32-bit integers"}
"""What the pixels of these modes are. Pillow's conversion clips them to 0 to 255, mostly all black or all white."""
_NO_IMAGES = {
    rb"version https://git-lfs": "a pointer of Git LFS instead of the image; fetch that: git lfs pull",
    rb"<!doctype|<html|<\?xml": "a web page or other text instead of the image; download it again",
    rb"(ii\*\0|mm\0\*)": "a TIFF that Pillow cannot decode, such as one of many bands; convert it to 8-bit RGB",
    rb"....ftyp(heic|heix|mif1|msf1)": "a HEIC image; convert it to JPEG or PNG",
    rb"\xff\x0a|\0\0\0\x0cjxl ": "a JPEG XL image; convert it to JPEG or PNG",
}
"""What a file is that starts so, in lower case, and what to do."""
KINDS = (*FORMATS, "animated GIF", "animated WEBP")
"""What an image file can be."""
_BYTES_PER_PIXEL = 16
"""Memory that decoding, turning, converting and encoding take at most."""
# Sound files hold larger profiles and texts than 1 MiB, which is Pillow's limit for one of them.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
# Without a handler of its own, Pillow's log would reach the terminal.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class Unreadable(Exception):  # noqa: N818, it names a property of the image
    """An image that cannot be decoded. The message is the reason, in one line and without the path."""


def decode(path: Path) -> tuple[NDArray[np.uint8], str]:
    """Return the first frame of an image file, upright: RGB, H x W x 3; and which of `KINDS` the file is.

    Raises Unreadable.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image, _room(image):
            image.load()
            kind = str(image.format).replace("MPO", "JPEG")  # several JPEGs in one file, as some cameras write
            if f"animated {kind}" in KINDS and getattr(image, "is_animated", False):
                kind = f"animated {kind}"
            _turn_upright(image)
            return np.asarray(rgb(image)), kind
    except Exception as error:  # noqa: BLE001, a damaged file can make a decoder raise anything
        raise Unreadable(_reason(error, path)) from None


@contextmanager
def _room(image: Image.Image) -> Iterator[None]:
    """Hold a lock while an image is decoded for which each process's share of the memory is too small.

    So half of the memory is enough for all processes. Raises Unreadable if it is too small for this image alone.
    """
    need_bytes, half_bytes = image.width * image.height * _BYTES_PER_PIXEL, _memory_bytes() // 2
    if need_bytes > half_bytes:
        needs = f"{image.width} x {image.height} pixels need about {need_bytes / 2**30:.1f} GiB of memory"
        raise Unreadable(f"{needs}, more than half of what there is")
    if need_bytes <= half_bytes // core_count():
        yield
        return
    with Path(__file__).open("rb") as lock:
        with suppress(OSError):  # some file systems have no locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@cache
def _memory_bytes() -> int:
    return memory_limit_bytes() or psutil.virtual_memory().total


def _turn_upright(image: Image.Image) -> None:
    """Apply the EXIF orientation. Damaged metadata do not make the pixels unreadable."""
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001, S110, damaged metadata can make Pillow raise anything
        pass


def rgb(image: Image.Image) -> Image.Image:
    """Return an image in 8 bits a channel. Raises Unreadable where the range of its values is unknown, or is lost."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in {"PNG", "PPM"}):
        values = np.asarray(image)  # Pillow's conversion would clip them at 255
        high = (values >> 8).astype(np.uint8)
        if _is_flat(high) and not _is_flat(values):
            span = f"{values.min()} to {values.max()}"
            raise Unreadable(f"its 16-bit values, {span}, are one value in 8 bits; convert it to 8 bits")
        return Image.fromarray(high).convert("RGB")
    if image.mode in _WITHOUT_RANGE:
        raise Unreadable(f"its pixels are {_WITHOUT_RANGE[image.mode]} of unknown range; convert it to 8 bits")
    return image if image.mode == "RGB" else image.convert("RGB")


def _is_flat(values: NDArray[Any]) -> bool:
    return bool(values.min() == values.max())


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, UnidentifiedImageError):
        return _unidentified(path)
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return " ".join(str(error).split()) or type(error).__name__


def _unidentified(path: Path) -> str:
    """Return what a file is that is no image of `FORMATS`, and what to do."""
    with path.open("rb") as file:
        start = file.read(512).lstrip().lower()
    for pattern, reason in _NO_IMAGES.items():
        if re.match(pattern, start, re.DOTALL):
            return reason
    return "not an image that can be decoded"
