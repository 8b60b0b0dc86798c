"""The performance suite measures equal work, and `make` refuses what is wrong before it measures."""

from __future__ import annotations

import subprocess
import sys
from itertools import cycle
from pathlib import Path

import pytest

from loaderbench.api import Artifact, Encoding, Work
from loaderbench.campaign.schema import Contestant
from tests.perf import lap
from tests.perf.lap import Laps, totals

ROOT = Path(__file__).parent.parent
LAP = 512


@pytest.mark.parametrize("sizes", [[128], [100, 28], [128, 128, 37], [1]])
def test_laps_of_loaders_with_other_batches_have_equally_many_images(sizes: list[int]) -> None:
    laps = 50
    delivered = list(totals(cycle(sizes), range(LAP, LAP * laps + 1, LAP)))
    assert all(0 <= total - LAP * number < max(sizes) for number, total in enumerate(delivered, 1))


@pytest.mark.slow
def test_a_faster_loader_does_not_get_longer_laps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lap, "WARM_UP_S", 0.2)
    artifact, work = (
        Artifact("any", str(tmp_path), 320, 7, 1, 1, Encoding("jpeg")),
        Work(batch_size=16, workers=1, image_size=32),
    )
    counted = []
    for options in ({"images_per_s": 4000.0}, {}):
        with Laps(
            Contestant(name="p", title="p", loader="pace", format="any", options=options), artifact, work
        ) as laps:
            before = laps.images
            for _ in range(3):
                laps(LAP)
            counted.append(laps.images - before)
    assert counted == [3 * LAP, 3 * LAP]


def make(*words: str) -> subprocess.CompletedProcess[str]:
    """Run make, with the environment that these tests run in."""
    own = [f"BIN={Path(sys.executable).parent}", "SETUP=@true"]
    return subprocess.run(["make", *words, *own], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)


def test_make_perf_refuses_a_missing_baseline_before_it_measures() -> None:
    done = make("perf", "BASELINE=missing.json")
    assert done.returncode != 0
    assert "missing.json cannot be read" in done.stderr
    assert "pytest" not in done.stdout


def test_make_bench_refuses_no_workers() -> None:
    done = make("bench", "BENCH_ARGS=--workers 0")
    assert done.returncode != 0
    assert "Invalid value for '--workers'" in done.stderr
