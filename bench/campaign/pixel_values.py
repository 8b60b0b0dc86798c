"""Which values may images have, by the work's dtype and normalisation, and which grey levels do they stand for?

Half a step of bfloat16, the coarsest dtype, is 2⁻⁹ below 1, which is 0.498 grey levels; of normalised values, which are
less than 4, it is 2⁻⁷, which is 0.456. So whatever the dtype, rounding gives back the level that a value was made of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loaderbench.api import DEVIATION, MEAN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from loaderbench.api import Work

LEVELS = 255


def delivers(work: Mapping[str, Any], own: Mapping[str, Any] | None = None) -> str:
    """Return the form of images in words. `work`: fields of a `api.Work`, or a campaign's of the same names.
    `own`: what a contestant has in place of them, where not None.
    """
    work = {**work, **{name: value for name, value in (own or {}).items() if value is not None}}
    normalised = ", normalised" if work.get("normalised") else ""
    device = work.get("device", "cpu")
    return f"{work['dtype']}{normalised}{'' if device == 'cpu' else f', on {device}'}"


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
