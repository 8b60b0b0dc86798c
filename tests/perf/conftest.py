"""The options of the performance suite, and its data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from loaderbench.campaign import campaign as config
from loaderbench.formats import prepare
from loaderbench.machine.progress import Display
from tests.perf.lap import Laps

if TYPE_CHECKING:
    from collections.abc import Callable

    from loaderbench.campaign.campaign import Campaign
    from loaderbench.formats import Prepared

SAMPLES = 1024
LAP_S = 1.0
"""About how long the reference, the slowest, takes for a lap: long against a batch, short against a machine's drift."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the suite's own options."""
    group = parser.getgroup("loaderbench")
    group.addoption("--cache", default="data", help="where prepared data is kept")
    group.addoption("--plant", default="", help="CONTESTANT=SHARE: make its laps longer by this share, as a regression")


@pytest.fixture(scope="session")
def campaign() -> Campaign:
    """The default campaign on a small set."""
    return config.load("quick", {"data": {"samples": SAMPLES}})


@pytest.fixture(scope="session")
def planted(campaign: Campaign, request: pytest.FixtureRequest) -> tuple[str, float]:
    """The contestant whose laps are made longer, and the share by which; no contestant by default."""
    name, _, share = request.config.getoption("--plant").partition("=")
    if name not in {"", *(contestant.name for contestant in campaign.contestants)}:
        raise pytest.UsageError(f"--plant: the campaign has no contestant {name}")
    return name, float(share or 0)


@pytest.fixture(scope="session")
def prepared(campaign: Campaign, request: pytest.FixtureRequest) -> Prepared:
    """The small set in every format."""
    return prepare(campaign, None, Path(request.config.getoption("--cache")), Display(), strict=True)


@pytest.fixture(scope="session")
def laps(campaign: Campaign, prepared: Prepared) -> Callable[[str], Laps]:
    """Return a function that starts the laps of a contestant."""
    contestants = {contestant.name: contestant for contestant in campaign.contestants}

    def start(name: str) -> Laps:
        artifact = prepared.artifacts[contestants[name].format]
        return Laps(contestants[name], artifact, campaign.work_on(artifact.samples, 1))

    return start


@pytest.fixture(scope="session")
def lap_images(campaign: Campaign, laps: Callable[[str], Laps]) -> int:
    """The number of images in each lap of every contestant: whole batches, as many as the reference has in `LAP_S`."""
    with laps(campaign.reference) as reference:
        batches = round(reference.images_per_s * LAP_S / campaign.work.batch_size)
    return max(1, batches) * campaign.work.batch_size
