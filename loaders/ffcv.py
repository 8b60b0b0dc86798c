"""FFCV: numba-compiled decoding in threads, straight into preallocated batches."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

    from bench.api import Artifact, Work

requires = ("ffcv", "torch")
reads = ("ffcv",)


@contextmanager
def stream(
    artifact: Artifact, work: Work, *, os_cache: bool = True, batches_ahead: int = 3
) -> Iterator[Iterable[tuple[Tensor, Tensor]]]:
    """`os_cache`: map the file (True) or read its pages into FFCV's own slots (False)."""
    import numpy as np
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage

    size = (work.image_size, work.image_size)
    # Compiled operations must come before ToTensor: FFCV hangs at construction otherwise.
    images = [RandomResizedCropRGBImageDecoder(size), RandomHorizontalFlip(0.5), ToTensor(), ToTorchImage()]
    yield Loader(
        str(Path(artifact.path) / "samples.beton"),
        batch_size=work.batch_size,
        num_workers=work.workers,
        os_cache=os_cache,
        order=OrderOption.RANDOM,
        seed=work.seed,
        indices=np.tile(np.arange(artifact.samples), work.passes),
        pipelines={"image": images, "label": [IntDecoder(), ToTensor(), Squeeze(1)]},
        drop_last=False,
        batches_ahead=batches_ahead,
    )
