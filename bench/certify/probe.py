"""Make probe images, whose crops reveal their position, size, flip and image.

Every image is a class of its own, so that its label names it. Blue-yellow chroma (Cb) rises from left to right and
red-cyan chroma (Cr) from top to bottom: any crop shows where it was cut, at what size, and whether it was flipped. The
luma is a texture unique to each image: it shows which image a crop is of, and how sharp it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from loaderbench.machine.workers import map_processes

SIZES = ((500, 375), (375, 500), (480, 360), (400, 400))
"""Width and height in pixels, in turn. There are few, so that equal random numbers show as equal crops."""
_CHROMA = 45.0
"""Cb and Cr range from 128 - 45 to 128 + 45. With the luma below, no colour has to be clipped."""
_LUMA = (88, 168)
_FROM_RGB = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
"""Rows: Y, Cb - 128, Cr - 128 of RGB (JFIF 1.02)."""
_MARGIN = 0.05
"""Share of a crop at each side that is ignored for its position: filters differ at the edge of an image."""
_EVERY = 8
"""Every eighth row or column is averaged, which is more than enough for a position."""
SIGNATURE_SIDE = 16


def write(out: Path, samples: int, on_progress: Callable[[int], None]) -> None:
    """Write image `i` as `out/<i>/<i>.jpg`; the images are always the same."""
    with map_processes(partial(_draw, out)) as draw:
        for done, _ in enumerate(draw(range(samples)), 1):
            on_progress(done)


def _draw(out: Path, index: int) -> None:
    folder = out / f"{index:06d}"
    folder.mkdir()
    pixels = cv2.cvtColor(image(index), cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    cv2.imwrite(str(folder / f"{index:06d}.jpg"), pixels, options)


def image(index: int) -> NDArray[np.uint8]:
    """Return one image of the tree: RGB, H x W x 3."""
    width, height = SIZES[index % len(SIZES)]
    random = np.random.default_rng([index, 20])
    luma = np.zeros((height, width), np.float32)
    for side, weight in ((8, 1.0), (32, 1.0), (128, 0.7), (512, 0.5)):  # from broad to fine
        coarse = random.standard_normal((side, side)).astype(np.float32)[:height, :width]
        luma += weight * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    luma = np.clip(128 + 16 * luma, *_LUMA)
    across, down = (_CHROMA * ((np.arange(size) + 0.5) / size * 2 - 1) for size in (width, height))
    ycc = np.stack(np.broadcast_arrays(luma, across[None, :], down[:, None]), axis=-1)
    return np.asarray(np.clip(np.rint(ycc @ np.linalg.inv(_FROM_RGB).T), 0, 255), np.uint8)


@dataclass(frozen=True)
class Views:
    """What a batch of crops shows. All arrays have one entry per crop."""

    edges: NDArray[np.float64]
    """n x 4: left, top, right and bottom edge in the image, as shares of its width and height."""
    flipped: NDArray[np.bool_]
    """Whether the crop is flipped left to right."""
    signatures: NDArray[np.uint8]
    """n x 16 x 16: the luma, shrunk."""


def read(crops: NDArray[Any]) -> Views:
    """Return what crops (n x 3 x H x W, RGB, 0 to 255) show."""
    _, _, height, width = crops.shape
    columns = crops[:, :, ::_EVERY].mean(axis=2, dtype=np.float32)  # n x 3 x W
    rows = crops[..., ::_EVERY].mean(axis=3, dtype=np.float32)
    left, right = _edges(np.einsum("c,ncw->nw", _FROM_RGB[1], columns))
    top, bottom = _edges(np.einsum("c,nch->nh", _FROM_RGB[2], rows))
    flipped = left > right
    edges = np.stack([np.minimum(left, right), top, np.maximum(left, right), bottom], axis=1)
    return Views(edges, flipped, _signatures(crops, height, width))


def _edges(profile: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the position of the first and the last pixel's outer edges in the image.

    `profile`: n x pixels, chroma averaged along the other direction.
    """
    size = profile.shape[1]
    inner = slice(int(_MARGIN * size), size - int(_MARGIN * size))
    places = np.arange(size)[inner] + 0.5
    slope, offset = np.polyfit(places, profile[:, inner].T, 1)
    first, last = ((slope * place + offset + _CHROMA) / (2 * _CHROMA) for place in (0, size))
    return first, last


def _signatures(crops: NDArray[Any], height: int, width: int) -> NDArray[np.uint8]:
    luma = np.einsum(
        "c,nchw->nhw", _FROM_RGB[0].astype(np.float32), crops[:, :, :: height // 64 or 1, :: width // 64 or 1]
    )
    side = (SIGNATURE_SIDE, SIGNATURE_SIDE)
    return np.stack([cv2.resize(plane, side, interpolation=cv2.INTER_AREA) for plane in luma]).round().astype(np.uint8)
