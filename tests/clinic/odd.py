"""Loaders of unusual makes: each works, or gets a clear error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, SubsetRandomSampler
from torchvision import transforms


class Numbers(Dataset[Any]):
    """Small images without labels."""

    def __init__(self) -> None:
        self.transform: Any = torch.nn.Identity()

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(torch.full((3, 8, 8), index / 64))


def no_labels() -> Any:
    """Batches are tensors alone."""
    return DataLoader(Numbers(), batch_size=4, num_workers=1)


def own_sampler() -> Any:
    """The order is the user's."""
    return DataLoader(Numbers(), batch_size=4, sampler=SubsetRandomSampler(range(0, 64, 2)), num_workers=1)


def dicts() -> Any:
    """Batches are nested."""
    for _ in range(100):
        yield {"images": [np.zeros((4, 3, 8, 8), np.float32)], "info": {"label": torch.arange(4)}}


def endless() -> Any:
    """The first epoch never ends."""
    while True:
        yield torch.zeros(4, 3), torch.zeros(4)


def empty() -> Any:
    """No batch comes."""
    return []


def broken() -> Any:
    """The function raises."""
    raise RuntimeError("the disk is not mounted")


def number() -> Any:
    """What is returned cannot be iterated."""
    return 7


def after_cuda() -> Any:
    """A worker uses what only the process that forked it may use."""
    return DataLoader(Faulty(), batch_size=4, num_workers=1)


class Faulty(Numbers):
    """Raises in a worker, as CUDA does after a fork."""

    def __getitem__(self, index: int) -> torch.Tensor:
        raise RuntimeError("Cannot re-initialize CUDA in forked subprocess")


class Module:
    """A Lightning DataModule, as far as its loader for training is concerned."""

    def prepare_data(self) -> None:
        """Do nothing."""

    def setup(self, stage: str) -> None:
        """Prepare for a stage."""
        assert stage == "fit"

    def train_dataloader(self) -> Any:
        """Return the loader."""
        return no_labels()


def step(batch: Any) -> None:
    """Train on a batch."""
    assert batch.shape == (4, 3, 8, 8)


class Streamed(IterableDataset[Any]):
    """Each worker delivers 32 images."""

    def __init__(self, *, batched: bool = False) -> None:
        self.batched = batched

    def __iter__(self) -> Iterator[torch.Tensor]:
        for _ in range(32):
            yield torch.zeros(4, 3, 8, 8) if self.batched else torch.zeros(3, 8, 8)


class Itself(IterableDataset[Any]):
    """Is its own iterator, as LitData's data set is."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        self.left = 32
        return self

    def __next__(self) -> torch.Tensor:
        if not self.left:
            raise StopIteration
        self.left -= 1
        return torch.zeros(3, 8, 8)


class Preset:
    """Holds its transforms, as the presets of torchvision's references do."""

    def __init__(self) -> None:
        self.transforms = transforms.Compose([torch.nn.Identity(), torch.nn.Flatten(), torch.nn.Identity()])

    def __call__(self, image: torch.Tensor) -> Any:
        return self.transforms(image)


class Several(Numbers):
    """Returns the images of a batch in one call."""

    def __getitems__(self, indices: list[int]) -> list[torch.Tensor]:
        return [torch.full((3, 8, 8), index / 64) for index in indices]


class Derived(DataLoader[Any]):
    """A class of the user's own."""

    def __init__(self, dataset: Any) -> None:
        super().__init__(dataset, 4, num_workers=1)


class Resettable:
    """An iterator that starts again after `reset`, as DALI's do. It cannot be made twice."""

    made = 0

    def __init__(self) -> None:
        Resettable.made += 1
        assert Resettable.made == 1
        self.reset()

    def reset(self) -> None:
        """Begin the next epoch."""
        self.left = 4

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self.left:
            raise StopIteration
        self.left -= 1
        return [{"data": torch.zeros(4, 3, 8, 8), "label": torch.zeros(4, 1)}]


class Holding:
    """Holds the loader that it iterates over."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)


def subset() -> Any:
    """A part of a data set."""
    return DataLoader(Subset(Subset(Numbers(), range(48)), range(32)), batch_size=4, num_workers=1)


def streamed() -> Any:
    """A data set without an index."""
    return DataLoader(Streamed(), batch_size=4, num_workers=1)


def itself() -> Any:
    """A data set that is its own iterator."""
    return DataLoader(Itself(), batch_size=4, num_workers=1)


def preset() -> Any:
    """The transforms lie inside another object, and the data set inside another one."""
    dataset = Numbers()
    dataset.transform = Preset()
    return DataLoader(Subset(dataset, range(32)), batch_size=4, num_workers=1)


def streamed_batches() -> Any:
    """A data set that makes batches itself, as WebDataset's do."""
    return DataLoader(Streamed(batched=True), batch_size=None, num_workers=1)


def web() -> Any:
    """WebDataset's loader, which batches by itself."""
    from webdataset import WebLoader

    return WebLoader(Streamed(), batch_size=None, num_workers=1).batched(4)


def several() -> Any:
    """A data set that makes several samples at once, as Hugging Face's do."""
    return DataLoader(Several(), batch_size=4, num_workers=1)


def derived() -> Any:
    """A DataLoader of the user's own class."""
    return Derived(Numbers())


def holding() -> Any:
    """The loader that is used is not the last one that is built."""
    held = Holding(no_labels())
    DataLoader(Numbers(), batch_size=8)
    return held


def spawned() -> Any:
    """Workers are spawned, not forked."""
    return DataLoader(Numbers(), batch_size=4, num_workers=1, multiprocessing_context="spawn", timeout=60)


def listed() -> Any:
    """The collate function returns the samples as they are."""
    return DataLoader(Numbers(), batch_size=4, collate_fn=list)


def mixed() -> Any:
    """Batches are dicts of texts, arrays and tensors."""
    return [{"text": ["a", "b", "c", "d"], "mask": np.zeros((4, 9)), "label": torch.zeros(4)}] * 8


def talking() -> Any:
    """The function writes to its output."""
    print("loading " * 1000)
    return no_labels()


ready = no_labels()


def unpicklable() -> Any:
    """Workers that are started cannot get this data set."""
    dataset = Numbers()
    dataset.transform = lambda image: image
    return DataLoader(dataset, batch_size=4, num_workers=1, multiprocessing_context="spawn")


def dropping() -> Any:
    """The only batch is dropped."""
    return DataLoader(Numbers(), batch_size=100, drop_last=True)


def with_arguments(folder: str, size: int = 4, **more: Any) -> Any:
    """The function must be told more."""
    return DataLoader(Numbers(), size)


def pair() -> Any:
    """Two loaders are returned."""
    return no_labels(), no_labels()


def leaving() -> Any:
    """The function ends the process."""
    print("no data found in /data", file=sys.stderr)
    sys.exit(3)


def once() -> Any:
    """One iterator for all calls."""
    return _ONCE


_SAMPLES = 64
_ONCE = iter([torch.zeros(4, 3)] * 4)
