"""LitData: streamed chunks, decoded in torch worker processes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge

from loaderbench.api import Artifact, Work
from loaderbench.loaders.shared import FORK, Sharing, prefetched_bytes, values, views

if TYPE_CHECKING:
    from torch import Tensor

requires = ("litdata", "torch", "torchvision")
reads = ("litdata",)
streams = True
shared_memory_bytes = prefetched_bytes


_LEAF = {"type": None, "context": None, "children_spec": []}
_DATA_SPEC = [1, {"type": "builtins.dict", "context": '["image", "label"]', "children_spec": [_LEAF, _LEAF]}]
"""What an index that the writer made says of the samples, in torch's form."""


def _check(index: dict[str, Any]) -> None:
    """Raise ValueError if an index has what the writer does not put there. It may be a stranger's, from a bucket.

    LitData's serializer `pickle` would run a program, a `data_spec` can import any module, and a chunk's name is where
    its copy is written.
    """
    config = index["config"]
    if others := set(config["data_format"]) - {"pil", "jpeg", "int"}:
        raise ValueError(f"the index asks for the serializers {sorted(others)}, which are not used here")
    if json.loads(config["data_spec"]) != _DATA_SPEC or config["compression"]:
        raise ValueError("the index describes other samples than an image and a label, uncompressed")
    if outside := [chunk["filename"] for chunk in index["chunks"] if "/" in chunk["filename"]]:
        raise ValueError(f"the index names a file outside of its folder, {outside[0]!r}")


@contextmanager  # long, because what it defines needs LitData, which is imported on use only
def stream(  # noqa: PLR0913 - the options
    artifact: Artifact,
    work: Work,
    *,
    prefetch_factor: Annotated[int, Ge(1)] = 2,
    tensor_first: bool = False,
    pin_memory: bool = True,
    sharing: Sharing = "file_descriptor",
) -> Iterator[Iterable[tuple[Tensor, Tensor]]]:
    """Deliver batches from LitData chunks.

    `prefetch_factor`: batches that each worker prefetches. `tensor_first`: convert a PIL image to a tensor before it is
    cropped instead of after; LitData already returns JPEGs as tensors. `pin_memory`: whether batches for a GPU are put
    into page-locked memory, from which it copies by itself. `sharing`: how workers pass a batch on.

    Each chunk is shuffled as a whole. LitData's default is windows of 256 samples, which stay together in every epoch.
    Every epoch starts new workers. No sample comes twice, so that ranks may get unequal numbers of batches.
    """
    import torch
    from litdata import StreamingDataLoader, StreamingDataset
    from torchvision.transforms import v2

    class Epochs(StreamingDataLoader):  # type: ignore[misc]
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            if work.augment == "train":
                crop.size = [work.size_in(self.current_epoch)] * 2  # the number of started epochs
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
    _check(json.loads(Path(dataset.input_dir.path, "index.json").read_bytes()))  # it has fetched no more than that yet
    yield Epochs(
        dataset,
        batch_size=work.batch_size,
        num_workers=work.workers,
        prefetch_factor=prefetch_factor,
        multiprocessing_context=FORK if work.workers else None,
        pin_memory=pin_memory and work.device != "cpu",
    )
