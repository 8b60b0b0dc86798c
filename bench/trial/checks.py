"""Check batches and epochs against the requested work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from loaderbench.api import CHANNELS, Artifact, Work
from loaderbench.campaign import pixel_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

_CONTAINERS, _PAIR, _LISTED = (tuple, list), 2, 4
"""Types and parts of a batch, and how many parts of something else are described."""
_IMAGES, _PIXELS = 4, 28
"""How many images of a batch are looked at, and about how many rows and columns of each."""
_LABELS_AT_ONCE = 4096
"""How many labels of an epoch are counted together."""
_JUDGED_FROM = 8
"""Fewer images may be alike by chance."""


class InvalidWorkError(Exception):
    """The loader delivered something other than the requested work."""


@dataclass(frozen=True)
class EpochTotals:
    """What one epoch delivered."""

    images: int
    batches: int
    label_counts: NDArray[np.int64]
    """Images of each class."""
    over: bool = True
    """Whether the epoch came to its end."""

    @classmethod
    def of_all(cls, parts: Sequence[EpochTotals]) -> EpochTotals:
        """Return the totals of an epoch that several ranks share."""
        counts: NDArray[np.int64] = np.sum([part.label_counts for part in parts], axis=0)
        images, batches = sum(part.images for part in parts), sum(part.batches for part in parts)
        return cls(images, batches, counts, all(part.over for part in parts))

    def check(self, number: int, artifact: Artifact, work: Work) -> None:
        """Raise InvalidWorkError unless this is one epoch, or the beginning of one, of all ranks together.

        `number`: counts from 1.
        """
        expected = artifact.samples * work.passes
        if not self.over:
            self._check_part(number, artifact, work)
            return
        if not expected <= self.images <= expected + (-expected % work.ranks):
            again = "; each iter() over what stream() opens must begin an epoch" if number > 1 > self.images else ""
            raise InvalidWorkError(f"epoch {number} delivered {self.images} images instead of {expected}{again}")
        self._check_labels(number, artifact, work.passes)
        # A loader may leave one partial batch per worker. More batches than that are smaller than requested.
        most = -(-expected // work.batch_size) + work.workers * work.ranks
        if self.batches > most:
            raise InvalidWorkError(
                f"epoch {number}: {self.batches} batches, expected at most {most}; "
                "batches are smaller than the batch size"
            )

    def _check_part(self, number: int, artifact: Artifact, work: Work) -> None:
        """Raise InvalidWorkError if an epoch that is not over has delivered more images, or of one class, than it has.

        Then some came again before the epoch was over.
        """
        expected = artifact.samples * work.passes
        padding = -expected % work.ranks
        if self.images > expected + padding:
            raise InvalidWorkError(
                f"epoch {number} delivered {self.images} images, more than its {expected}, and goes on"
            )
        due = np.array(artifact.label_counts) * work.passes
        if artifact.label_counts and (more := np.flatnonzero(self.label_counts > due + padding).tolist()):
            came, there = self.label_counts[more[0]], due[more[0]]
            raise InvalidWorkError(
                f"epoch {number} delivered {came} images of class {more[0]} before its end, but there are {there}"
            )

    def _check_labels(self, number: int, artifact: Artifact, passes: int) -> None:
        """Raise InvalidWorkError if images of a class are missing, or if the labels have another sum."""
        if artifact.label_counts:
            expected = np.array(artifact.label_counts) * passes
            if missing := np.flatnonzero(self.label_counts < expected).tolist():
                came, due = self.label_counts[missing[0]], expected[missing[0]]
                raise InvalidWorkError(f"epoch {number} delivered {came} images of class {missing[0]} instead of {due}")
        elif self.images == artifact.samples * passes:
            total, due = int(self.label_counts @ np.arange(len(self.label_counts))), artifact.label_sum * passes
            if total != due:
                raise InvalidWorkError(f"the labels of epoch {number} add up to {total} instead of {due}")


def pair(batch: Any) -> tuple[Tensor, Tensor]:
    """Return images and labels of what a loader delivered. Raises InvalidWorkError unless it is a pair of tensors."""
    import torch

    if isinstance(batch, _CONTAINERS) and len(batch) == _PAIR:
        images, labels = batch
        if isinstance(images, torch.Tensor) and isinstance(labels, torch.Tensor):
            return images, labels
    raise InvalidWorkError(f"a batch is {described(batch)} instead of a pair of tensors, (images, labels)")


def described(value: Any) -> str:
    """Return what a value is: the type and shape of numbers, the parts of a container, otherwise its class."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        kind = "" if type(value).__name__ == "Tensor" else f"{type(value).__name__} "
        return f"{kind}{_dtype(value)} {tuple(value.shape)}"
    if isinstance(value, dict):
        return f"a dict of {_listed([f'{key!r}: {described(part)}' for key, part in value.items()])}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {_listed([described(part) for part in value])}"
    return f"an object of type {type(value).__qualname__}"


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(parts[:_LISTED]) + (f" and {len(parts) - _LISTED} more" if len(parts) > _LISTED else "")


