"""Measure laps of each contestant, alternating with laps of the reference.

All laps have the same number of images, so that pytest-benchmark's table, in seconds per lap, ranks the loaders. Saved
by `make perf`; `loaderbench compare` compares the ratios to the reference in two such files.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_benchmark.fixture import BenchmarkFixture

    from loaderbench.campaign.campaign import Campaign
    from tests.perf.lap import Laps

ROUNDS = 15
CORE = ("ffcv-raw-mapped", "ffcv-jpeg-mapped", "litdata-raw", "litdata-jpeg", "imagefolder-256-torchvision")


@pytest.mark.parametrize("name", CORE)
def test_loader(  # noqa: PLR0913, PLR0917 - each is a fixture
    name: str,
    campaign: Campaign,
    laps: Callable[[str], Laps],
    lap_images: int,
    planted: tuple[str, float],
    benchmark: BenchmarkFixture,
) -> None:
    slower = planted[1] if planted[0] == name else 0.0
    reference_images_per_s = []
    with laps(name) as lap, laps(campaign.reference) as reference:

        def reference_first() -> None:
            started = time.perf_counter()
            reference(lap_images)
            reference_images_per_s.append(lap_images / (time.perf_counter() - started))

        def contestant() -> None:
            started = time.perf_counter()
            lap(lap_images)
            time.sleep(slower * (time.perf_counter() - started))

        benchmark.pedantic(contestant, setup=reference_first, rounds=ROUNDS)
        benchmark.extra_info |= {
            "contestant": name,
            "reference": campaign.reference,
            "images_per_lap": lap_images,
            "reference_images_per_s": reference_images_per_s,
        }
