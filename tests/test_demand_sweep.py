"""The demand sweep finds the highest demand that a loader of known speed meets, on a simulated clock."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
import torch

from loaderbench.api import Artifact, Encoding, Work
from loaderbench.findings.findings import shown
from loaderbench.machine.gpu import Gpu
from loaderbench.trial import meter as meters
from loaderbench.trial.consumers import demand_sweep
from loaderbench.trial.meter import Meter
from loaderbench.trial.spec import Window

if TYPE_CHECKING:
    from collections.abc import Iterator


ARTIFACT = Artifact("f", "/nowhere", 4096, 0, 1, 1, Encoding("jpeg"), classes=10)
WORK = Work(batch_size=16, workers=1, image_size=8, dtype="uint8", passes=1, seed=0)


class Prefetching:
    """A simulated clock, and a loader that makes batches at a fixed rate of that clock and prefetches some."""

    def __init__(self, images_per_s: float, ahead: int = 4) -> None:
        self.interval_ns = round(1e9 * WORK.batch_size / images_per_s)
        self.ns = self.made_ns = 0
        self.taken_ns = deque([0] * ahead, ahead)

    def perf_counter(self) -> float:
        return self.ns / 1e9

    def sleep(self, seconds: float) -> None:
        self.ns += round(1e9 * seconds)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        images = torch.zeros(WORK.batch_size, 3, 8, 8, dtype=torch.uint8)
        labels = torch.zeros(WORK.batch_size, dtype=torch.int64)
        for _ in range(ARTIFACT.samples // WORK.batch_size):
            self.made_ns = max(self.made_ns, self.taken_ns[0]) + self.interval_ns
            self.ns = max(self.ns, self.made_ns)
            self.taken_ns.append(self.ns)
            yield images, labels


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The columns of the demand sweep for a loader of 1,000 images/s."""
    loader = Prefetching(1000)
    monkeypatch.setattr(meters, "perf_counter_ns", lambda: loader.ns)
    monkeypatch.setattr(demand_sweep, "time", loader)
    return demand_sweep.sweep(WORK, Meter(loader, ARTIFACT, WORK, Window(0.3, 0.5, 8, None, whole_epoch_s=0), Gpu()))


def test_sweep_finds_the_highest_demand_that_a_loader_meets(swept: dict[str, Any]) -> None:
    assert swept["fed_images_per_s"] == pytest.approx(1000 / demand_sweep.FED, rel=0.01)


def test_busy_time_falls_as_predicted_when_demand_exceeds_the_loader(swept: dict[str, Any]) -> None:
    points = [tuple(map(float, point.split())) for point in swept["demand_curve"].split("; ")]
    assert len(points) > 5
    for demand, busy_pct in points:
        assert busy_pct == pytest.approx(100 * min(1, 1000 / demand), rel=0.01), shown(demand)


def test_sweep_interpolates_the_demand_between_two_points() -> None:
    points = [demand_sweep.Point(2000, 0.5), demand_sweep.Point(1200, 0.8), demand_sweep.Point(1000, 1.0)]
    assert demand_sweep.fed(points) == pytest.approx(1100)
    assert demand_sweep.fed(points[:2]) is None
    assert demand_sweep.fed(points[2:]) == 1000
