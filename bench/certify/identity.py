"""Which image of the probe is it that a crop shows?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from loaderbench.certify.probe import SIGNATURE_SIDE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from loaderbench.certify.observe import Observation

LIKE = 0.8
"""Signatures of the same part of the same image correlate by more than this; those of two images do not."""
SEARCHED = 24
"""Of the crops that are not what their label says, so many are looked for among all images."""


@dataclass(frozen=True)
class Shown:
    """What the labels of the crops are worth."""

    right: NDArray[np.bool_]
    """One per delivered image: whether it shows the image that its label names."""
    label: NDArray[np.int64]
    found: NDArray[np.int64]
    """Of some that do not: their label, and which image they do show."""

    @property
    def wrong_share(self) -> float:
        """Share of the images that their labels do not name."""
        return float(1 - self.right.mean()) if len(self.right) else 0.0


def small(path: Path) -> NDArray[np.uint8]:
    """Return the luma of a probe image at a quarter of its size, H x W."""
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_REDUCED_GRAYSCALE_4), np.uint8)


def identify(seen: Observation, images: Sequence[NDArray[np.uint8]]) -> Shown:
    """Compare every crop with what the image that its label names shows there. `images`: see `small`, by label."""
    views = len(seen.signatures)
    right = np.array([_like(seen, number, images, int(seen.image_label[number])) for number in range(views)], bool)
    label, found = [], []
    wrong = np.flatnonzero(~right)
    for number in wrong[np.linspace(0, len(wrong) - 1, min(SEARCHED, len(wrong)), dtype=int)]:
        alike = [_correlation(seen, int(number), image) for image in images]
        if alike and max(alike) > LIKE:
            label.append(int(seen.image_label[number]))
            found.append(int(np.argmax(alike)))
    return Shown(right, np.array(label, int), np.array(found, int))


def _like(seen: Observation, number: int, images: Sequence[NDArray[np.uint8]], label: int) -> bool:
    return 0 <= label < len(images) and _correlation(seen, number, images[label]) > LIKE


def _correlation(seen: Observation, number: int, image: NDArray[np.uint8]) -> float:
    """Return how like a crop is to the same part of an image: 1 if equal but for brightness and contrast."""
    height, width = image.shape
    left, top, right, bottom = (seen.edges[number] * [width, height, width, height]).tolist()
    if not (right - left >= 1 and bottom - top >= 1) or max(map(abs, (left, top, right, bottom))) > 2 * max(
        image.shape
    ):
        return 0.0
    # From the middle of the first pixel of the signature to the middle of its last.
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
