"""Which values may images have, by the work's dtype and normalisation, and which grey levels do they stand for?

Half a step of bfloat16, the coarsest dtype, is 2⁻⁹ below 1, which is 0.498 grey levels; of normalised values, which are
less than 4, it is 2⁻⁷, which is 0.456. So whatever the dtype, rounding gives back the level that a value was made of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.api import DEVIATION, MEAN

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api import Work

LEVELS = 255


def span(work: Work) -> tuple[float, float]:
    """Return the least and the greatest value that an image may have."""
    if work.dtype == "uint8":
        return 0, LEVELS
    if not work.normalised:
        return 0, 1
    low = min(-mean / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True))
    high = max((1 - mean) / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True))
    return low * (1 + rounding(work)), high * (1 + rounding(work))


def rounding(work: Work) -> float:
    """Return by which share of itself a value may be off: half of it by its dtype, half by what it is computed in."""
    import torch

    return 0 if work.dtype == "uint8" else torch.finfo(getattr(torch, work.dtype)).eps


def unnormalised(images: Tensor, work: Work) -> Tensor:
    """Return images, n x 3 x H x W, as they were before they were normalised, in float32 if they are of any float."""
    import torch

    if not images.is_floating_point():
        return images
    images = images.to(torch.float32)
    if not work.normalised:
        return images
    mean, deviation = (torch.tensor(values, device=images.device).reshape(3, 1, 1) for values in (MEAN, DEVIATION))
    return images * deviation + mean
