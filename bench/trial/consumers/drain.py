"""Takes batches as fast as they come, and does nothing with them but make sure that they are there."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from loaderbench.machine.touch import touch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from loaderbench.api import Artifact, Loader, Work
    from loaderbench.trial.consumers import Consume
    from loaderbench.trial.meter import Meter


def prepare(artifact: Artifact, work: Work) -> Consume:  # noqa: ARG001 - others need to know
    """Return the consumer, for which nothing has to be made ready."""
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
            # One that the harness copies may be on its way to a GPU while the next is asked for: as many at the
            # window's close as at its opening. A loader may use the memory again of what it copied there itself.
            take = take or taker(work, behind=int(meter.batch_memory != "device"))
            take(images)


def taker(work: Work, *, behind: int = 0) -> Callable[[Tensor], None]:
    """Return what makes sure that a batch is there; on a GPU, that the one is which came so many before it."""
    if work.device == "cpu":
        return touch
    import torch

    return Arrivals(partial(torch.cuda.Event, blocking=True), behind).wait


class Arrivals:
    """Waits for batches that are on their way to a GPU, by events that it passes when they have come."""

    def __init__(self, event: Callable[[], Any], behind: int) -> None:
        """`event`: makes a `torch.cuda.Event`, to wait for which should take no CPU from the loader."""
        self._event = event
        self._coming: deque[Any] = deque(maxlen=behind + 1)

    def wait(self, _: Tensor) -> None:
        """Take note that a batch was handed over, and wait."""
        self._coming.append(self._event())
        self._coming[-1].record()
        if len(self._coming) == self._coming.maxlen:
            self._coming[0].synchronize()
