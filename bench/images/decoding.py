"""Decode an image file into upright RGB pixels."""

import logging
import os
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM", "GIF", "JPEG2000", "AVIF")
"""Formats that are decoded, whatever the file's name. Pillow's others are refused: some run programs."""
# Without a handler of its own, Pillow's log would reach the terminal.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class Unreadable(Exception):  # noqa: N818, it names a property of the image
    """An image that cannot be decoded. The message is the reason, in one line and without the path."""


def decode(path: Path) -> NDArray[np.uint8]:
    """Return the first frame of an image file, upright: RGB, H x W x 3.

    Raises Unreadable.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image:
            image.load()
            _turn_upright(image)
            return np.asarray(_rgb(image))
    except Exception as error:  # noqa: BLE001, a damaged file can make a decoder raise anything
        raise Unreadable(_reason(error)) from None


def _turn_upright(image: Image.Image) -> None:
    """Apply the EXIF orientation. Damaged metadata do not make the pixels unreadable."""
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001, S110, damaged metadata can make Pillow raise anything
        pass


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in {"PNG", "PPM"}):
        # 16 bits per pixel, which Pillow's conversion would clip at 255.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image that can be decoded"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return " ".join(str(error).split()) or type(error).__name__
