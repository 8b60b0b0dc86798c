"""Identify the image of the probe that a crop shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from loaderbench.certify.observation import Observation
from loaderbench.certify.probe import SIGNATURE_SIDE

LIKE = 0.8
"""Signatures of the same part of the same image correlate by more than this; those of two images by less."""
SEARCHED = 24
"""Maximum number of crops with a wrong label that are compared with all images."""


@dataclass(frozen=True)
class Shown:
    """Which images the crops show, compared with their labels."""

    right: NDArray[np.bool_]
    """For each delivered image, whether it shows the image that its label names."""
    label: NDArray[np.int64]
    found: NDArray[np.int64]
    """For some that do not: their label, and the image that they show."""

    @property
    def wrong_share(self) -> float:
        """Share of the delivered images that are not what their labels say."""
        return float(1 - self.right.mean()) if len(self.right) else 0.0


@cache
def small(path: Path) -> NDArray[np.uint8]:
    """Return the luma of a probe image at a quarter of its size, H x W. A process reads each file once."""
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_REDUCED_GRAYSCALE_4), np.uint8)


def identify(seen: Observation, images: Sequence[NDArray[np.uint8]]) -> Shown:
    """Compare every crop with the same part of the image that its label names. `images`: from `small`, by label."""
    views, labels = len(seen.signatures), seen.image_label.tolist()
    known = [0 <= label < len(images) for label in labels[:views]]
    right = np.array([known[n] and _correlation(seen, n, images[labels[n]]) > LIKE for n in range(views)], bool)
    label, found = [], []
    wrong = np.flatnonzero(~right)
    for number in wrong[np.linspace(0, len(wrong) - 1, min(SEARCHED, len(wrong)), dtype=int)]:
        alike = [_correlation(seen, int(number), image) for image in images]
        if alike and max(alike) > LIKE:
            label.append(labels[number])
            found.append(int(np.argmax(alike)))
    return Shown(right, np.array(label, int), np.array(found, int))


def _correlation(seen: Observation, number: int, image: NDArray[np.uint8]) -> float:
    """Return the correlation of a crop with the same part of an image: 1 if only brightness and contrast differ."""
    height, width = image.shape
    left, top, right, bottom = (seen.edges[number] * [width, height, width, height]).tolist()
    if not (right - left >= 1 and bottom - top >= 1) or max(map(abs, (left, top, right, bottom))) > 2 * max(
        image.shape
    ):
        return 0.0
    # From the centre of the signature's first pixel to the centre of its last.
    across, down = ((end - start) / SIGNATURE_SIDE for start, end in ((left, right), (top, bottom)))
    to_image = np.array([[across, 0, left + across / 2 - 0.5], [0, down, top + down / 2 - 0.5]])
    part = cv2.warpAffine(
        cv2.blur(image, (max(1, round(across)), max(1, round(down)))),
        to_image,
        (SIGNATURE_SIDE, SIGNATURE_SIDE),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    signature = seen.signatures[number][:, :: -1 if seen.flipped[number] else 1]
    one, other = ((values - values.mean()).ravel() for values in (part, signature))
    scale = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one @ other) / scale) if scale else 0.0
