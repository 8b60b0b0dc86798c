"""What a format of each encoding mode stores of an image, in the words of a record."""

import re

from loaderbench.api import Encoding, Mode
from loaderbench.images.canonical_store import CanonicalManifest

ORIGINALS, PIXELS, JPEG = "original files", "canonical pixels", "canonical JPEG bytes"
MODES: dict[Mode, tuple[str, ...]] = {
    "original": (ORIGINALS,),
    "raw": (PIXELS,),
    "jpeg": (JPEG,),
    "jpeg-reencoded": (JPEG,),
    "proportion": (PIXELS, JPEG),
    "smart": (PIXELS, JPEG),
}
"""What a format of this mode should store of an image. If there are alternatives, the largest comes first."""
_SHARE = re.compile(r" \(\d+ %\)(?: and )?")


def bytes_per_image(mode: Mode, images: CanonicalManifest) -> float:
    """Return the mean bytes of an image in a format of this mode, in the largest form that the mode allows."""
    means = {ORIGINALS: 0.0, PIXELS: images.pixels_bytes_mean, JPEG: images.jpeg_bytes_mean}  # originals are links
    return means[MODES[mode][0]]


def jpeg_of(quality: int | str) -> str:
    """Describe JPEG bytes that are not the canonical ones."""
    return f"JPEG of quality about {quality}"


def deviation(encoding: Encoding, stored: str) -> str:
    """Return how the column `stored` of a record differs from what the encoding requests, or an empty string."""
    requested = MODES[encoding.mode]
    for part in filter(None, _SHARE.split(stored)):
        codec = part.partition(",")[0]
        if part in requested:
            continue
        if JPEG in requested and codec.startswith("JPEG") and codec != jpeg_of(encoding.quality):
            return f"stores {codec} where {encoding.quality} was requested"
        return f"stores {part} where {' or '.join(requested)} were requested"
    return ""
