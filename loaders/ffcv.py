"""FFCV: numba-compiled decoding in threads, straight into preallocated batches."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge

from loaderbench.api import CHANNELS, DEVIATION, MEAN, Artifact, Work
from loaderbench.loaders.shared import values

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor
    from torch.nn import Module

requires = ("ffcv", "torch")
reads = ("ffcv",)
streams = False


@contextmanager  # long, because what it defines needs FFCV, which is imported on use only
def stream(  # noqa: PLR0913 - the options of FFCV
    artifact: Artifact,
    work: Work,
    *,
    os_cache: bool = True,
    batches_ahead: Annotated[int, Ge(1)] = 3,
    convert: Literal["compiled", "torchvision"] = "compiled",
    order: Literal["random", "quasi_random", "sequential"] = "random",
) -> Iterator[Iterable[tuple[Tensor, Tensor]]]:
    """Deliver batches from an FFCV file. FFCV copies images to a GPU by itself, from page-locked memory.

    `os_cache`: map the file (True) or read its pages into FFCV's own slots (False). `convert`, if the work is not
    uint8: by FFCV's own operation in all its threads (`compiled`), or by a torchvision module in one thread, on the GPU
    if images are delivered there (`torchvision`). `order`, if the work is shuffled: of all samples (`random`), of those
    in twice as many pages of the file at a time as a batch has images (`quasi_random`), or as stored (`sequential`).

    `work.transforms` run in that one thread too, each on a whole batch: one random draw applies to all its images.
    """
    import numpy as np
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import CenterCropRGBImageDecoder, RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, Squeeze, ToDevice, ToTensor, ToTorchImage
    from torch import device

    _check_threads(work.workers)
    chosen = _order(order, work)
    in_training = work.augment == "train"
    size = (work.image_size, work.image_size)
    crop = RandomResizedCropRGBImageDecoder(size) if in_training else CenterCropRGBImageDecoder(size, work.centre)
    # Compiled operations must come before ToTensor: FFCV hangs at construction otherwise.
    compiled = [crop, RandomHorizontalFlip(0.5)] if in_training else [crop]
    modules = [] if work.device == "cpu" else [ToDevice(device(work.device), non_blocking=True)]
    match work.dtype, convert:
        case "uint8", _:
            pass
        case "bfloat16", "compiled":
            raise NotImplementedError(
                "FFCV's own operation converts to NumPy's types, which lack bfloat16; "
                'use the option convert = "torchvision"'
            )
        case dtype, "compiled":
            mean, deviation = (MEAN, DEVIATION) if work.normalised else ((0, 0, 0), (1, 1, 1))
            compiled.append(NormalizeImage(255 * np.array(mean), 255 * np.array(deviation), np.dtype(dtype)))
        case _, "torchvision":
            modules += values(work)
        case _:
            raise ValueError(f"convert is compiled or torchvision, not {convert}")

    class Epochs(Loader):  # type: ignore[misc]
        def next_traversal_order(self) -> np.ndarray:
            # Quasi-random order visits each index once.
            numbers = range(passes * self.next_epoch, passes * (self.next_epoch + 1))
            return np.concatenate([self.traversal_order.sample_order(number) for number in numbers])

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            # FFCV allocates batch buffers for each epoch, and compiles code that accepts any image size.
            crop.output_size = (work.size_in(self.next_epoch),) * 2
            epoch = super().__iter__()
            # Steps that a GPU has still to do may read the buffers of the epoch before: they must not be freed until
            # this one has its own, into which FFCV copies without waiting for those steps.
            held[:] = _on_device(epoch)
            try:
                for batch in epoch:
                    if failed:
                        raise failed[0]
                    yield batch
            finally:  # without this, its thread hangs if the epoch is left early
                _end(epoch)

    passes = work.passes if chosen == "quasi_random" else 1
    own, distributed = np.tile(np.arange(artifact.samples), work.passes // passes), work.ranks > 1
    if not in_training:  # FFCV pads epochs that it distributes, as DistributedSampler does
        own, distributed = own[work.rank :: work.ranks], False
    failed: list[Exception] = []
    held: list[Any] = []
    transforms = [_recorded(step, failed) for step in work.transforms]
    copy = [_copying()] if work.lasting else []
    # The labels of a batch on the GPU are still in FFCV's page-locked memory; the copy does not wait for the GPU.
    copy_labels = copy if work.device == "cpu" else [_copying()]
    loader = Epochs(
        str(Path(artifact.path) / "samples.beton"),
        batch_size=work.batch_size,
        num_workers=work.workers,
        os_cache=os_cache,
        order=OrderOption[chosen.upper()],
        seed=work.seed,
        indices=own,
        pipelines={
            "image": [*compiled, ToTensor(), ToTorchImage(), *modules, *transforms, *copy],
            "label": [IntDecoder(), ToTensor(), Squeeze(1), *copy_labels],
        },
        drop_last=False,
        distributed=distributed,
        batches_ahead=batches_ahead,
    )
    _check_memory(loader.reader.metadata["f0"], work, batches_ahead)
    yield loader


def partial_order(
    artifact: Artifact, work: Work, *, order: str = "random", **_: Any
) -> Iterator[NDArray[np.int64]] | None:
    """Return the order of samples in each epoch if it is quasi-random, otherwise None."""
    return _each_epoch(artifact, work) if order == "quasi_random" and work.shuffle else None


def _each_epoch(artifact: Artifact, work: Work) -> Iterator[NDArray[np.int64]]:
    with stream(artifact, work, order="quasi_random") as loader:
        for loader.next_epoch in count():  # type: ignore[attr-defined]
            yield loader.next_traversal_order()  # type: ignore[attr-defined]


def _check_threads(workers: int) -> None:
    """Raise NotImplementedError if numba, which counts its threads when it is imported, has fewer than `workers`."""
    from numba import config

    if workers > config.NUMBA_NUM_THREADS:
        raise NotImplementedError(
            f"FFCV's {workers} workers are threads of numba, which has {config.NUMBA_NUM_THREADS} in this process; set "
            f"the environment variable NUMBA_NUM_THREADS={workers} before numba is imported"
        )


def _order(order: str, work: Work) -> str:
    """Return the order of samples: `order` if the work is shuffled. Raises NotImplementedError or ValueError."""
    if order not in {"random", "quasi_random", "sequential"}:
        raise ValueError(f"order is random, quasi_random or sequential, not {order}")
    if not work.shuffle:
        return "sequential"
    if order == "quasi_random" and work.ranks > 1:
        raise NotImplementedError("FFCV has no quasi-random order in distributed training; use another order, or jobs")
    return order


def _check_memory(images: Any, work: Work, batches_ahead: int) -> None:
    """Raise NotImplementedError if the buffers for decoding, which FFCV allocates for each epoch, exceed the memory.

    `images`: FFCV's metadata. Each image of each batch gets room for the greatest width times the greatest height.
    """
    height, width, slots = int(images["height"].max()), int(images["width"].max()), batches_ahead + 2
    needed = slots * work.batch_size * height * width * CHANNELS
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise NotImplementedError(
            f"FFCV needs {needed / 2**30:,.1f} GiB for decoding, and this machine has {memory / 2**30:,.1f} GiB: "
            f"each of {work.batch_size} images of {slots} batches gets room for {width} x {height} pixels, the largest "
            "width and height in the file; use smaller batches, or a format with a smaller max_side"
        )


def _on_device(epoch: Any) -> list[Any]:
    """Return the buffers on the GPU into which FFCV copies batches: lists of tensors, others are arrays."""
    return [buffer for buffer in epoch.memory_allocations["operation"].values() if isinstance(buffer, list)]


def _end(epoch: Any) -> None:
    """Give FFCV's thread no further batches, and wait until it ends, and with it its copies to a GPU.

    A later epoch may get the memory of their page-locked buffers.
    """
    epoch.iter_ixes = iter(())
    while epoch.is_alive():
        with suppress(Empty):
            epoch.output_queue.get(timeout=0.05)
    for stream in filter(None, epoch.cuda_streams):  # without a GPU they are None
        stream.synchronize()
    epoch.close()


def _recorded(step: Module, failed: list[Exception]) -> Module:
    """Return a transform that records its failure, which would end FFCV's thread and leave its consumer hanging."""
    from torch.nn import Module

    class Recorded(Module):
        def forward(self, batch: Tensor) -> Tensor:
            try:
                return step(batch)
            except Exception as error:  # noqa: BLE001 - raised where the batch is requested
                failed.append(error)
                return batch

    return Recorded()


def _copying() -> Module:
    """Return a transform that copies a batch, because FFCV reuses batch buffers."""
    from torch.nn import Module

    class Copy(Module):
        def forward(self, batch: Tensor) -> Tensor:
            return batch.clone()

    return Copy()
