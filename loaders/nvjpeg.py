"""torchvision's nvJPEG: JPEG files read in torch worker processes, decoded and cropped batch by batch on the GPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from loaderbench.api import Artifact, Work
from loaderbench.loaders.shared import FORK, shared, values, views

if TYPE_CHECKING:
    import torch
    from torch import Tensor

requires = ("torchvision", "torch")
reads = ("imagefolder",)
streams = False


@contextmanager
def stream(
    artifact: Artifact, work: Work, *, prefetch_factor: Annotated[int, Ge(1)] = 2
) -> Iterator[Iterable[tuple[Tensor, Tensor]]]:
    """Deliver batches from a folder of JPEG files. `prefetch_factor`: batches of files that each worker prefetches."""
    import torch

    if work.device == "cpu":
        raise NotImplementedError('nvJPEG decodes on a GPU and delivers there; set device = "cuda" in [work]')
    yield Batches(artifact, work, prefetch_factor, torch.device(work.device))


class Batches:
    """Epochs of batches. Workers only read files; everything else happens in this process, on the device."""

    def __init__(self, artifact: Artifact, work: Work, prefetch_factor: int, device: torch.device) -> None:
        import torch
        from torch.utils.data import DataLoader
        from torchvision.datasets import ImageFolder
        from torchvision.io import read_file
        from torchvision.transforms import v2

        torch.manual_seed(work.own_seed)
        self._device = device
        self._stream = torch.cuda.Stream()
        self._work, self._begun = work, 0
        self._crop, then = views(work)
        self._augment = v2.Compose([self._crop, then, *values(work), *work.transforms])
        samples, self._share = shared(ImageFolder(artifact.path, loader=read_file), work)
        self._files = DataLoader(
            samples,
            batch_size=work.batch_size,
            num_workers=work.workers,
            shuffle=work.shuffle and not self._share,
            sampler=self._share,
            collate_fn=_joined,
            prefetch_factor=prefetch_factor,
            multiprocessing_context=FORK,
            persistent_workers=True,
        )

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self._work.augment == "train":
            self._crop.size = [self._work.size_in(self._begun)] * 2
        if self._share:
            self._share.set_epoch(self._begun)
        self._begun += 1
        for files, sizes, labels in self._files:
            yield self._on_device(list(files.split(sizes))), labels

    def _on_device(self, files: list[Tensor]) -> Tensor:
        """Return a batch that the caller's stream waits for, made on a stream of its own.

        torchvision decodes on a further stream, which it does not show, into memory of the present stream's pool. That
        stream must therefore be idle: kernels that it still has to run may read memory that was freed to the pool.
        """
        import torch
        from torchvision.io import ImageReadMode, decode_jpeg

        user = torch.cuda.current_stream()
        with torch.cuda.stream(self._stream):
            self._stream.synchronize()
            decoded = decode_jpeg(files, mode=ImageReadMode.RGB, device=self._device)
            images = torch.stack([self._augment(image) for image in decoded])
        user.wait_stream(self._stream)
        images.record_stream(user)  # its memory is not used again before the caller's queued kernels have read it
        return images


def _joined(samples: list[tuple[Tensor, int]]) -> tuple[Tensor, list[int], Tensor]:
    """Concatenate files in new memory. `read_file` returns mapped memory, which makes a worker hang silently."""
    import torch

    files, labels = zip(*samples, strict=True)
    return torch.cat(files), [len(file) for file in files], torch.tensor(labels)
