"""Who has delivered more images by when, if one starts sooner and another is faster? Pure arithmetic on raw times."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from loaderbench.records.timeline import Timeline

Certainty = Literal["measured", "extrapolated"]
_NS_PER_S = 1e9


@dataclass(frozen=True)
class Course:
    """What one trial had delivered by when."""

    images: NDArray[np.int64]
    """After each batch, all epochs together."""
    seconds: NDArray[np.float64]
    """When that was, since it began: before its first process was started."""
    epoch_images: int

    @classmethod
    def of(cls, timeline: Timeline, begun_s: float) -> Course:
        """Return the course of a trial of whole epochs. `begun_s`: how long before its first batch was asked for it
        began.
        """
        images = np.cumsum(timeline.images)
        seconds = begun_s + (np.array(timeline.exits_ns) - timeline.asked_ns[0]) / _NS_PER_S
        return cls(images, seconds, int(images[-1]) // len(timeline.epochs))

    def when_s(self, images: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return when so many images had been delivered; between two batches in proportion."""
        return np.interp(images, self.images, self.seconds)

    @property
    def epoch1_end_s(self) -> float:
        """When the first epoch was over."""
        return float(self.when_s(np.array([self.epoch_images]))[0])

    @property
    def later_images_per_s(self) -> float:
        """The speed over all epochs after the first."""
        return float((self.images[-1] - self.epoch_images) / (self.seconds[-1] - self.epoch1_end_s))


@dataclass(frozen=True)
class Overtaking:
    """That one which was behind gets ahead, and stays there until the measured end at least."""

    seconds: float
    images: float
    """That each of the two has delivered by then."""
    epoch: int
    certainty: Certainty
    """`extrapolated`: not within the measured epochs, but at the speeds of those after the first."""
    lasting: bool = True
    """Whether it is not the slower one after the first epoch, and so is not overtaken again later."""


@dataclass(frozen=True)
class Race:
    """Two in one block."""

    first: str
    """Who had the first batch sooner."""
    overtaking: Overtaking | None
    """By the other one. None: that never happens."""


def race(courses: Mapping[str, Course]) -> Race:
    """Tell who of two is ahead first, and when the other overtakes.

    They are compared at equal numbers of images, at each batch of both. What counts is the last time that the one which
    was behind gets ahead; to be ahead for a few batches does not.
    """
    (one, a), (other, b) = courses.items()
    images = np.union1d(a.images, b.images)
    images = images[(images >= max(a.images[0], b.images[0])) & (images <= min(a.images[-1], b.images[-1]))]
    lead_s = b.when_s(images) - a.when_s(images)  # of the first named
    if lead_s[0] < 0:
        return race({other: b, one: a})
    behind = np.flatnonzero(lead_s >= 0)
    last = int(behind[-1])
    if last + 1 < len(images):
        share = lead_s[last] / (lead_s[last] - lead_s[last + 1])
        at = images[last] + share * (images[last + 1] - images[last])
        lasting = b.later_images_per_s >= a.later_images_per_s
        return Race(one, _at(float(at), float(b.when_s(np.array([at]))[0]), b, "measured", lasting=lasting))
    gained_s = 1 / a.later_images_per_s - 1 / b.later_images_per_s  # with each image from here on
    if gained_s <= 0:
        return Race(one, None)
    more = float(lead_s[-1]) / gained_s
    seconds = float(b.when_s(images[-1:])[0]) + more / b.later_images_per_s
    return Race(one, _at(float(images[-1]) + more, seconds, b, "extrapolated"))


def _at(images: float, seconds: float, course: Course, certainty: Certainty, *, lasting: bool = True) -> Overtaking:
    return Overtaking(seconds, images, 1 + int((images - 1) // course.epoch_images), certainty, lasting)


@dataclass(frozen=True)
class Pair:
    """Two over all blocks."""

    first: str
    """Who was ahead first, in most blocks."""
    second: str
    overtaking: Overtaking | None
    """Medians over the blocks in which it happens; `measured` and lasting only if it was in all of them.
    None: in no block."""
    blocks: int
    """In how many blocks the first was ahead first and the second overtook."""
    of_blocks: int
    """In how many both had a course."""


def pairs(blocks: Sequence[Mapping[str, Course]]) -> tuple[Pair, ...]:
    """Return every two contestants that have a course in the same block. `blocks`: courses by contestant."""
    names = list(dict.fromkeys(name for courses in blocks for name in courses))
    found = []
    for two in combinations(names, 2):
        races = [race({name: courses[name] for name in two}) for courses in blocks if courses.keys() >= set(two)]
        if races:
            firsts = [each.first for each in races]
            first, second = sorted(two, key=lambda name: -firsts.count(name))
            overtaken = [each.overtaking for each in races if each.first == first and each.overtaking]
            found.append(Pair(first, second, _median(overtaken), len(overtaken), len(races)))
    return tuple(found)


def _median(found: Sequence[Overtaking]) -> Overtaking | None:
    if not found:
        return None
    seconds, images, epoch = (
        float(np.median([getattr(each, name) for each in found])) for name in ("seconds", "images", "epoch")
    )
    measured = all(each.certainty == "measured" for each in found)
    lasting = all(each.lasting for each in found)
    return Overtaking(seconds, images, round(epoch), "measured" if measured else "extrapolated", lasting)
