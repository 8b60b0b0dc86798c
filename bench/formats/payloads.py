"""What does a format store of each image? Its payloads against the canonical pixels and JPEG bytes, in words."""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections import Counter
from functools import cache
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from loaderbench.images.tree import FORMATS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from loaderbench.api import Encoding, Mode
    from loaderbench.images.canonical_store import CanonicalImages

ORIGINALS, PIXELS, JPEG = "original files", "canonical pixels", "canonical JPEG bytes"
MEASURED = 64
"""At most so many images that are stored otherwise are measured, spread over the set."""
_ASKED: dict[Mode, tuple[str, ...]] = {
    "original": (ORIGINALS,),
    "raw": (PIXELS,),
    "jpeg": (JPEG,),
    "jpeg-reencoded": (JPEG,),
    "proportion": (PIXELS, JPEG),
    "smart": (PIXELS, JPEG),
}
_SHARE = re.compile(r" \(\d+ %\)(?: and )?")
_SUBSAMPLING = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}  # as `get_sampling` counts them


class StoredError(Exception):
    """What is stored is not one readable image for each of the source's. The message is the reason."""


def read_back(payloads: Callable[[], Iterable[bytes]], source: CanonicalImages) -> dict[str, Any]:
    """Return what is stored, as the columns of a record that tell of it.

    `payloads`: yields what is stored of each image, in the source's order, whenever it is called; see
    `loaderbench.api.Writer.payloads`. All of them are compared by SHA-256, and those that differ are decoded. Raises
    StoredError.
    """
    canonical = list(zip(source.digests("pixels"), source.digests("jpeg"), strict=True))
    kinds: list[str] = []
    payload_bytes = 0
    for index, payload in enumerate(payloads()):
        if index == len(canonical):
            raise StoredError(f"more images are stored than there are, {len(canonical)}")
        digest, (pixels, jpeg) = hashlib.sha256(payload).digest(), canonical[index]
        payload_bytes += len(payload)
        kinds.append(PIXELS if digest == pixels else JPEG if digest == jpeg else _kind(_image(payload, index, source)))
    if len(kinds) < len(canonical):
        raise StoredError(f"{len(kinds)} images are stored instead of {len(canonical)}")
    counts = Counter(kinds)
    others = [index for index, kind in enumerate(kinds) if kind not in {PIXELS, JPEG}]
    measured = _measured(payloads(), others[:: math.ceil(len(others) / MEASURED)] if others else [], source)
    in_order = sorted(counts, key=lambda kind: (kind != PIXELS, kind != JPEG, kind))
    parts = (f"{measured.get(kind, kind)}{_share(counts[kind], len(kinds))}" for kind in in_order)
    return {
        "stored": " and ".join(parts),
        "stored_raw": counts[PIXELS],
        "stored_jpeg": counts[JPEG],
        "payload_bytes": payload_bytes,
    }


def unasked(encoding: Encoding, stored: str) -> str:
    """Return why what is stored, in the words of a record, is not what the encoding asks for; nothing if it is."""
    asked = _ASKED[encoding.mode]
    for part in filter(None, _SHARE.split(stored)):
        codec = part.partition(",")[0]
        if part in asked:
            continue
        if JPEG in asked and codec.startswith("JPEG") and codec != _jpeg_of(encoding.quality):
            return f"stores {codec} where {encoding.quality} was asked for"
        return f"stores {part} where {' or '.join(asked)} were asked for"
    return ""


def _jpeg_of(quality: int | str) -> str:
    return f"JPEG of quality about {quality}"


def _share(count: int, total: int) -> str:
    return "" if count == total else f" ({min(max(round(100 * count / total), 1), 99)} %)"


def _image(payload: bytes, index: int, source: CanonicalImages) -> Image.Image:
    """Decode what is stored of one image; bare pixels have no `format`. Raises StoredError."""
    canonical = source.mapped("pixels", index)
    height, width, _ = canonical.shape
    try:
        if len(payload) == canonical.size:
            return Image.frombytes("RGB", (width, height), payload)
        try:
            file = Image.open(io.BytesIO(payload), formats=FORMATS)
        except UnidentifiedImageError:
            return Image.frombytes("RGB", _size(len(payload), height, width), payload)
        file.load()
    except Exception as error:  # noqa: BLE001 - a damaged file can make a decoder raise anything
        raise StoredError(f"what is stored of image {index + 1} cannot be read: {error}") from None
    return file


