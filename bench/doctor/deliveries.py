"""Take batches from a loader of any make, epoch after epoch."""

import inspect
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from loaderbench.doctor.changes import is_torch
from loaderbench.doctor.targets import Make, TargetError, opened


@dataclass(frozen=True)
class Delivery:
    """One batch, and how long it took from asking for it to having it."""

    batch: Any
    wait_s: float
    first: bool
    """Whether it is the first one of its epoch."""
    last_epoch: int
    """Number of batches of the epoch before; 0 in the first one."""


def deliveries(loader: Any, make: Make) -> Iterator[Delivery]:
    """Yield batches, epoch after epoch. Raises TargetError if an epoch has none."""
    begun, last_epoch = time.perf_counter(), 0
    while True:
        batches = 0
        for batch in loader:
            yield Delivery(batch, time.perf_counter() - begun, batches == 0, last_epoch)
            begun, batches = time.perf_counter(), batches + 1
        if not batches and last_epoch:
            raise TargetError("the loader has one epoch only; name a function that makes it again for each epoch")
        if not batches:
            raise TargetError(f"the loader ended without a batch{_too_few(loader)}")
        last_epoch = batches
        if isinstance(loader, Iterator):
            loader = _again(loader, make)


def by_workers(loader: Any, make: Make, workers: int) -> Any:
    """Return a DataLoader in which each worker process iterates over `loader`, so that they do all of its work."""
    from torch.utils.data import DataLoader, IterableDataset

    class Batches(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return (delivery.batch for delivery in deliveries(loader, make))

    outer: Any = DataLoader.__new__(DataLoader)
    build = inspect.unwrap(DataLoader.__init__)  # without the change, which is for the loaders of the user's code
    build(outer, Batches(), batch_size=None, num_workers=workers, multiprocessing_context="fork")
    return outer


def _again(ended: Any, make: Make) -> Any:
    """Return the iterator of the next epoch. One with a method `reset`, as DALI has, starts again itself."""
    if not hasattr(ended, "reset"):
        return opened(make)
    ended.reset()
    return ended


def _too_few(loader: Any) -> str:
    """Return a clause on a loader that drops its only batch."""
    if not is_torch(loader) or not loader.drop_last or not hasattr(loader.dataset, "__len__"):
        return ""
    return f": drop_last=True drops its only one, of {len(loader.dataset)} samples instead of {loader.batch_size}"
