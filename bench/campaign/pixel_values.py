"""The range of pixel values by dtype and normalisation, and how to undo normalisation.

Half a step of bfloat16, the coarsest dtype, is 2⁻⁹ below 1, which is 0.498 grey levels; of normalised values, which are
less than 4, it is 2⁻⁷, which is 0.456. So rounding restores the grey level for every dtype.
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
    """Return the form of delivered images in words.

    `work`: fields of an `api.Work`, or a campaign's of the same names. `own`: those of a contestant, which replace them
    where not None.
    """
    work = {**work, **{name: value for name, value in (own or {}).items() if value is not None}}
    normalised = ", normalised" if work.get("normalised") else ""
    device = work.get("device", "cpu")
    return f"{work['dtype']}{normalised}{'' if device == 'cpu' else f', on {device}'}"


def span(work: Work) -> tuple[float, float]:
    """Return the lowest and the highest value that an image may have."""
    if work.dtype == "uint8":
        return 0, LEVELS
    if not work.normalised:
        return 0, 1
    low = min(-mean / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True))
    high = max((1 - mean) / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True))
    return low * (1 + rounding(work)), high * (1 + rounding(work))


def rounding(work: Work) -> float:
    """Return the relative error that a value may have: half from its dtype, half from the computation."""
    import torch

    return 0 if work.dtype == "uint8" else torch.finfo(getattr(torch, work.dtype)).eps


def unnormalised(images: Tensor, work: Work) -> Tensor:
    """Return images (n x 3 x H x W) before normalisation; in float32 unless they are integers."""
    import torch

    if not images.is_floating_point():
        return images
    images = images.to(torch.float32)
    if not work.normalised:
        return images
    mean, deviation = (torch.tensor(values, device=images.device).reshape(3, 1, 1) for values in (MEAN, DEVIATION))
    return images * deviation + mean
