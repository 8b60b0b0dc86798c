"""What several adapters do alike: torchvision's steps for images, and how torch shares epochs. This is no adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from loaderbench.api import DEVIATION, MEAN

if TYPE_CHECKING:
    from torch.nn import Module
    from torch.utils.data import Dataset, DistributedSampler, Subset

    from loaderbench.api import Work

Sharing = Literal["file_descriptor", "file_system"]
"""How torch's workers hand a batch over, in torch's names. By file descriptor, as torch does on Linux, the process that
takes it has to meet a thread of the worker for it; by a name in shared memory it has not, and what a process that is
killed leaves there is removed by one of torch's own.
"""


def views(work: Work) -> tuple[Module, Module]:
    """Return what of an image is shown: in training the random crop and the flip, in validation the two steps to its
    middle.
    """
    from torchvision.transforms import v2

    if work.augment == "train":
        return v2.RandomResizedCrop(work.image_size), v2.RandomHorizontalFlip(0.5)
    return v2.Resize(round(work.image_size / work.centre)), v2.CenterCrop(work.image_size)


def values(work: Work) -> list[Module]:
    """Return how uint8 tensors get the dtype and the values of the work."""
    import torch
    from torchvision.transforms import v2

    dtype = getattr(torch, work.dtype)
    steps = []
    if work.dtype != "uint8":
        steps.append(v2.ToDtype(torch.float32 if work.normalised else dtype, scale=True))
    if work.normalised:
        steps += [v2.Normalize(MEAN, DEVIATION), v2.ToDtype(dtype)]
    return steps


def shared(dataset: Dataset[Any], work: Work) -> tuple[Subset[Any], DistributedSampler[Any] | None]:
    """Return the samples of an epoch, and what draws this rank's share of them, which must be told each epoch's number.

    The latter is None where all samples returned are this rank's.
    """
    from torch.utils.data import DistributedSampler, Subset

    indices = [*range(len(dataset))] * work.passes
    if work.augment != "train":  # DistributedSampler would show some images twice
        return Subset(dataset, indices[work.rank :: work.ranks]), None
    samples = Subset(dataset, indices)
    return samples, DistributedSampler(samples, shuffle=work.shuffle, seed=work.seed) if work.ranks > 1 else None
