"""Crossovers follow from two delivery curves alone."""

from __future__ import annotations

import numpy as np
import pytest

from loaderbench.findings.crossover import Crossover, CrossoverPoint, DeliveryCurve, crossover_in_block, crossovers
from loaderbench.records.timeline import Timeline

EPOCH = 1000


def curve(first_s: float, images_per_s: float, epochs: int = 4) -> DeliveryCurve:
    """Nothing until the first batch of 100 comes, and then a steady speed."""
    images = np.arange(100, epochs * EPOCH + 1, 100)
    return DeliveryCurve(images, first_s + (images - 100) / images_per_s, EPOCH)


SOON, FAST = curve(2.0, 100.0), curve(12.0, 200.0)
CROSSING = CrossoverPoint(seconds=22.0, images=2100.0, epoch=3, certainty="measured")


def close(found: CrossoverPoint | None, expected: CrossoverPoint) -> bool:
    assert found
    assert (found.epoch, found.certainty) == (expected.epoch, expected.certainty)
    return (found.seconds, found.images) == pytest.approx((expected.seconds, expected.images))


@pytest.mark.parametrize("order", [("soon", "fast"), ("fast", "soon")])
def test_the_faster_one_overtakes_the_one_that_began_sooner(order: tuple[str, str]) -> None:
    both = {"soon": SOON, "fast": FAST}
    leader, found = crossover_in_block({name: both[name] for name in order})
    assert leader == "soon"
    assert close(found, CROSSING)


def test_who_begins_sooner_and_is_faster_is_never_overtaken() -> None:
    assert crossover_in_block({"a": curve(2.0, 200.0), "b": curve(12.0, 100.0)}) == ("a", None)
    assert crossover_in_block({"a": curve(2.0, 200.0), "b": curve(12.0, 200.0)}) == ("a", None)


def test_what_lies_behind_the_measured_epochs_is_extrapolated_and_says_so() -> None:
    _, found = crossover_in_block({"soon": curve(2.0, 100.0, epochs=2), "fast": curve(12.0, 200.0, epochs=2)})
    assert close(found, CrossoverPoint(22.0, 2100.0, 3, "extrapolated"))


def test_the_first_epoch_does_not_count_for_the_speed_after_it() -> None:
    """One that fetches in its first epoch is slow there, and that is over."""
    slow_at_first = DeliveryCurve(np.array([100, 1000, 2000]), np.array([1.0, 10.0, 15.0]), EPOCH)
    assert slow_at_first.later_images_per_s == pytest.approx(200.0)
    assert slow_at_first.epoch1_end_s == 10.0


def test_to_be_ahead_for_a_moment_is_not_to_overtake() -> None:
    """Of two that alternate, what counts is the last time."""
    steady = DeliveryCurve(np.array([100, 200, 300, 400]), np.array([1.0, 2.0, 3.0, 4.0]), 200)
    wavering = DeliveryCurve(np.array([100, 200, 300, 400]), np.array([1.5, 1.5, 3.5, 3.5]), 200)
    assert close(crossover_in_block({"a": steady, "b": wavering})[1], CrossoverPoint(3.5, 350.0, 2, "measured"))


def test_one_that_is_slower_after_the_first_epoch_is_ahead_until_the_measured_end_alone() -> None:
    """It has a long first epoch behind it sooner than the other, which is at its end all but there again."""
    images = np.array([100, 1000, 2000])
    slow_at_first = DeliveryCurve(images, np.array([1.0, 20.0, 24.0]), EPOCH)
    steady = DeliveryCurve(images, np.array([2.0, 11.0, 21.0]), EPOCH)
    found = crossover_in_block({"a": slow_at_first, "b": steady})[1]
    assert found
    assert (found.certainty, found.lasting) == ("measured", False)
    [pair] = crossovers([{"a": slow_at_first, "b": steady}])
    assert pair.point
    assert not pair.point.lasting


def test_over_blocks_there_are_medians_and_it_is_said_how_many_blocks_agree() -> None:
    blocks = [
        {"soon": SOON, "fast": FAST},
        {"soon": SOON, "fast": curve(13.0, 200.0)},
        {"soon": SOON, "fast": curve(12.0, 90.0)},
        {"soon": SOON},
    ]
    [pair] = crossovers(blocks)
    assert (pair.first, pair.second, pair.blocks, pair.of_blocks) == ("soon", "fast", 2, 3)
    assert close(pair.point, CrossoverPoint(23.0, 2200.0, 3, "measured"))


def test_one_that_is_extrapolated_in_a_block_is_not_called_measured() -> None:
    short = {"soon": curve(2.0, 100.0, epochs=2), "fast": curve(12.0, 200.0, epochs=2)}
    [pair] = crossovers([{"soon": SOON, "fast": FAST}, short])
    assert close(pair.point, CrossoverPoint(22.0, 2100.0, 3, "extrapolated"))


def test_every_two_are_compared() -> None:
    three = {"a": curve(1.0, 300.0), "b": curve(2.0, 200.0), "c": curve(3.0, 100.0)}
    assert crossovers([three]) == (
        Crossover("a", "b", None, 0, 1),
        Crossover("a", "c", None, 0, 1),
        Crossover("b", "c", None, 0, 1),
    )


def test_a_course_begins_with_what_comes_before_the_first_batch_is_asked_for() -> None:
    timeline = Timeline([10**9, 3 * 10**9], [2 * 10**9, 4 * 10**9], [60, 40], epochs=[0, 1])
    found = DeliveryCurve.of(timeline, begun_s=5.0)
    assert (found.seconds.tolist(), found.images.tolist(), found.epoch_images) == ([6.0, 8.0], [60, 100], 50)
