"""Crossovers are computed from two delivery curves."""

from __future__ import annotations

import numpy as np
import pytest

from loaderbench.findings.crossover import Crossover, CrossoverPoint, DeliveryCurve, crossover_in_block, crossovers
from loaderbench.records.timeline import Timeline

EPOCH = 1000


def curve(first_s: float, images_per_s: float, epochs: int = 4) -> DeliveryCurve:
    """Return a curve with a first batch of 100 images after `first_s`, and then a steady speed."""
    images = np.arange(100, epochs * EPOCH + 1, 100)
    return DeliveryCurve(images, first_s + (images - 100) / images_per_s, EPOCH)


SOON, FAST = curve(2.0, 100.0), curve(12.0, 200.0)
CROSSING = CrossoverPoint(seconds=22.0, images=2100.0, epoch_images=EPOCH, certainty="measured")


def close(found: CrossoverPoint | None, expected: CrossoverPoint) -> bool:
    assert found
    assert (found.epoch, found.certainty) == (expected.epoch, expected.certainty)
    return (found.seconds, found.images) == pytest.approx((expected.seconds, expected.images))


@pytest.mark.parametrize("order", [("soon", "fast"), ("fast", "soon")])
def test_a_faster_contestant_overtakes_an_earlier_one(order: tuple[str, str]) -> None:
    both = {"soon": SOON, "fast": FAST}
    leader, found = crossover_in_block({name: both[name] for name in order})
    assert leader == "soon"
    assert close(found, CROSSING)


def test_an_earlier_and_faster_contestant_is_never_overtaken() -> None:
    assert crossover_in_block({"a": curve(2.0, 200.0), "b": curve(12.0, 100.0)}) == ("a", None)
    assert crossover_in_block({"a": curve(2.0, 200.0), "b": curve(12.0, 200.0)}) == ("a", None)


def test_a_crossover_after_the_measured_epochs_is_extrapolated() -> None:
    _, found = crossover_in_block({"soon": curve(2.0, 100.0, epochs=2), "fast": curve(12.0, 200.0, epochs=2)})
    assert close(found, CrossoverPoint(22.0, 2100.0, EPOCH, "extrapolated"))


def test_later_speed_excludes_the_first_epoch() -> None:
    """A loader that fetches data in its first epoch is slow only there."""
    slow_at_first = DeliveryCurve(np.array([100, 1000, 2000]), np.array([1.0, 10.0, 15.0]), EPOCH)
    assert slow_at_first.later_images_per_s == pytest.approx(200.0)
    assert slow_at_first.epoch1_end_s == 10.0


def test_only_the_last_change_of_the_lead_is_a_crossover() -> None:
    """The two alternate in the lead."""
    steady = DeliveryCurve(np.array([100, 200, 300, 400]), np.array([1.0, 2.0, 3.0, 4.0]), 200)
    wavering = DeliveryCurve(np.array([100, 200, 300, 400]), np.array([1.5, 1.5, 3.5, 3.5]), 200)
    assert close(crossover_in_block({"a": steady, "b": wavering})[1], CrossoverPoint(3.5, 350.0, 200, "measured"))


def test_a_lead_of_a_contestant_with_slower_later_epochs_is_not_lasting() -> None:
    """One is slower in epoch 1 and faster later; the measured epochs end before it takes the lead."""
    images = np.array([100, 1000, 2000])
    slow_at_first = DeliveryCurve(images, np.array([1.0, 20.0, 24.0]), EPOCH)
    steady = DeliveryCurve(images, np.array([2.0, 11.0, 21.0]), EPOCH)
    found = crossover_in_block({"a": slow_at_first, "b": steady})[1]
    assert found
    assert (found.certainty, found.lasting) == ("measured", False)
    [pair] = crossovers([{"a": slow_at_first, "b": steady}])
    assert pair.point
    assert not pair.point.lasting


def test_crossover_is_the_median_of_the_blocks_that_agree() -> None:
    blocks = [
        {"soon": SOON, "fast": FAST},
        {"soon": SOON, "fast": curve(13.0, 200.0)},
        {"soon": SOON, "fast": curve(12.0, 90.0)},
        {"soon": SOON},
    ]
    [pair] = crossovers(blocks)
    assert (pair.first, pair.second, pair.blocks, pair.of_blocks) == ("soon", "fast", 2, 3)
    assert close(pair.point, CrossoverPoint(23.0, 2200.0, EPOCH, "measured"))


def test_a_crossover_extrapolated_in_one_block_is_not_measured() -> None:
    short = {"soon": curve(2.0, 100.0, epochs=2), "fast": curve(12.0, 200.0, epochs=2)}
    [pair] = crossovers([{"soon": SOON, "fast": FAST}, short])
    assert close(pair.point, CrossoverPoint(22.0, 2100.0, EPOCH, "extrapolated"))


@pytest.mark.parametrize(("images", "epoch"), [(53_204.0, 13), (4096.0, 1), (4096.5, 2), (0.5, 1)])
def test_the_epoch_of_a_crossover_follows_from_its_images(images: float, epoch: int) -> None:
    """Not from the epochs of single blocks: of the 13th and the 14th, the middle was rounded to the 14th."""
    assert CrossoverPoint(1.0, images, 4096, "measured").epoch == epoch


def test_crossovers_compare_every_pair() -> None:
    three = {"a": curve(1.0, 300.0), "b": curve(2.0, 200.0), "c": curve(3.0, 100.0)}
    assert crossovers([three]) == (
        Crossover("a", "b", None, 1, 1),
        Crossover("a", "c", None, 1, 1),
        Crossover("b", "c", None, 1, 1),
    )


def test_delivery_curve_includes_the_time_before_the_first_request() -> None:
    timeline = Timeline([10**9, 3 * 10**9], [2 * 10**9, 4 * 10**9], [60, 40], epochs=[0, 1])
    found = DeliveryCurve.of(timeline, begun_s=5.0)
    assert (found.seconds.tolist(), found.images.tolist(), found.epoch_images) == ([6.0, 8.0], [60, 100], 50)


def test_a_pair_without_crossover_counts_the_blocks_of_its_leader() -> None:
    """The other contestant leads in the third block."""
    ahead, behind = curve(2.0, 200.0), curve(12.0, 100.0)
    blocks = [{"a": ahead, "b": behind}, {"a": ahead, "b": behind}, {"a": behind, "b": ahead}]
    assert crossovers(blocks) == (Crossover("a", "b", None, 2, 3),)