def _size(payload_bytes: int, height: int, width: int) -> tuple[int, int]:
    """Return width and height of bare RGB pixels of so many bytes, in the proportions of the canonical ones.

    Raises ValueError if there is no such image.
    """
    pixels, rest = divmod(payload_bytes, 3)
    likely = round(math.sqrt(pixels * height / width))
    for h in (likely, likely - 1, likely + 1):
        if not rest and h > 0 and pixels % h == 0 and abs(pixels // h - h * width / height) <= 1 + width / height:
            return pixels // h, h
    raise ValueError("neither an image file nor the pixels of one")


def _kind(image: Image.Image) -> str:
    return image.format or "pixels"


def _measured(payloads: Iterable[bytes], chosen: Sequence[int], source: CanonicalImages) -> dict[str, str]:
    """Return a description of each kind of image among the chosen payloads."""
    wanted = set(chosen)
    by_kind: dict[str, list[tuple[int, int, Image.Image]]] = {}
    if not wanted:
        return {}
    for index, payload in enumerate(payloads):
        if index in wanted:
            image = _image(payload, index, source)
            by_kind.setdefault(_kind(image), []).append((index, len(payload), image))
    return {kind: _description(kind, images, source) for kind, images in by_kind.items()}


def _description(kind: str, images: Sequence[tuple[int, int, Image.Image]], source: CanonicalImages) -> str:
    """Describe images of one kind, each given with its index and its stored bytes."""
    jpegs = [image for _, _, image in images if isinstance(image, JpegImageFile)]
    canonical = [source.mapped("pixels", index) for index, _, _ in images]
    pairs = [(image, pixels) for (_, _, image), pixels in zip(images, canonical, strict=True)]
    mean_bytes = fmean(size for _, size, _ in images)
    instead = [pixels.size for pixels in canonical] if kind == "pixels" else [len(source.jpeg(i)) for i, _, _ in images]
    parts = [
        _jpeg_of(_span([_quality(image) for image in jpegs])) if jpegs else kind,
        *sorted({_SUBSAMPLING[found] for image in jpegs if (found := get_sampling(image)) in _SUBSAMPLING}),
        _resolution([math.sqrt(image.width * image.height * 3 / pixels.size) for image, pixels in pairs]),
        _distance(fmean(_squared_error(image, pixels) for image, pixels in pairs)),
        f"{mean_bytes:,.0f} bytes per image instead of {fmean(instead):,.0f}",
    ]
    return ", ".join(parts)


def _resolution(sides: Sequence[float]) -> str:
    """Say how long sides are, in those of the canonical pixels."""
    return "full resolution" if set(sides) == {1.0} else f"{100 * fmean(sides):.0f} % of the width and height"


def _distance(squared_error: float) -> str:
    """Say the peak signal-to-noise ratio (PSNR), in decibels."""
    if not squared_error:
        return "exactly the canonical pixels"
    return f"{10 * math.log10(255**2 / squared_error):.1f} dB from the canonical pixels"


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def _squared_error(image: Image.Image, canonical: NDArray[np.uint8]) -> float:
    """Return the mean squared difference from the canonical pixels, H x W x 3, at their resolution."""
    height, width, _ = canonical.shape
    rgb = image.convert("RGB")
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), Image.Resampling.BICUBIC)
    return float(np.mean((np.asarray(rgb, np.float64) - canonical) ** 2))


def _quality(image: JpegImageFile) -> int:
    """Return the quality, 1 to 100, for which libjpeg makes a table of luminance most like the image's.

    libjpeg scales the table in Annex K of the JPEG standard by 50 / quality below 50, by 2 - quality / 50 above.
    """
    table = np.array(image.quantization[min(image.quantization)])
    return min(range(1, 101), key=lambda quality: int(np.abs(_tables()[quality - 1] - table).sum()))


@cache
def _tables() -> list[NDArray[np.int64]]:
    """Return the tables of luminance of all qualities from 1, as libjpeg itself writes them."""
    tables = []
    for quality in range(1, 101):
        file = io.BytesIO()
        Image.new("L", (8, 8)).save(file, "JPEG", quality=quality)
        with Image.open(file) as image:
            assert isinstance(image, JpegImageFile)
            tables.append(np.array(image.quantization[0]))
    return tables
