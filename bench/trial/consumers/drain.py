"""Take batches as fast as possible, and only make sure that each one is really there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from loaderbench.api import Artifact, Loader, Work
from loaderbench.machine.touch import touch
from loaderbench.trial.consumers import Consume
from loaderbench.trial.meter import Meter

if TYPE_CHECKING:
    from torch import Tensor


def prepare(artifact: Artifact, work: Work) -> Consume:  # noqa: ARG001 - other consumers need it
    """Return the consumer, which needs no preparation."""
    return partial(_consume, work)


def _consume(work: Work, loader: Loader, meter: Meter) -> dict[str, Any]:
    with meter.fed_by(loader, work):
        take_all(work, meter)
    return {}


def take_all(work: Work, meter: Meter) -> None:
    """Take batches until the meter is done."""
    take: Callable[[Tensor], None] | None = None
    while not meter.done:
        for images, _ in meter:
            # A batch that the harness copies may be on its way to the GPU while the next is requested: one at the
            # window's opening and one at its close. A loader may reuse the memory of batches that it copied itself.
            take = take or taker(work, behind=int(meter.batch_memory != "device"))
            take(images)


def taker(work: Work, *, behind: int = 0) -> Callable[[Tensor], None]:
    """Return a function that makes sure that a batch is there; on a GPU, that the batch `behind` it is."""
    if work.device == "cpu":
        return touch
    import torch

    return Arrivals(partial(torch.cuda.Event, blocking=True), behind).wait


class Arrivals:
    """Waits for batches that are being copied to a GPU, by events that it passes when they have arrived."""

    def __init__(self, event: Callable[[], Any], behind: int) -> None:
        """`event`: returns a new `torch.cuda.Event`; waiting for it should take no CPU time from the loader."""
        self._event = event
        self._coming: deque[Any] = deque(maxlen=behind + 1)

    def wait(self, _: Tensor) -> None:
        """Note that a batch was delivered, and wait for the one that came `behind` batches earlier."""
        self._coming.append(self._event())
        self._coming[-1].record()
        if len(self._coming) == self._coming.maxlen:
            self._coming[0].synchronize()
