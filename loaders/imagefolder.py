"""torchvision ImageFolder: one file per image, decoded in torch worker processes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from bench.api import DEVIATION, MEAN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

    from bench.api import Artifact, Work

requires = ("torchvision", "torch")
reads = ("imagefolder",)
streams = False


@contextmanager
def stream(
    artifact: Artifact,
    work: Work,
    *,
    decode: Literal["pil", "torchvision"] = "pil",
    prefetch_factor: int = 2,
    pin_memory: bool = True,
) -> Iterator[Iterable[tuple[Tensor, Tensor]]]:
    """`decode`: ImageFolder's default PIL loader, or torchvision.io. `prefetch_factor`: batches that each worker holds
    ready. `pin_memory`: whether batches for a GPU are put into page-locked memory, from which it copies by itself.

    Workers stay from epoch to epoch, unless `work.resizes` asks for images of another size: then they start anew.
    """
    import torch
    from torch.utils.data import DataLoader, DistributedSampler, Subset
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import default_loader
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms import v2

    def read(path: str) -> Tensor:
        image = decode_image(path, mode=ImageReadMode.RGB)
        return image if image.dtype == torch.uint8 else (image >> 8).to(torch.uint8)  # 16-bit PNG

    class Epochs(DataLoader):  # type: ignore[type-arg]
        epoch = 0

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            if in_training:
                crop.size = [work.size_in(self.epoch)] * 2
            if share:
                share.set_epoch(self.epoch)
            self.epoch += 1
            return super().__iter__()

    torch.manual_seed(work.own_seed)
    in_training = work.augment == "train"
    if in_training:
        crop = v2.RandomResizedCrop(work.image_size)
        steps = [crop, v2.RandomHorizontalFlip(0.5)]
    else:
        steps = [v2.Resize(round(work.image_size / work.centre)), v2.CenterCrop(work.image_size)]
    steps.append(v2.ToImage())
    if work.dtype != "uint8":
        steps.append(v2.ToDtype(torch.float32 if work.normalised else getattr(torch, work.dtype), scale=True))
    if work.normalised:
        steps += [v2.Normalize(MEAN, DEVIATION), v2.ToDtype(getattr(torch, work.dtype))]
    augment = v2.Compose([*steps, *work.transforms])
    dataset = ImageFolder(artifact.path, augment, loader={"pil": default_loader, "torchvision": read}[decode])
    indices = [*range(len(dataset))] * work.passes
    samples = Subset(dataset, indices if in_training else indices[work.rank :: work.ranks])
    distributed = in_training and work.ranks > 1
    share = DistributedSampler(samples, shuffle=work.shuffle, seed=work.seed) if distributed else None
    yield Epochs(
        samples,
        batch_size=work.batch_size,
        num_workers=work.workers,
        shuffle=work.shuffle and not share,
        sampler=share,
        drop_last=False,
        prefetch_factor=prefetch_factor,
        pin_memory=pin_memory and work.device != "cpu",
        persistent_workers=not work.resizes,
    )
