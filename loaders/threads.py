"""Threads of one process: simplejpeg decodes image files, and OpenCV resizes them straight into the batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from io import FileIO
from random import Random
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from loaderbench.api import CHANNELS, Artifact, Work, random_crop
from loaderbench.loaders.shared import pil_loader, shared, values

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

requires = ("simplejpeg", "cv2", "torch", "torchvision")
reads = ("imagefolder",)
streams = False


@contextmanager
def stream(
    artifact: Artifact, work: Work, *, prefetch_factor: Annotated[int, Ge(1)] = 2
) -> Iterator[Iterable[tuple[Tensor, Tensor]]]:
    """Deliver batches from a folder of image files. Each thread makes whole batches; PIL decodes what is not JPEG.

    `prefetch_factor`: batches that each thread prefetches.
    """
    import cv2

    cv2.setNumThreads(1)
    pool = ThreadPoolExecutor(work.workers)
    try:
        yield Epochs(artifact, work, pool, prefetch_factor * work.workers)
    finally:
        pool.shutdown(cancel_futures=True)


class Epochs:
    """Epochs of batches, with `ahead` batches prefetched."""

    def __init__(self, artifact: Artifact, work: Work, pool: ThreadPoolExecutor, ahead: int) -> None:
        import torch
        from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler
        from torchvision.datasets import ImageFolder
        from torchvision.transforms import v2

        self._work, self._pool, self._ahead, self._begun = work, pool, ahead, 0
        self._samples, self._share = shared(ImageFolder(artifact.path, allow_empty=True).samples, work)
        drawn = RandomSampler(self._samples, generator=torch.Generator().manual_seed(work.seed))
        order = self._share or (drawn if work.shuffle else SequentialSampler(self._samples))
        self._batches = BatchSampler(order, work.batch_size, drop_last=False)
        self._table, self._pil = _table(work), pil_loader()
        self._transform = v2.Compose(work.transforms) if work.transforms else None

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        work, epoch = self._work, self._begun
        self._begun += 1
        if self._share:
            self._share.set_epoch(epoch)
        size = work.size_in(epoch) if work.augment == "train" else work.image_size
        memories = [self._memory(size) for _ in range(self._ahead + 1)]
        pending: deque[Future[tuple[Tensor, Tensor]]] = deque()
        try:
            for number, indices in enumerate(self._batches):
                if work.lasting or work.device != "cpu":
                    memory = self._memory(size)
                else:
                    memory = memories[number % len(memories)]
                draw = Random(f"{work.own_seed}/{epoch}/{number}")
                pending.append(self._pool.submit(self._batch, indices, memory, draw))
                if len(pending) == len(memories):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            wait([batch for batch in pending if not batch.cancel()])

    def _memory(self, size: int) -> Tensor:
        """Return memory for a batch, channels last. 16-bit floats are written as bits, for OpenCV lacks bfloat16."""
        import torch

        dtype = {"uint8": torch.uint8, "float32": torch.float32}.get(self._work.dtype, torch.int16)
        shape = (self._work.batch_size, size, size, CHANNELS)
        return torch.empty(shape, dtype=dtype, pin_memory=self._work.device != "cpu")

    def _batch(self, indices: Sequence[int], memory: Tensor, draw: Random) -> tuple[Tensor, Tensor]:
        import cv2
        import torch

        labels, size = [], memory.shape[1:3]
        for index, out in zip(indices, memory.numpy(), strict=False):
            path, label = self._samples[index]
            labels.append(label)
            shown = _shown(self._decoded(path), self._work, draw)
            if self._table is None:
                cv2.resize(shown, size, dst=out, interpolation=cv2.INTER_AREA)
            else:
                cv2.LUT(cv2.resize(shown, size, interpolation=cv2.INTER_AREA), self._table, dst=out)
        images = memory[: len(indices)].view(getattr(torch, self._work.dtype)).permute(0, 3, 1, 2)
        if self._transform:
            images = torch.stack([self._transform(image) for image in images])
        return images, torch.tensor(labels)

    def _decoded(self, path: str) -> np.ndarray:
        """Return the pixels of an image file: uint8, H x W x 3. JPEG is decoded with the fastest methods."""
        import numpy as np
        import simplejpeg

        with FileIO(path) as file:
            content = file.read()
        try:
            return simplejpeg.decode_jpeg(content, colorspace="RGB", fastdct=True, fastupsample=True)
        except ValueError:  # no JPEG, or one of CMYK
            return np.asarray(self._pil(path))


def _table(work: Work) -> np.ndarray | None:
    """Return what each byte becomes in each channel (1 x 256 x 3); None if it stays as it is."""
    import torch

    if work.dtype == "uint8":
        return None
    table = torch.arange(256, dtype=torch.uint8).expand(CHANNELS, 1, 256)
    for step in values(work):
        table = step(table)
    table = table if work.dtype == "float32" else table.view(torch.int16)
    return table.permute(1, 2, 0).contiguous().numpy()


def _shown(pixels: np.ndarray, work: Work, draw: Random) -> np.ndarray:
    """Return the part of an image that the work shows, perhaps flipped."""
    import cv2

    if work.augment == "train":
        top, left, high, wide, flipped = random_crop(pixels.shape[:2], draw.random)
        part = pixels[top : top + high, left : left + wide]
        return cv2.flip(part, 1) if flipped else part
    height, width = pixels.shape[:2]
    side = round(work.centre * min(height, width))
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]
