"""Check batches and epochs against the requested work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loaderbench.api import CHANNELS, Artifact, Work
from loaderbench.campaign import pixel_values

if TYPE_CHECKING:
    from torch import Tensor


class InvalidWorkError(Exception):
    """The loader delivered something other than the requested work."""


@dataclass(frozen=True)
class EpochTotals:
    """What one epoch delivered."""

    images: int
    label_sum: int
    batches: int

    def check(self, number: int, artifact: Artifact, work: Work) -> None:
        """Raise InvalidWorkError unless this is one complete epoch, of all ranks together. `number`: counts from 1."""
        expected = artifact.samples * work.passes
        if not expected <= self.images <= expected + (-expected % work.ranks):
            raise InvalidWorkError(f"epoch {number} delivered {self.images} images instead of {expected}")
        expected_sum = artifact.label_sum * work.passes
        if self.images == expected and self.label_sum != expected_sum:
            raise InvalidWorkError(f"the labels of epoch {number} add up to {self.label_sum} instead of {expected_sum}")
        # A loader may leave one partial batch per worker. More batches than that are smaller than requested.
        most = -(-expected // work.batch_size) + work.workers * work.ranks
        if self.batches > most:
            raise InvalidWorkError(
                f"epoch {number}: {self.batches} batches, expected at most {most}; "
                "batches are smaller than the batch size"
            )


def check_batch(images: Tensor, labels: Tensor, work: Work) -> str:
    """Return the memory format of a batch, `contiguous` or `channels_last`.

    Raises InvalidWorkError if the batch is not what `work` requests.
    """
    import torch

    size, count = work.image_size, len(images)
    if images.shape != (count, CHANNELS, size, size) or not 0 < count <= work.batch_size:
        raise InvalidWorkError(
            f"images of shape {tuple(images.shape)} instead of (n, {CHANNELS}, {size}, {size}) "
            f"with 1 to {work.batch_size} images"
        )
    if (dtype := str(images.dtype).removeprefix("torch.")) != work.dtype:
        raise InvalidWorkError(f"images of dtype {dtype} instead of {work.dtype}")
    if images.device.type != work.device:
        raise InvalidWorkError(f"images on {images.device.type} instead of {work.device}")
    if images.is_floating_point():  # of uint8 every value is valid
        low, high = pixel_values.span(work)
        least, most = float(images[0].min()), float(images[0].max())
        if not low <= least <= most <= high:
            raise InvalidWorkError(f"images with values from {least:g} to {most:g} instead of {low:.3g} to {high:.3g}")
    if labels.shape != (count,) or labels.is_floating_point():
        raise InvalidWorkError(f"labels of shape {tuple(labels.shape)}, {labels.dtype} instead of ({count},), integer")
    if labels.device.type != "cpu":  # the harness adds labels up without waiting for a GPU
        raise InvalidWorkError(f"labels on {labels.device.type} instead of cpu")
    if images.is_contiguous():
        return "contiguous"
    if images.is_contiguous(memory_format=torch.channels_last):
        return "channels_last"
    raise InvalidWorkError(f"images with strides {images.stride()}, neither contiguous nor channels_last")
