"""Has a loader become slower? Laps of each contestant, in turn with laps of the reference.

Saved by `make perf`; `loaderbench compare` holds two such files against each other, by the ratios to the reference.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.perf.lap import Laps

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from loaderbench.campaign.campaign import Campaign
    from loaderbench.formats import Prepared

ROUNDS = 15
CORE = ("ffcv-raw-mapped", "ffcv-jpeg-mapped", "litdata-raw", "litdata-jpeg", "imagefolder-256-torchvision")


@pytest.mark.parametrize("name", CORE)
def test_loader(
    name: str, campaign: Campaign, prepared: Prepared, benchmark: BenchmarkFixture, request: pytest.FixtureRequest
) -> None:
    planted, _, share = request.config.getoption("--plant").partition("=")
    slower = float(share) if planted == name else 0.0
    contestants = {c.name: c for c in campaign.contestants}
    artifacts = {c.name: prepared.artifacts[c.format] for c in campaign.contestants}
    reference_images_per_s = []
    with (
        Laps(contestants[name], artifacts[name], campaign.work_on(artifacts[name].samples, 1)) as lap,
        Laps(
            contestants[campaign.reference],
            artifacts[campaign.reference],
            campaign.work_on(artifacts[campaign.reference].samples, 1),
        ) as reference,
    ):

        def reference_first() -> None:
            started = time.perf_counter()
            reference()
            reference_images_per_s.append(reference.images / (time.perf_counter() - started))

        def contestant() -> None:
            started = time.perf_counter()
            lap()
            time.sleep(slower * (time.perf_counter() - started))

        benchmark.pedantic(contestant, setup=reference_first, rounds=ROUNDS)
        benchmark.extra_info |= {
            "contestant": name,
            "reference": campaign.reference,
            "images_per_lap": lap.images,
            "reference_images_per_s": reference_images_per_s,
        }
