"""torchvision ImageFolder: one file per image, decoded in torch worker processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge

from loaderbench.api import Artifact, Work
from loaderbench.loaders.shared import FORK, Sharing, pil_loader, prefetched_bytes, shared, values, views

if TYPE_CHECKING:
    from torch import Tensor

requires = ("torchvision", "torch")
reads = ("imagefolder",)
streams = False
shared_memory_bytes = prefetched_bytes


@contextmanager  # long, because what it defines needs torch, which is imported on use only
def stream(  # noqa: PLR0913 - the options
    artifact: Artifact,
    work: Work,
    *,
    decode: Literal["pil", "torchvision"] = "pil",
    prefetch_factor: Annotated[int, Ge(1)] = 2,
    pin_memory: bool = True,
    sharing: Sharing = "file_descriptor",
) -> Iterator[Iterable[tuple[Tensor, Tensor]]]:
    """Deliver batches from a folder of image files.

    `decode`: ImageFolder's default PIL loader, or torchvision.io, with PIL for files that it cannot decode.
    `prefetch_factor`: batches that each worker prefetches. `pin_memory`: whether batches for a GPU are put into
    page-locked memory, from which it copies by itself. `sharing`: how workers pass a batch on.

    Workers persist over epochs, unless `work.resizes` changes the image size: then each epoch starts new ones.
    """
    import torch
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms import v2

    def read(path: str) -> Tensor:
        try:
            image = decode_image(path, mode=ImageReadMode.RGB)
        except RuntimeError:  # not a JPEG, PNG, GIF or WebP, or an animated WebP
            image = v2.functional.pil_to_tensor(pil(path))
        image = image[0] if image.ndim > 3 else image  # noqa: PLR2004 - the first frame of an animated GIF
        return image if image.dtype == torch.uint8 else (image >> 8).to(torch.uint8)  # 16-bit PNG

    class Epochs(DataLoader):  # type: ignore[type-arg]
        epoch = 0

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            if work.augment == "train":
                crop.size = [work.size_in(self.epoch)] * 2
            if share:
                share.set_epoch(self.epoch)
            self.epoch += 1
            return super().__iter__()

    torch.multiprocessing.set_sharing_strategy(sharing)
    torch.manual_seed(work.own_seed)
    pil = pil_loader()
    crop, then = views(work)
    augment = v2.Compose([crop, then, v2.ToImage(), *values(work), *work.transforms])
    decoders = {"pil": pil, "torchvision": read}
    dataset = ImageFolder(artifact.path, augment, loader=decoders[decode], allow_empty=True)
    samples, share = shared(dataset, work)
    yield Epochs(
        samples,
        batch_size=work.batch_size,
        num_workers=work.workers,
        shuffle=work.shuffle and not share,
        sampler=share,
        drop_last=False,
        prefetch_factor=prefetch_factor,
        multiprocessing_context=FORK,
        pin_memory=pin_memory and work.device != "cpu",
        persistent_workers=not work.resizes,
    )
