"""Emulate accelerators of falling speed, by sleeping, to find the fastest one that the loader keeps 90 % busy."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from loaderbench.api import Artifact, Loader, Work
from loaderbench.trial.consumers import Consume
from loaderbench.trial.consumers.drain import taker
from loaderbench.trial.meter import Meter

if TYPE_CHECKING:
    from torch import Tensor

FED = 0.9
"""Utilisation from which an accelerator counts as busy enough."""
_SHARES = (2.0, 1.5, 1.25, 1.15, 1.1, 1.05, 1.0, 0.95, 0.9, 0.75, 0.5, 0.35, 0.25, 0.1)
"""Demands, as multiples of the window's throughput, from the highest down: prefetched batches are used up at the first
one and help no other."""
_BUSY = 0.995
"""Utilisation from which lower demands tell nothing new."""
_PHASE_S, _PHASE_BATCHES, _SETTLING_BATCHES = 1.5, 16, 8
_PR_SET_TIMERSLACK = 29  # linux/prctl.h


@dataclass(frozen=True)
class Point:
    """The outcome of one demand."""

    demand_images_per_s: float
    """Images over the time that the accelerator worked."""
    utilisation: float
    """Share of the time that the accelerator worked: the time of its steps, over the time of steps and waits."""


def prepare(artifact: Artifact, work: Work) -> Consume:  # noqa: ARG001 - other consumers need it
    """Return the consumer, which needs no preparation."""
    return partial(_consume, work)


def _consume(work: Work, loader: Loader, meter: Meter) -> dict[str, Any]:
    with meter.fed_by(loader, work):
        return sweep(work, meter)


def sweep(work: Work, meter: Meter) -> dict[str, Any]:
    """Take batches as fast as possible until the window is closed, then at falling demands until one is met."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)  # wakes up in time
    meter.wanted, take = True, taker(work)
    batches = _endless(meter)
    while meter.timeline.closed is None:
        take(next(batches)[0])
    delivered = meter.timeline.columns()["images_per_s"]
    assert delivered
    points: list[Point] = []
    for share in _SHARES:
        points.append(_at(share * delivered, batches, meter, take))
        if sum(point.utilisation >= _BUSY for point in points) > 1:
            break
    return {
        "fed_images_per_s": fed(points),
        "demand_curve": "; ".join(f"{p.demand_images_per_s:.0f} {100 * p.utilisation:.1f}" for p in points),
    }


def _endless(meter: Meter) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from meter


def _at(
    demand_images_per_s: float,
    batches: Iterator[tuple[Tensor, Tensor]],
    meter: Meter,
    take: Callable[[Tensor], None],
) -> Point:
    """Take batches for a while like an accelerator that processes that many images/s.

    Its real speed is what counts: if it wakes up late, it is a slower accelerator.
    """
    times = meter.timeline
    images_taken, waited_s, begun_s = 0, 0.0, time.perf_counter()
    taken = -_SETTLING_BATCHES
    while taken < _PHASE_BATCHES or time.perf_counter() - begun_s < _PHASE_S:
        if taken == 0:
            images_taken, waited_s, begun_s = 0, 0.0, time.perf_counter()
        images, _ = next(batches)
        take(images)
        taken += 1
        images_taken += len(images)
        waited_s += (times.exits_ns[-1] - times.asked_ns[-1]) / 1e9
        step_s = len(images) / demand_images_per_s
        time.sleep(max(0.0, times.exits_ns[-1] / 1e9 + step_s - time.perf_counter()))
    worked_s = time.perf_counter() - begun_s - waited_s
    return Point(images_taken / worked_s, worked_s / (worked_s + waited_s))


def fed(points: Sequence[Point]) -> float | None:
    """Return the highest demand in images/s at which the accelerator is 90 % busy, interpolated between points.

    None if it is not at any of them. `points`: by falling demand.
    """
    if points[0].utilisation >= FED:
        return points[0].demand_images_per_s
    for above, below in pairwise(points):
        if below.utilisation >= FED:
            share = (FED - above.utilisation) / (below.utilisation - above.utilisation)
            return above.demand_images_per_s + share * (below.demand_images_per_s - above.demand_images_per_s)
    return None
