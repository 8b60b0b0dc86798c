"""LitData: streamed chunks, decoded in torch worker processes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from loaderbench.loaders.shared import Sharing, values, views

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

    from loaderbench.api import Artifact, Work

requires = ("litdata", "torch", "torchvision")
reads = ("litdata",)
streams = True


@contextmanager
def stream(  # noqa: PLR0913 - the options
    artifact: Artifact,
    work: Work,
    *,
    prefetch_factor: int = 2,
    tensor_first: bool = False,
    pin_memory: bool = True,
    sharing: Sharing = "file_descriptor",
) -> Iterator[Iterable[tuple[Tensor, Tensor]]]:
    """`prefetch_factor`: batches that each worker holds ready. `tensor_first`: make a tensor of a PIL image before it
    is cropped, and not after; JPEGs are tensors when LitData hands them over. `pin_memory`: whether batches for a GPU
    are put into page-locked memory, from which it copies by itself. `sharing`: how workers hand a batch over.

    Each chunk is shuffled whole. LitData's default is windows of 256 samples, which stay together in every epoch.
    Workers start anew in every epoch. No sample comes twice, so that ranks may get unequal numbers of batches.
    """
    import torch
    from litdata import StreamingDataLoader, StreamingDataset
    from torchvision.transforms import v2

    class Epochs(StreamingDataLoader):  # type: ignore[misc]
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            if work.augment == "train":
                crop.size = [work.size_in(self.current_epoch)] * 2  # counts the epochs begun
            return super().__iter__()

    torch.multiprocessing.set_sharing_strategy(sharing)
    torch.manual_seed(work.own_seed)
    crop, then = views(work)
    steps = [v2.ToImage(), crop, then] if tensor_first else [crop, then, v2.ToImage()]
    augment = v2.Compose([*steps, *values(work), *work.transforms])

    def sample(item: dict[str, Any]) -> tuple[Tensor, int]:
        return augment(item["image"]), item["label"]

    dataset = StreamingDataset(
        artifact.path,
        cache_dir=artifact.cache or None,
        max_cache_size=artifact.cache_bytes,
        shuffle=work.shuffle,
        item_shuffle_window="full",
        drop_last=False,
        seed=work.seed,
        subsample=float(work.passes),
        transform=sample,
    )
    yield Epochs(
        dataset,
        batch_size=work.batch_size,
        num_workers=work.workers,
        prefetch_factor=prefetch_factor,
        pin_memory=pin_memory and work.device != "cpu",
    )
