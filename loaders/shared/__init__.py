"""Code shared by several loaders: torchvision transforms, and how ranks share an epoch. This is no adapter."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from loaderbench.api import CHANNELS, DEVIATION, MEAN, Work

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch.nn import Module
    from torch.utils.data import Dataset, DistributedSampler, Subset

FORK = "fork"
"""How torch's workers start, whatever the process's own way is: in a spawned rank, torch would spawn them, and what
they need could not be pickled."""
Sharing = Literal["file_descriptor", "file_system"]
"""How torch's workers pass a batch on, by torch's names. With `file_descriptor`, torch's default on Linux, the
receiving process needs a thread of the worker. With `file_system`, a name in shared memory, it does not; a process of
torch's removes what a killed process leaves there.
"""


def prefetched_bytes(work: Work, *, prefetch_factor: int = 2, **_: Any) -> int:
    """Return how many bytes of /dev/shm the batches of torch's workers take at most: those that they prefetch, and two
    that the consumer holds.
    """
    value_bits = int(re.sub(r"\D", "", work.dtype))
    batch_bytes = work.batch_size * CHANNELS * work.image_size**2 * value_bits // 8
    return (prefetch_factor * work.workers + 2) * batch_bytes


def views(work: Work) -> tuple[Module, Module]:
    """Return the two transforms that select what an image shows: random crop and flip, or resize and centre crop."""
    from torchvision.transforms import v2

    if work.augment == "train":
        return v2.RandomResizedCrop(work.image_size), v2.RandomHorizontalFlip(0.5)
    return v2.Resize(round(work.image_size / work.centre)), v2.CenterCrop(work.image_size)


def values(work: Work) -> list[Module]:
    """Return the transforms that give uint8 tensors the dtype and the values of the work."""
    import torch
    from torchvision.transforms import v2

    dtype = getattr(torch, work.dtype)
    steps = []
    if work.dtype != "uint8":
        steps.append(v2.ToDtype(torch.float32 if work.normalised else dtype, scale=True))
    if work.normalised:
        steps += [v2.Normalize(MEAN, DEVIATION), v2.ToDtype(dtype)]
    return steps


def pil_loader() -> Callable[[str], Image]:
    """Return ImageFolder's default loader, which then accepts sound PNG files with large profiles too."""
    from PIL import PngImagePlugin
    from torchvision.datasets.folder import default_loader

    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
    return default_loader  # type: ignore[no-any-return]


def shared(dataset: Dataset[Any], work: Work) -> tuple[Subset[Any], DistributedSampler[Any] | None]:
    """Return the samples of an epoch, and the sampler that draws this rank's share of them.

    The sampler needs `set_epoch` before each epoch. It is None if all returned samples are this rank's.
    """
    from torch.utils.data import DistributedSampler, Subset

    indices = [*range(len(dataset))] * work.passes
    if work.augment != "train":  # DistributedSampler would repeat some images
        return Subset(dataset, indices[work.rank :: work.ranks]), None
    samples = Subset(dataset, indices)
    return samples, DistributedSampler(samples, shuffle=work.shuffle, seed=work.seed) if work.ranks > 1 else None