def _dtype(numbers: Any) -> str:
    return str(numbers.dtype).removeprefix("torch.")


class LabelCounts:
    """Counts the images of each class. Counting thousands of labels at once takes less time from the loader."""

    def __init__(self, classes: int) -> None:
        self._counts = np.zeros(classes, np.int64)
        self._labels: list[int] = []
        """Not counted yet."""

    def add(self, labels: Tensor) -> None:
        """Add a batch's labels. Raises as `total` does."""
        self._labels += labels.tolist()
        if len(self._labels) >= _LABELS_AT_ONCE:
            self.total()

    def total(self) -> NDArray[np.int64]:
        """Return the images of each class. Raises InvalidWorkError for a label that is no class."""
        labels, self._labels = self._labels, []
        if not labels:
            return self._counts
        try:
            self._counts += np.bincount(labels, minlength=len(self._counts))
        except (ValueError, MemoryError):  # below zero, or above the last class
            raise InvalidWorkError(
                f"labels from {min(labels)} to {max(labels)}, but the classes are 0 to {len(self._counts) - 1}"
            ) from None
        return self._counts


class Glimpses:
    """Looks at a few images of each batch that it is given: they must be images, and different ones."""

    def __init__(self) -> None:
        self._looked = self._constant = 0
        self._different: set[int] = set()

    def look(self, images: Tensor) -> None:
        """Look at the first images of a batch."""
        import torch

        step = max(1, images.shape[-1] // _PIXELS)
        few = images[:_IMAGES, :, ::step, ::step].contiguous().cpu()
        self._looked += len(few)
        self._constant += int((few == few[:, :, :1, :1]).flatten(1).all(1).sum())
        self._different |= {hash(image.tobytes()) for image in few.view(torch.uint8).flatten(1).numpy()}

    def check(self) -> None:
        """Raise InvalidWorkError if all of at least eight images were constant, or if most of them were repeated."""
        if self._looked < _JUDGED_FROM:
            return
        if self._constant == self._looked:
            raise InvalidWorkError(f"each of {self._looked} images that were looked at has one colour only")
        if 2 * len(self._different) <= self._looked:
            raise InvalidWorkError(
                f"of {self._looked} images that were looked at, only {len(self._different)} differ from each other"
            )


def check_batch(images: Tensor, labels: Tensor, work: Work) -> str:
    """Return the memory format of a batch, `contiguous` or `channels_last`.

    Raises InvalidWorkError if the batch is not what `work` requests.
    """
    import torch

    size, count = work.image_size, len(images) if images.dim() else 0
    shape, where = (count, CHANNELS, size, size), images.device.type
    if (
        not count
        or images.shape != shape
        or _dtype(images) != work.dtype
        or where != work.device
        or count > work.batch_size
    ):
        raise InvalidWorkError(
            f"images are {described(images)}, on {where} instead of {work.dtype} (n, {CHANNELS}, {size}, {size}), on "
            f"{work.device}, with 1 to {work.batch_size} images"
        )
    if images.is_floating_point():  # of uint8 every value is valid
        low, high = pixel_values.span(work)
        least, most = float(images[0].min()), float(images[0].max())
        if not low <= least <= most <= high:
            raise InvalidWorkError(f"images with values from {least:g} to {most:g} instead of {low:.3g} to {high:.3g}")
    integer = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    where = labels.device.type  # the CPU: the harness counts labels without waiting for a GPU
    if labels.shape != (count,) or not integer or where != "cpu":
        raise InvalidWorkError(f"labels are {described(labels)}, on {where} instead of integer ({count},), on cpu")
    if images.is_contiguous():
        return "contiguous"
    if images.is_contiguous(memory_format=torch.channels_last):
        return "channels_last"
    raise InvalidWorkError(f"images with strides {images.stride()}, neither contiguous nor channels_last")
