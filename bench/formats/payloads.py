"""Compare what a format stores of each image with the canonical pixels and JPEG bytes, and describe deviations."""

import hashlib
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from loaderbench.formats.modes import JPEG, PIXELS, jpeg_of
from loaderbench.images.canonical_store import CanonicalImages
from loaderbench.images.decoding import FORMATS

MEASURED = 64
"""Maximum number of non-canonical images to measure, sampled evenly over the data set."""
_SUBSAMPLING = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
"""Chroma subsampling by the number that `get_sampling` returns."""


class StoredError(Exception):
    """A format that does not store one readable image for each source image. The message is the reason."""


def read_back(payloads: Callable[[], Iterable[bytes]], source: CanonicalImages) -> dict[str, Any]:
    """Return the columns of `Record` that describe what is stored.

    `payloads`: whenever it is called, yields what is stored of each image in the source's order; see
    `loaderbench.api.Writer.payloads`. All are compared by SHA-256, and those that differ are decoded. Raises
    StoredError.
    """
    canonical = list(zip(source.digests("pixels"), source.digests("jpeg"), strict=True))
    kinds: list[str] = []
    payload_bytes = 0
    for index, payload in enumerate(payloads()):
        if index == len(canonical):
            raise StoredError(f"more than {len(canonical)} images are stored")
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


def _share(count: int, total: int) -> str:
    return "" if count == total else f" ({min(max(round(100 * count / total), 1), 99)} %)"


def _image(payload: bytes, index: int, source: CanonicalImages) -> Image.Image:
    """Decode what is stored of one image. Bare pixels become an image without `format`. Raises StoredError."""
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
    """Return width and height of bare RGB pixels of this size, with the aspect ratio of the canonical image.

    Raises ValueError if there is no such image.
    """
    pixels, rest = divmod(payload_bytes, 3)
    likely = round(math.sqrt(pixels * height / width))
    for h in (likely, likely - 1, likely + 1):
        if not rest and h > 0 and pixels % h == 0 and abs(pixels // h - h * width / height) <= 1 + width / height:
            return pixels // h, h
    raise ValueError("neither an image file nor the pixels of an image")


def _kind(image: Image.Image) -> str:
    return image.format or "pixels"


def _measured(payloads: Iterable[bytes], chosen: Sequence[int], source: CanonicalImages) -> dict[str, str]:
    """Return a description of each kind of image among the chosen payloads."""
    wanted = set(chosen)
    by_kind: dict[str, list[tuple[int, int, Image.Image]]] = {}
    for index, payload in enumerate(payloads if wanted else ()):
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
    qualities = sorted({_quality(image) for image in jpegs})
    parts = [
        jpeg_of(" to ".join(map(str, dict.fromkeys(qualities[:1] + qualities[-1:])))) if jpegs else kind,
        *sorted({_SUBSAMPLING[found] for image in jpegs if (found := get_sampling(image)) in _SUBSAMPLING}),
        _resolution([math.sqrt(image.width * image.height * 3 / pixels.size) for image, pixels in pairs]),
        _distance(fmean(_squared_error(image, pixels) for image, pixels in pairs)),
        f"{mean_bytes:,.0f} bytes per image instead of {fmean(instead):,.0f}",
    ]
    return ", ".join(parts)


def _resolution(sides: Sequence[float]) -> str:
    """Describe the sides of images. They are given as multiples of the canonical images' sides."""
    return "full resolution" if set(sides) == {1.0} else f"{100 * fmean(sides):.0f} % of the width and height"


def _distance(squared_error: float) -> str:
    """Describe a mean squared difference as peak signal-to-noise ratio (PSNR), in decibels."""
    if not squared_error:
        return "exactly the canonical pixels"
    return f"{10 * math.log10(255**2 / squared_error):.1f} dB from the canonical pixels"


def _squared_error(image: Image.Image, canonical: NDArray[np.uint8]) -> float:
    """Return the mean squared difference from the canonical pixels, H x W x 3, at their resolution."""
    height, width, _ = canonical.shape
    rgb = image.convert("RGB")
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), Image.Resampling.BICUBIC)
    return float(np.mean((np.asarray(rgb, np.float64) - canonical) ** 2))


def _quality(image: JpegImageFile) -> int:
    """Return the quality, 1 to 100, whose luminance table from libjpeg is most like the image's."""
    table = np.array(image.quantization[min(image.quantization)])
    return min(range(1, 101), key=lambda quality: int(np.abs(_tables()[quality - 1] - table).sum()))


@cache
def _tables() -> list[NDArray[np.int64]]:
    """Return libjpeg's luminance tables for the qualities 1 to 100."""
    tables = []
    for quality in range(1, 101):
        file = io.BytesIO()
        Image.new("L", (8, 8)).save(file, "JPEG", quality=quality)
        with Image.open(file) as image:
            assert isinstance(image, JpegImageFile)
            tables.append(np.array(image.quantization[0]))
    return tables
