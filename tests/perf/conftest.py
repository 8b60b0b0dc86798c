"""The options of the performance suite, and its data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from loaderbench.campaign import campaign as config
from loaderbench.formats import prepare
from loaderbench.machine.progress import Display

if TYPE_CHECKING:
    from loaderbench.campaign.campaign import Campaign
    from loaderbench.formats import Prepared

SAMPLES = 1024


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
def prepared(campaign: Campaign, request: pytest.FixtureRequest) -> Prepared:
    """The small set in every format."""
    return prepare(campaign, None, Path(request.config.getoption("--cache")), Display(), strict=True)
