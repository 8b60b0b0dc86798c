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
    artifact: Artifact, work: Work, *, decode: Literal["pil", "torchvision"] = "pil", prefetch_factor: int = 2
) -> Iterator[Iterable[tuple[Tensor, Tensor]]]:
    """`decode`: ImageFolder's default PIL loader, or torchvision.io. `prefetch_factor`: batches that each worker holds
    ready.
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

    class EachEpoch(DistributedSampler):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[int]:
            order = super().__iter__()
            self.set_epoch(self.epoch + 1)
            return order

    torch.manual_seed(work.own_seed)
    steps = [v2.RandomResizedCrop(work.image_size), v2.RandomHorizontalFlip(0.5), v2.ToImage()]
    if work.dtype != "uint8":
        steps.append(v2.ToDtype(torch.float32 if work.normalised else getattr(torch, work.dtype), scale=True))
    if work.normalised:
        steps += [v2.Normalize(MEAN, DEVIATION), v2.ToDtype(getattr(torch, work.dtype))]
    dataset = ImageFolder(artifact.path, v2.Compose(steps), loader={"pil": default_loader, "torchvision": read}[decode])
    samples = Subset(dataset, [*range(len(dataset))] * work.passes)
    share = EachEpoch(samples, shuffle=work.shuffle, seed=work.seed) if work.ranks > 1 else None
    yield DataLoader(
        samples,
        batch_size=work.batch_size,
        num_workers=work.workers,
        shuffle=work.shuffle and not share,
        sampler=share,
        drop_last=False,
        prefetch_factor=prefetch_factor,
        persistent_workers=True,
    )
