"""Delivery curves (images over time) and the point at which one contestant's curve crosses another's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from loaderbench.records.timeline import Timeline

Certainty = Literal["measured", "extrapolated"]
_NS_PER_S = 1e9


@dataclass(frozen=True)
class DeliveryCurve:
    """Images that one trial has delivered, over time."""

    images: NDArray[np.int64]
    """Sum after each batch, over all epochs."""
    seconds: NDArray[np.float64]
    """Time of each batch since the trial began, that is, before its first process was started."""
    epoch_images: int

    @classmethod
    def of(cls, timeline: Timeline, begun_s: float) -> DeliveryCurve:
        """Return the curve of a trial that ran complete epochs.

        `begun_s`: seconds from the begin of the trial to the request for its first batch.
        """
        images = np.cumsum(timeline.images)
        seconds = begun_s + (np.array(timeline.exits_ns) - timeline.asked_ns[0]) / _NS_PER_S
        return cls(images, seconds, int(images[-1]) // len(timeline.epochs))

    def when_s(self, images: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return when these numbers of images were delivered; between two batches, by linear interpolation."""
        return np.interp(images, self.images, self.seconds)

    @property
    def epoch1_end_s(self) -> float:
        """End of the first epoch."""
        return float(self.when_s(np.array([self.epoch_images]))[0])

    @property
    def later_images_per_s(self) -> float:
        """Images/s over all epochs after the first."""
        return float((self.images[-1] - self.epoch_images) / (self.seconds[-1] - self.epoch1_end_s))


@dataclass(frozen=True)
class CrossoverPoint:
    """The point at which the contestant behind takes the lead and keeps it, at least until the measurement ends."""

    seconds: float
    images: float
    """Images that both have delivered by then."""
    epoch_images: int
    certainty: Certainty
    """`extrapolated`: beyond the measured epochs, at the speeds after the first epoch."""
    lasting: bool = True
    """Whether the lead lasts: after the first epoch the new leader is at least as fast."""

    @property
    def epoch(self) -> int:
        """The epoch of this image, from 1."""
        return max(1, math.ceil(self.images / self.epoch_images))


@dataclass(frozen=True)
class Crossover:
    """Two contestants over all blocks."""

    first: str
    """The contestant that leads first in most blocks, or in half of them."""
    second: str
    point: CrossoverPoint | None
    """Medians over the blocks with a crossover; `measured` and lasting only if all of them are. None without any."""
    blocks: int
    """Blocks in which `first` leads first and `second` takes the lead; without a point, in which it never does."""
    of_blocks: int
    """Blocks in which both have a curve."""


def crossovers(blocks: Sequence[Mapping[str, DeliveryCurve]]) -> tuple[Crossover, ...]:
    """Return the crossover of every two contestants that share a block. `blocks`: for each, curves by contestant."""
    names = list(dict.fromkeys(name for curves in blocks for name in curves))
    found = []
    for two in combinations(names, 2):
        shared = [{name: curves[name] for name in two} for curves in blocks if curves.keys() >= set(two)]
        if shared:
            leaders, points = zip(*map(crossover_in_block, shared), strict=True)
            first, second = sorted(two, key=lambda name: -leaders.count(name))
            crossed = [point for leader, point in zip(leaders, points, strict=True) if leader == first and point]
            blocks_so = len(crossed) or leaders.count(first)
            found.append(Crossover(first, second, _median(crossed), blocks_so, len(shared)))
    return tuple(found)


def crossover_in_block(curves: Mapping[str, DeliveryCurve]) -> tuple[str, CrossoverPoint | None]:
    """Return which of two contestants leads first, and where the other takes the lead; None if it never does.

    Both are compared at equal numbers of images, at each batch of both. Only the last change of the lead counts, so
    a lead of a few batches does not.
    """
    (one, a), (other, b) = curves.items()
    images = np.union1d(a.images, b.images)
    images = images[(images >= max(a.images[0], b.images[0])) & (images <= min(a.images[-1], b.images[-1]))]
    lead_s = b.when_s(images) - a.when_s(images)  # of `one`
    if lead_s[0] < 0:
        return crossover_in_block({other: b, one: a})
    behind = np.flatnonzero(lead_s >= 0)
    last = int(behind[-1])
    if last + 1 < len(images):
        share = lead_s[last] / (lead_s[last] - lead_s[last + 1])
        at = images[last] + share * (images[last + 1] - images[last])
        lasting = b.later_images_per_s >= a.later_images_per_s
        return one, CrossoverPoint(float(b.when_s(np.array([at]))[0]), float(at), b.epoch_images, "measured", lasting)
    gained_s = 1 / a.later_images_per_s - 1 / b.later_images_per_s  # with each further image
    if gained_s <= 0:
        return one, None
    more = float(lead_s[-1]) / gained_s
    seconds = float(b.when_s(images[-1:])[0]) + more / b.later_images_per_s
    return one, CrossoverPoint(seconds, float(images[-1]) + more, b.epoch_images, "extrapolated")


def _median(points: Sequence[CrossoverPoint]) -> CrossoverPoint | None:
    if not points:
        return None
    seconds, images = (float(np.median([getattr(point, name) for point in points])) for name in ("seconds", "images"))
    measured = all(point.certainty == "measured" for point in points)
    lasting = all(point.lasting for point in points)
    certainty: Certainty = "measured" if measured else "extrapolated"
    return CrossoverPoint(seconds, images, points[0].epoch_images, certainty, lasting)
