"""Make synthetic images that cost what ImageNet's cost to store and decode.

Each image is a dead-leaves scene: leaves with ragged outlines cover one another. Each leaf has its own colour and
roughness. Light comes from one side; blur and noise stand for lens and sensor. Sizes, spectrum, edges and the
correlation of the channels, on which memory and decoding depend, are then like those of photographs.

Image `i` depends only on `seed` and `i`, not on the number of processes or samples.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from loaderbench.machine.workers import map_processes

Array = NDArray[Any]

CLASSES = 16
MEAN_BYTES = 110_000  # of a file, as in ImageNet
TILE = 1024  # side of a texture, pixels
CORNERS = np.linspace(0, 2 * np.pi, 24, endpoint=False)  # directions of a leaf's corners, radians

# Quantiles fitted to ImageNet: most often 500 x 375, on average 469 x 387, some tiny and some large, and 142,009 bytes
# as RGB after the resize to 256 px.
LONG_SIDE = ((0, 0.02, 0.08, 0.16, 0.25, 0.87, 0.92, 0.96, 0.99, 1),
             (120, 164, 257, 358, 500, 500, 622, 796, 1161, 1600))  # pixels  # fmt: skip
ASPECT = ((0, 0.45, 0.45, 0.72, 0.72, 0.795, 0.795, 1),
          (3 / 4, 3 / 4, 2 / 3, 2 / 3, 1, 1, 1 / 2, 1))  # short side / long side  # fmt: skip
LANDSCAPE = 0.75  # share of images in landscape format

# Fitted together, after the resize to 256 px, to ImageNet's 16,622 bytes at JPEG quality 90 and to an amplitude
# spectrum of 1/f^1.42. Roughness and noise add bytes and flatten the spectrum; blur does the opposite. The plain
# numbers further down (light, shade, outlines, colours) were chosen by eye.
LEAVES = (25, 250)  # log-uniform; labels are bytes, so at most 255
ROUGHNESS = 0.095  # typical standard deviation of a leaf's texture, relative to its brightness
SOFT, GRAINY = 1.3, 0.8  # exponents of the amplitude spectra of the two kinds of texture
BLUR_PX = (0.35, 0.9)  # standard deviation of the lens's blur
NOISE = (0.6, 4.5)  # standard deviation of the sensor's noise, grey levels

# Most of ImageNet is stored at quality 96 without chroma subsampling (a survey of its files:
# terryalanunlimited.com/compression-in-the-imagenet-dataset). This share is fitted to MEAN_BYTES.
LIGHTLY_COMPRESSED = 0.66

# Additive sequence in five dimensions (Roberts' R5, from the root of x^6 = x + 1). It decides the bytes of an image.
# Independent draws would leave small sets farther from the means.
STEPS = 1.1347241384015194 ** -np.arange(1.0, 6.0)


def write(out: Path, samples: int, seed: int, on_progress: Callable[[int], None]) -> None:
    """Write image `i` of `samples` as `out/c<i % CLASSES>/<i>.jpg`, on all cores.

    `on_progress` gets the number of images written so far. Raises WorkerDiedError, or what a worker process raises.
    """
    if samples < 1 or seed < 0:
        raise ValueError(f"{samples=} must be at least 1, {seed=} at least 0")
    for label in range(min(CLASSES, samples)):
        (out / f"c{label:03d}").mkdir(parents=True, exist_ok=True)
    with map_processes(partial(_draw, out, seed)) as draw:
        for done, _ in enumerate(draw(range(samples)), 1):
            on_progress(done)


def _draw(out: Path, seed: int, i: int) -> None:
    path = out / f"c{i % CLASSES:03d}" / f"{i:07d}.jpg"
    path.write_bytes(image(Textures.of(seed), seed, i))


@dataclass(frozen=True)
class Textures:
    """Textures from which the images of a seed are cut. Computing new ones for each image takes too long."""

    start: Array  # first point of the additive sequence
    soft: list[Array]  # textures of mean 0 and standard deviation 1
    grainy: list[Array]
    noise: Array  # three independent channels of mean 128 and standard deviation 32

    @classmethod
    @cache
    def of(cls, seed: int) -> "Textures":
        """Compute the textures of a seed, in about 0.3 s."""
        rng = np.random.default_rng([seed, 0])
        frequency = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE))

        def texture(exponent: float) -> Array:
            white = rng.standard_normal((TILE, TILE), np.float32)
            gain = (np.maximum(frequency, 3 / TILE) ** -exponent).astype(np.float32)
            tile = np.asarray(np.fft.irfft2(np.fft.rfft2(white) * gain), np.float32)
            tile -= tile.mean()
            tile /= tile.std()
            return tile

        noise = 128 + 32 * rng.standard_normal((TILE, TILE, 3), np.float32)
        return cls(
            start=rng.random(len(STEPS)),
            soft=[texture(SOFT) for _ in range(4)],
            grainy=[texture(GRAINY) for _ in range(3)],
            noise=np.clip(noise, 0, 255).astype(np.uint8),
        )


def image(textures: Textures, seed: int, i: int) -> bytes:
    """Return the JPEG file of image `i`. The hue and the shape of the leaves depend on its class."""
    rng = np.random.default_rng([seed, 1, i])
    scale, shape, portrait, detail, compression = (textures.start + i * STEPS) % 1
    long = round(float(np.interp(scale, *LONG_SIDE)))
    short = round(long * float(np.interp(shape, *ASPECT)))
    width, height = (long, short) if portrait < LANDSCAPE else (short, long)
    label = i % CLASSES
    zooms = (3, 1, 1.5, 1.5)
    soft = [textures.soft[k] for k in rng.permutation(4)]
    light, coarse, *bend = (cut(rng, t, width, height, z) for t, z in zip(soft, zooms, strict=True))
    fine = cut(rng, textures.grainy[rng.integers(3)], width, height)

    count = int(np.exp(rng.uniform(*np.log(LEAVES))))
    ragged = rng.uniform(0, 0.012) * long
    leaf = leaves(rng, count, 2 + label % 4, ragged * bend[0], ragged * bend[1])
    colours = cv2.applyColorMap(leaf, palette(rng, label / CLASSES, 0.5 / CLASSES))
    rough = ROUGHNESS * 6 ** (detail - 0.5) * rng.gamma(1.5, 1 / 1.5, (2, 256))
    rough = rough.astype(np.float32)
    # Later leaves are on top: a leaf is in the shade where its neighbours on one side are later.
    side = max(3, int(long * rng.uniform(0.01, 0.06)))
    above = cv2.blur(leaf, (side, side), anchor=((side - 1) * int(rng.integers(2)), side - 1))
    shade = 1.05 + 0.2 * light - 0.45 / count * cv2.subtract(above, leaf, dtype=cv2.CV_32F)
    shade += cv2.LUT(leaf, rough[:1]) * fine + cv2.LUT(leaf, rough[1:]) * coarse
    tint = 0.05 * bend[0]
    lit = cv2.merge([shade - tint, shade, shade + tint])

    pixels = cv2.multiply(colours, lit, dtype=cv2.CV_8U)
    pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(*BLUR_PX))
    gain = rng.uniform(*NOISE) / 32
    pixels = cv2.addWeighted(pixels, 1, cut(rng, textures.noise, width, height), gain, -128 * gain)
    quality, sampling = 96, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    if compression > LIGHTLY_COMPRESSED:
        quality, sampling = int(rng.integers(70, 96)), cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    return cv2.imencode(".jpg", pixels, options)[1].tobytes()


def cut(rng: Generator, tile: Array, width: int, height: int, zoom: float = 1) -> Array:
    """Return a random part of a tile, enlarged by `zoom`, or more if the image is larger than the tile."""
    w, h = min(math.ceil(width / zoom), TILE), min(math.ceil(height / zoom), TILE)
    x, y = rng.integers(0, TILE - w + 1), rng.integers(0, TILE - h + 1)
    return cv2.resize(tile[y : y + h, x : x + w], (width, height), interpolation=cv2.INTER_LINEAR)


def leaves(rng: Generator, count: int, lobes: int, bend_x: Array, bend_y: Array) -> Array:
    """Return which of `count` leaves is visible at each pixel, 0 for none. Small leaves tend to be on top.

    `bend_x`, `bend_y`: displacements in pixels, which make the outlines ragged.
    """
    height, width = bend_x.shape
    rank = np.sort(rng.random((count, 1)), axis=0) + 0.25 * rng.standard_normal((count, 1))
    wave = np.cos(lobes * CORNERS + rng.uniform(0, 7, (count, 1)))
    dents = 0.06 * rng.standard_normal((count, len(CORNERS)))
    radius = max(width, height) * 0.4 * np.exp(-3.6 * np.clip(rank, 0, 1.1))
    radius = radius * (1 + rng.uniform(0, 0.35, (count, 1)) * wave + dents)
    stretch = np.exp(0.4 * rng.standard_normal((count, 1)))
    x = rng.uniform(0, width, (count, 1)) + radius * stretch * np.cos(CORNERS)
    y = rng.uniform(0, height, (count, 1)) + radius / stretch * np.sin(CORNERS)
    leaf = np.zeros((height, width), np.uint8)
    for k, outline in enumerate(np.stack([x, y], -1).astype(np.int32)):
        cv2.fillPoly(leaf, [outline], k + 1)
    from_x = np.arange(width, dtype=np.float32) + bend_x
    from_y = np.arange(height, dtype=np.float32)[:, None] + bend_y
    return cv2.remap(leaf, from_x, from_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT)


def palette(rng: Generator, hue: float, spread: float) -> Array:
    """Return 256 BGR colours around a hue, 0 to 1. As in photographs, brightness varies most."""
    angle = 2 * np.pi * (hue + spread * rng.standard_normal())
    grey = rng.uniform(85, 140) + rng.uniform(25, 50) * rng.standard_normal(256)
    grey = np.clip(grey, 25, 225)
    warm = 12 * np.cos(angle) + 9 * rng.standard_normal(256)
    green = 12 * np.sin(angle) + 9 * rng.standard_normal(256)
    chroma = np.stack([-warm - green / 2, green, warm - green / 2])
    colours = np.clip(grey + np.minimum(1, grey / 80) * chroma, 5, 250)
    return np.ascontiguousarray(colours.T.astype(np.uint8)[:, None])
