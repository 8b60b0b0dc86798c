"""Watch a loader inside a running training, at next to no cost, and say how much of it waits for data."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from loaderbench.machine.cores import core_count
from loaderbench.machine.counters import processes, tree_seconds

_WAITS = 0.05
"""Share of the training time from which waiting is worth a cure."""
_BUSY = 0.85
"""Share of the cores from which they count as busy."""
_END = object()


@dataclass
class Watch:
    """What was seen so far. Times are in seconds."""

    batches: int = 0
    epochs: int = 0
    first_waits_s: float = 0.0
    """Waiting for the first batch of each epoch, and for the workers to start."""
    waits_s: float = 0.0
    """Waiting for all other batches."""
    steps_s: float = 0.0
    """Between having a batch and asking for the next one: the training step."""
    wall_s: float = 0.0
    cpu_s: float = 0.0
    """CPU time of this process and of those that it started."""

    @property
    def waiting(self) -> float:
        """Return the share of the time spent waiting for data, 0 to 1; 0 before the first batch."""
        total_s = self.first_waits_s + self.waits_s + self.steps_s
        return (self.first_waits_s + self.waits_s) / total_s if total_s else 0.0

    def verdict(self) -> str:
        """Return in words what bounds the training."""
        if not self.batches:
            return "loaderbench: no batch was taken from the loader."
        seen = (
            f"loaderbench: {self.waiting:.0%} of the training time waits for data "
            f"({self.batches} batches, {self.epochs} epochs: {self.first_waits_s:,.1f} s for first batches, "
            f"{self.waits_s / self.batches * 1000:,.1f} ms for each other one, a step takes "
            f"{self.steps_s / self.batches * 1000:,.1f} ms)."
        )
        if self.waiting < _WAITS:
            return f"{seen} The model bounds it, not the data."
        if self.first_waits_s > self.waits_s:
            return f"{seen} The start of each epoch costs most: try persistent_workers=True."
        if self.cpu_s > _BUSY * core_count() * self.wall_s:
            return f"{seen} All {core_count()} cores are busy: the loader needs less work per image, or more cores."
        return f"{seen} Cores are idle. `loaderbench doctor module:function` finds what the workers wait for."


@contextmanager
def watch(loader: Any, say: Callable[[str], None] | None = None) -> Iterator[Watch]:
    """Watch each iteration over `loader` inside the block, and say at its end what bounds the training.

    `loader`: any object of a class written in Python, for example a torch DataLoader. It stays as it is; its class is
    replaced by a subclass until the block ends. `say`: receives the verdict; by default, standard error does.

    Raises TypeError for a loader whose class cannot be replaced, such as a generator.
    """
    seen, kind = Watch(), type(loader)

    def watched(of: Any) -> Iterator[Any]:
        asked = time.perf_counter()
        batches = kind.__iter__(of)
        seen.first_waits_s += time.perf_counter() - asked
        return _batches(batches, seen)

    try:
        object.__setattr__(loader, "__class__", type(kind.__name__, (kind,), {"__iter__": watched}))
    except TypeError as error:
        raise TypeError(f"a loader of type {kind.__name__} cannot be watched; wrap it in a class of yours") from error
    begun, cpu_s = time.perf_counter(), tree_seconds(processes())
    try:
        yield seen
    finally:
        object.__setattr__(loader, "__class__", kind)
        seen.wall_s, seen.cpu_s = time.perf_counter() - begun, tree_seconds(processes()) - cpu_s
        (say or (lambda text: sys.stderr.write(f"{text}\n")))(seen.verdict())


def _batches(batches: Iterator[Any], seen: Watch) -> Iterator[Any]:
    seen.epochs += 1
    asked, first = time.perf_counter(), True
    while (batch := next(batches, _END)) is not _END:  # a loop over them would call the watched class again
        had = time.perf_counter()
        if first:
            seen.first_waits_s += had - asked
        else:
            seen.waits_s += had - asked
        first = False
        seen.batches += 1
        yield batch
        asked = time.perf_counter()
        seen.steps_s += asked - had
