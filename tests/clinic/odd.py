"""Loaders of unusual makes: each works, or gets a clear error."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, SubsetRandomSampler


class Numbers(Dataset[Any]):
    """Small images without labels."""

    def __init__(self) -> None:
        self.transform = torch.nn.Identity()

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
