"""Asks at fixed rates, one after the other, as accelerators would that take so long for a step: how fast a one does the
loader feed? Works without any accelerator, which is emulated by sleeping.
"""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from loaderbench.trial.consumers.drain import taker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from loaderbench.api import Artifact, Loader, Work
    from loaderbench.trial.consumers import Consume
    from loaderbench.trial.meter import Meter

FED = 0.9
"""Utilisation of an accelerator from which it counts as fed."""
_SHARES = (2.0, 1.5, 1.25, 1.15, 1.1, 1.05, 1.0, 0.95, 0.9, 0.75, 0.5, 0.35, 0.25, 0.1)
"""Demands that are tried, of what the loader delivered in the window. From the highest down: what it has prepared ahead
is used up at the first one, and helps none of the others."""
_BUSY = 0.995
_PHASE_S, _PHASE_BATCHES, _SETTLING_BATCHES = 1.5, 16, 8
_PR_SET_TIMERSLACK = 29  # linux/prctl.h


@dataclass(frozen=True)
class Point:
    """What a demand led to."""

    demand_images_per_s: float
    """Images over the time in which the accelerator worked."""
    utilisation: float
    """Share of the time in which the accelerator worked: that of its steps, over that of steps and waits together."""


def prepare(artifact: Artifact, work: Work) -> Consume:  # noqa: ARG001 - others need to know
    """Return the consumer, for which nothing has to be made ready."""
    return partial(_consume, work)


def _consume(work: Work, loader: Loader, meter: Meter) -> dict[str, Any]:
    with meter.fed_by(loader, work):
        return sweep(work, meter)


def sweep(work: Work, meter: Meter) -> dict[str, Any]:
    """Take batches as fast as they come until the window has closed, then at falling demands until it is fed."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)  # to wake up in time
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
    """Take batches for a while as an accelerator would that works on so many images a second.

    What it does is what counts: if it wakes up late, it is a slower one.
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
    """Return the highest demand in images/s at which the accelerator is fed, between points on the line through both.

    None if it is not at any. `points`: by falling demand.
    """
    if points[0].utilisation >= FED:
        return points[0].demand_images_per_s
    for above, below in pairwise(points):
        if below.utilisation >= FED:
            share = (FED - above.utilisation) / (below.utilisation - above.utilisation)
            return above.demand_images_per_s + share * (below.demand_images_per_s - above.demand_images_per_s)
    return None
