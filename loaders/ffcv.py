"""FFCV: numba-compiled decoding in threads, straight into preallocated batches."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bench.api import DEVIATION, MEAN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

    from bench.api import Artifact, Work

requires = ("ffcv", "torch")
reads = ("ffcv",)
streams = False


@contextmanager
def stream(
    artifact: Artifact,
    work: Work,
    *,
    os_cache: bool = True,
    batches_ahead: int = 3,
    convert: Literal["compiled", "torchvision"] = "compiled",
) -> Iterator[Iterable[tuple[Tensor, Tensor]]]:
    """`os_cache`: map the file (True) or read its pages into FFCV's own slots (False). `convert`, if the work is not
    uint8: by FFCV's own operation in all its threads, or by a torchvision module, which FFCV runs in one.
    """
    import numpy as np
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage

    # Compiled operations must come before ToTensor: FFCV hangs at construction otherwise.
    compiled = [RandomResizedCropRGBImageDecoder((work.image_size, work.image_size)), RandomHorizontalFlip(0.5)]
    modules = []
    match work.dtype, convert:
        case "uint8", _:
            pass
        case "bfloat16", "compiled":
            raise NotImplementedError(
                "FFCV's own operation converts to NumPy's types, and bfloat16 is none; "
                'it takes the option convert = "torchvision"'
            )
        case dtype, "compiled":
            mean, deviation = (MEAN, DEVIATION) if work.normalised else ((0, 0, 0), (1, 1, 1))
            compiled.append(NormalizeImage(255 * np.array(mean), 255 * np.array(deviation), np.dtype(dtype)))
        case dtype, "torchvision":
            import torch
            from torchvision.transforms import v2

            modules.append(v2.ToDtype(torch.float32 if work.normalised else getattr(torch, dtype), scale=True))
            if work.normalised:
                modules += [v2.Normalize(MEAN, DEVIATION), v2.ToDtype(getattr(torch, dtype))]
        case _:
            raise ValueError(f"convert is compiled or torchvision, not {convert}")
    yield Loader(
        str(Path(artifact.path) / "samples.beton"),
        batch_size=work.batch_size,
        num_workers=work.workers,
        os_cache=os_cache,
        order=OrderOption.RANDOM if work.shuffle else OrderOption.SEQUENTIAL,
        seed=work.seed,
        indices=np.tile(np.arange(artifact.samples), work.passes),
        pipelines={
            "image": [*compiled, ToTensor(), ToTorchImage(), *modules],
            "label": [IntDecoder(), ToTensor(), Squeeze(1)],
        },
        drop_last=False,
        distributed=work.ranks > 1,
        batches_ahead=batches_ahead,
    )
