"""Convert one image file into its canonical form: the pixels and JPEG bytes that every format stores."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import features

from loaderbench.images.canonical_store import LAYOUT
from loaderbench.images.decoding import Unreadable, decode
from loaderbench.images.tree import ImageTree

LONGEST_JPEG_SIDE = 65_500
"""Longest side of a JPEG that OpenCV writes, pixels."""


@dataclass(frozen=True)
class CanonicalSettings:
    """Which images of a tree, in which canonical form."""

    samples: int | None
    """How many images to draw; None takes all."""
    seed: int
    """Seed of the draw."""
    max_side: int | None
    """Longest side in pixels; None keeps every size."""
    quality: int
    """Quality of the JPEG bytes, 1 to 100."""

    def count(self, tree: ImageTree) -> int:
        """Return how many images are drawn from a tree, if all can be decoded."""
        return min(self.samples or len(tree.paths), len(tree.paths))


def versions() -> dict[str, str | None]:
    """Return the versions of all that pixels and JPEG bytes depend on."""
    codecs = {name: features.version(name) for name in ("libjpeg_turbo", "webp", "libtiff", "avif")}
    return {"layout": str(LAYOUT), "cv2": cv2.__version__, "Pillow": PIL.__version__, **codecs}


def canonical_form(path: Path, max_side: int | None, quality: int) -> tuple[NDArray[np.uint8], bytes, str]:
    """Return the pixels (RGB, H x W x 3) and JPEG bytes that FFCV 1.0.2 would store of a file, and the file's kind.

    The arithmetic is that of `resizer` and `encode_jpeg` in ffcv/fields/rgb_image.py. Raises Unreadable.
    """
    pixels, kind = decode(path)
    height, width = pixels.shape[:2]
    if max_side is not None and (ratio := max_side / max(height, width)) < 1:
        size = int(ratio * width), int(ratio * height)
        if not min(size):
            raise Unreadable(f"{width} x {height} pixels are too narrow to shrink to {max_side}")
        pixels = cast("NDArray[np.uint8]", cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
    elif max(height, width) > LONGEST_JPEG_SIDE:
        raise Unreadable(f"{width} x {height} pixels exceed JPEG's {LONGEST_JPEG_SIDE} a side")
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return pixels, cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes(), kind
