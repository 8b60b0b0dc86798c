"""Find out how delivered pixels were decoded and resized, by trying every usual way and taking the closest result."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from loaderbench.api import Mode
from loaderbench.certify.observation import Observation
from loaderbench.formats.modes import ORIGINALS, PIXELS
from loaderbench.images import CanonicalImages

Pixels = NDArray[np.uint8]

JPEG = "canonical JPEG"
"""Decoded."""
CROPS = 12
"""Maximum number of crops that are examined."""
LEAST_DB = 30.0
"""If even the closest way has a lower PSNR, none of the ways was taken. If the common way has, it is different work."""
EXACT_DB = 99.0
"""Stands for the PSNR of equal pixels, which is infinite."""
SURE_DB = 40.0
"""Below this the way that comes closest may be another one than the loader's."""
CLEAR_DB = 3.0
"""A way that was not requested must be closer by this: the place of a crop is exact to about a pixel only."""


def _resized(image: Pixels, width: int, height: int, interpolation: int) -> Pixels:
    """Resize by OpenCV, with a precise type."""
    return np.asarray(cv2.resize(image, (width, height), interpolation=interpolation), np.uint8)


def _cv2(interpolation: int) -> Callable[[Pixels, int], Pixels]:
    return lambda part, side: _resized(part, side, side, interpolation)


def _pil(filter_: Image.Resampling) -> Callable[[Pixels, int], Pixels]:
    return lambda part, side: np.asarray(Image.fromarray(part).resize((side, side), filter_))


FILTERS: dict[str, Callable[[Pixels, int], Pixels]] = {
    "bilinear, antialiased": _pil(Image.Resampling.BILINEAR),
    "area": _cv2(cv2.INTER_AREA),
    "bilinear": _cv2(cv2.INTER_LINEAR),
    "nearest": _cv2(cv2.INTER_NEAREST),
    "bicubic": _cv2(cv2.INTER_CUBIC),
    "bicubic, antialiased": _pil(Image.Resampling.BICUBIC),
    "Lanczos": _pil(Image.Resampling.LANCZOS),
}
COMMON = "bilinear, antialiased"
"""The way of torchvision's RandomResizedCrop."""
HALVED = "at half their resolution"
_BASES: dict[Mode, tuple[str, ...]] = {
    "original": (ORIGINALS,),
    "raw": (PIXELS,),
    "jpeg": (JPEG,),
    "jpeg-reencoded": (PIXELS, JPEG),
    "proportion": (PIXELS, JPEG),
    "smart": (PIXELS, JPEG),
}


@dataclass(frozen=True)
class Making:
    """How pixels were made, as far as they show it. Figures are medians over the crops."""

    base: str
    """What was cropped: `original files`, `canonical pixels` or `canonical JPEG`."""
    decode: str
    """How it was decoded, or an empty string."""
    resampling: str
    own_db: float
    """PSNR of the delivered crop against our re-created crop; 99 if all pixels are equal."""
    own_largest_error: int
    """Of the same, in grey levels of 255."""
    common_db: float
    """PSNR against the antialiased bilinear resampling of the same crop of the canonical pixels."""
    shift_px: float
    """How far the delivered crop is shifted against that, in delivered pixels."""

    def figures(self) -> dict[str, float]:
        """Return the figures of a certificate."""
        return {
            "own_psnr_db": self.own_db,
            "own_largest_error": self.own_largest_error,
            "common_psnr_db": self.common_db,
            "shift_px": self.shift_px,
        }

    def faults(self, mode: Mode) -> Iterator[str]:
        """Yield in words what does not fit the format's mode."""
        if self.own_db < LEAST_DB:
            yield f"no usual way of resizing gives these pixels; the closest has a PSNR of {self.own_db:.0f} dB"
        elif self.decode == HALVED:
            yield f"crops are made of the {self.base} {HALVED}"
        elif self.base not in _BASES[mode]:
            yield f"crops are made of the {self.base} instead of the {' or '.join(_BASES[mode])}"
        elif self.base != ORIGINALS and self.common_db < LEAST_DB:
            yield f"resampling ({self.resampling}) has a PSNR of {self.common_db:.0f} dB against the common way"


