"""How does Lightning train with any of the loaders? One DataModule for all of them, with nothing for Lightning to add.

No sampler is injected: what the Trainer gets is no DataLoader, and each loader shares the epochs between ranks itself.
"""

from __future__ import annotations

from collections.abc import Sized
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from lightning import LightningDataModule

from loaderbench.api import Artifact
from loaderbench.campaign import registry

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from torch import Tensor
    from torch.nn import Module

    from loaderbench.api import Loader, Work


class DataModule(LightningDataModule):
    """Trains and validates with any loader.

    Batches are (images, labels) as `work` asks for, by default on the CPU; the Trainer moves them to each rank's
    device. Rank and number of ranks are the Trainer's. Validation shows the middle of each image, in the stored order,
    and each image exactly once over all ranks; in training up to ranks - 1 samples of an epoch may come once more.
    """

    def __init__(
        self,
        loader: str | Loader,
        work: Work,
        *,
        train: Artifact | str | Path | None = None,
        val: Artifact | str | Path | None = None,
        val_transforms: Sequence[Module] = (),
        **options: Any,
    ) -> None:
        """`loader`: a name that `loaderbench adapters` lists, or the loader itself. `train`, `val`: formats, or the
        folders that `loaderbench prepare` names. `work`: that of training, of which validation has everything but
        order, crops, flips, `resizes` and `transforms`. `options`: the loader's own.

        Raises ValueError for a loader that is not there, ModuleNotFoundError for a library, FileNotFoundError for a
        format.
        """
        super().__init__()
        self._loader = _named(loader) if isinstance(loader, str) else loader
        self._options = options
        self._train, self._val = (
            Artifact.load(given) if given and not isinstance(given, Artifact) else given for given in (train, val)
        )
        self._work = replace(work, lasting=True)  # while Lightning copies one batch it may ask for the next
        self._val_work = replace(
            self._work, augment="validation", shuffle=False, passes=1, resizes=(), transforms=val_transforms
        )
        self._streams: dict[str, ExitStack] = {}

    def train_dataloader(self) -> Iterable[tuple[Tensor, Tensor]]:
        """Open the stream of training. Raises TypeError for a loader that tells no length, ValueError if ranks cannot
        take the same number of steps.
        """
        return self._open("train", self._train, self._work)

    def val_dataloader(self) -> Iterable[tuple[Tensor, Tensor]]:
        """Open the stream of validation. Raises as for training."""
        return self._open("val", self._val, self._val_work)

    def teardown(self, stage: str) -> None:  # noqa: ARG002 - Lightning's hook
        """Close all streams: their threads and worker processes end."""
        while self._streams:
            self._streams.popitem()[1].close()

    def on_exception(self, exception: BaseException) -> None:  # noqa: ARG002 - Lightning's hook
        """Close all streams."""
        self.teardown("")

    def _open(self, name: str, artifact: Artifact | None, work: Work) -> Iterable[tuple[Tensor, Tensor]]:
        if name in self._streams:
            self._streams.pop(name).close()
        if not artifact:
            return []
        if self.trainer:
            work = replace(work, rank=self.trainer.global_rank, ranks=self.trainer.world_size)
        with ExitStack() as opened:
            batches = opened.enter_context(self._loader.stream(artifact, work, **self._options))
            if not isinstance(batches, Sized):
                raise TypeError(
                    "Lightning cannot train with this loader: what its stream() gives has no __len__, the number of "
                    "batches in each of this rank's epochs"
                )
            epochs = Epochs(batches, len(batches), self._lacking(len(batches)))
            opened.callback(epochs.close)
            self._streams[name] = opened.pop_all()
        return epochs

    def _lacking(self, batches: int) -> int:
        """Return how many batches this rank has less than the one that has most."""
        if not self.trainer or self.trainer.world_size == 1:
            return 0
        strategy = self.trainer.strategy
        extremes = strategy.reduce(torch.tensor([batches, -batches], device=strategy.root_device), reduce_op="max")
        return lacking(batches, most=int(extremes[0]), least=-int(extremes[1]), batch_size=self._work.batch_size)


def _named(name: str) -> Loader:
    """Return the loader of a name. Raises ValueError and ModuleNotFoundError as `DataModule` does."""
    adapters = registry.adapters("loader")
    if name not in adapters:
        raise ValueError(f"there is no loader {name}, only {', '.join(sorted(adapters))}")
    if reason := adapters[name].why_unavailable():
        raise ModuleNotFoundError(f"the loader {name} is {reason}")
    return registry.loader(name)


def lacking(batches: int, *, most: int, least: int, batch_size: int) -> int:
    """Return how many of `batches` are to be cut off others, so that there are as many as in the rank that has most.

    Raises ValueError if that cannot be in the rank that has least: in all ranks, so that none waits for another.
    """
    images = (least - 1) * batch_size + 1  # at least: the last batch may be of one image
    if least < most and images < most:
        raise ValueError(
            f"a rank has {least} batches of up to {batch_size} images where another has {most}: too few images to "
            "train together; take fewer ranks, larger batches or more images"
        )
    return most - batches


class Epochs:
    """A stream as Lightning takes it: of a known length, the same in all ranks.

    Ranks that train together must take the same number of steps, or wait for ever. A rank that lacks batches cuts its
    first one into more, and the next if that is of too few images, which neither loses nor repeats a sample.
    """

    def __init__(self, batches: Iterable[tuple[Tensor, Tensor]], length: int, lacking: int) -> None:
        """`length`: how many batches an epoch has, of which there are to be `lacking` more."""
        self.lacking = lacking
        self._batches = batches
        self._length = length + lacking
        self._epoch = self._cut([])

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self._length

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Begin an epoch of its own order."""
        self._epoch.close()
        self._epoch = self._cut(self._batches)
        return self._epoch

    def _cut(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Generator[tuple[Tensor, Tensor]]:
        left = self.lacking
        for images, labels in batches:
            parts = min(left + 1, len(labels))
            left -= parts - 1
            yield from zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True)
        if left:
            raise RuntimeError(f"an epoch of {self._length} batches had too few images: {left} batches are missing")

    def close(self) -> None:
        """End the epoch that is under way, and let go of the loader."""
        self._epoch.close()
        self._batches = []
