"""Take batches from a loader of any make, epoch after epoch."""

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


def deliveries(loader: Any, make: Make) -> Iterator[Delivery]:
    """Yield batches, epoch after epoch. Raises TargetError if an epoch has none."""
    begun, epochs = time.perf_counter(), 0
    while True:
        first = True
        for batch in loader:
            yield Delivery(batch, time.perf_counter() - begun, first)
            begun, first = time.perf_counter(), False
        if first and epochs:
            raise TargetError("the loader has one epoch only; name a function that makes it again for each epoch")
        if first:
            raise TargetError(f"the loader ended without a batch{_too_few(loader)}")
        epochs += 1
        if isinstance(loader, Iterator):
            loader = _again(loader, make)


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