def making(seen: Observation, source: CanonicalImages, mode: Mode) -> Making | None:
    """Return how the kept crops were made; None if no kept crop has a known label.

    `source`: the probe's images. `mode`: the format's.
    """
    errors: dict[tuple[str, str, str], list[tuple[float, int]]] = {}
    common: list[tuple[float, float]] = []
    known = [place for place, number in enumerate(seen.kept.tolist()) if 0 <= seen.image_label[number] < len(source)]
    chosen = known[:: max(1, len(known) // CROPS)][:CROPS]
    for place in chosen:
        number, crop = seen.kept[place], seen.crops[place]
        if seen.flipped[number]:
            crop = np.ascontiguousarray(crop[:, ::-1])
        boxes: dict[tuple[int, ...], tuple[slice, slice]] = {}  # by size: decoders do not shift images
        for (base, decode), image in _images(source, int(seen.image_label[number])).items():
            if image.shape not in boxes:
                boxes[image.shape] = _box(image, seen.edges[number], crop)
            part = image[boxes[image.shape]]
            for name, resample in FILTERS.items():
                made = resample(part, len(crop))
                errors.setdefault((base, decode, name), []).append(_error(crop, made))
                if (base, decode, name) == (PIXELS, "", COMMON):
                    common.append((_error(crop, made)[0], _shift_px(crop, made)))
    if not errors:
        return None
    medians = {way: float(np.median([db for db, _ in found])) for way, found in errors.items()}
    requested = [way for way in medians if way[0] in _BASES[mode] and way[1] != HALVED]
    way, expected = (max(ways, key=lambda key: medians[key]) for ways in (medians, requested))
    if medians[way] - medians[expected] < CLEAR_DB:
        way = expected
    own_largest = int(np.median([largest for _, largest in errors[way]]))
    common_db, shift_px = np.median(np.array(common), axis=0)
    return Making(*way, medians[way], own_largest, float(common_db), float(shift_px))


def _images(source: CanonicalImages, label: int) -> dict[tuple[str, str], Pixels]:
    """Return an image in every form that a loader may have cropped, by its base and how it was decoded."""
    images: dict[tuple[str, str], Pixels] = {(PIXELS, ""): source.pixels(label)}
    for base, content in (
        (JPEG, source.jpeg(label)),
        (ORIGINALS, source.original(label).read_bytes()),
    ):
        images[base, ""] = simplejpeg.decode_jpeg(content)
        images[base, "with the fast, less exact DCT"] = simplejpeg.decode_jpeg(content, fastdct=True)
        images[base, "with the fast DCT and plain upsampling"] = simplejpeg.decode_jpeg(
            content, fastdct=True, fastupsample=True
        )
    for (base, decode), image in list(images.items()):
        if not decode:
            height, width = image.shape[:2]
            images[base, HALVED] = _resized(image, width // 2, height // 2, cv2.INTER_AREA)
    return images


def _box(image: Pixels, edges: NDArray[np.float64], crop: Pixels) -> tuple[slice, slice]:
    """Return the rows and columns that a crop shows. `edges` are exact to about a pixel; comparing finds the rest."""
    height, width = image.shape[:2]
    most = np.array([width, height, width, height])
    grey, target = (np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8) for pixels in (image, crop))

    def error(box: NDArray[np.int64]) -> float:
        left, top, right, bottom = box.tolist()
        if (box < 0).any() or (box > most).any() or right - left < 2 or bottom - top < 2:  # noqa: PLR2004
            return np.inf
        return float(cv2.norm(FILTERS["area"](grey[top:bottom, left:right], len(crop)), target, cv2.NORM_L1))

    best = np.clip(np.rint(edges * most).astype(int), 0, most)
    best[2:] = np.maximum(best[2:], best[:2] + 2)
    least = error(best)
    moves = np.array([*np.eye(4, dtype=int), (1, 0, 1, 0), (0, 1, 0, 1), (-1, 0, 1, 0), (0, -1, 0, 1)])
    moves = np.concatenate([moves, -moves, 2 * moves, -2 * moves])
    while True:
        tried = [(error(best + move), place) for place, move in enumerate(moves)]
        found, place = min(tried)
        if found >= least:
            left, top, right, bottom = best.tolist()
            return slice(top, bottom), slice(left, right)
        least, best = found, best + moves[place]


def _error(one: Pixels, other: Pixels) -> tuple[float, int]:
    """Return the PSNR in dB, and the largest difference in grey levels."""
    return min(EXACT_DB, cv2.PSNR(one, other)), int(cv2.norm(one, other, cv2.NORM_INF))


def _shift_px(one: Pixels, other: Pixels) -> float:
    """Return how far an image is shifted against another, by one step of Lucas and Kanade (1981), for small shifts."""
    moved, still = (cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float64) for pixels in (one, other))
    slopes = np.stack([slope.ravel() for slope in np.gradient(still)])
    (down, across), *_ = np.linalg.lstsq(slopes.T, (still - moved).ravel())  # 0 for an image of one grey
    return float(np.hypot(across, down))
