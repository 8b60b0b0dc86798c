"""Measure the memory and CPU time that 1,281,167 images take before any of them is decoded, and in a report.

    python -m tests.perf.imagenet_names [IMAGES]

The images are hard links to one small JPEG per class. Each step runs in a process of its own.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from loaderbench.campaign import campaign as config
from loaderbench.campaign import forecast, plan
from loaderbench.campaign.schema import Data
from loaderbench.formats import estimate
from loaderbench.images import find
from loaderbench.machine.progress import Display
from loaderbench.report import report
from tests import fabricate

IMAGES, CLASSES = 1_281_167, 1000
_KIB_PER_MIB = 1024


def main() -> None:
    """Print CPU-seconds and peak memory of each step."""
    images = int(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    campaign = config.load("quick").model_copy(update={"data": Data(samples=None)})
    with tempfile.TemporaryDirectory(dir=".") as name:
        tree, cache, results = Path(name, "tree"), Path(name, "cache"), Path(name, "results")
        cache.mkdir()
        _grow(tree, images)
        _measured("scan", lambda: print(f"{len(find(tree, campaign.data, cache, Display()).paths):,} images"))
        _measured("plan and forecast", lambda: print(_planned(campaign, images)))
        _measured("estimate", lambda: print("\n".join(estimate(campaign, tree, cache, Display()).lines())))
        _fabricated(results, images)
        _measured("report", lambda: print(report.write(results, Path(name, "report"))))


def _grow(tree: Path, images: int) -> None:
    generator = np.random.default_rng(0)
    for number in range(CLASSES):
        folder = tree / f"n{number:08d}"
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / "n_0.JPEG"), generator.integers(0, 256, (32, 32, 3), np.uint8))
        for image in range(1, len(range(number, images, CLASSES))):
            os.link(folder / "n_0.JPEG", folder / f"n_{image}.JPEG")


def _planned(campaign: config.Campaign, images: int) -> str:
    trials = [trial for block in range(1, campaign.timing.blocks + 1) for trial in plan.trials(campaign, block)]
    return f"{len(trials)} trials, about {forecast.whole_s(campaign, images) / 60:.0f} minutes"


def _fabricated(results: Path, images: int) -> None:
    """Make up a campaign in which every image is unreadable. No report has to count more."""
    folder = fabricate.campaign(results, fabricate.finished(blocks=3), blocks=3)
    described = json.loads((folder / "env.json").read_text())
    described["data"] |= {"samples": images, "classes": CLASSES, "found": images, "unreadable": images}
    (folder / "env.json").write_text(json.dumps(described))
    with (folder / "unreadable.csv").open("w") as file:
        file.write("path,reason\n")
        file.writelines(f"n{n % CLASSES:08d}/n_{n // CLASSES}.JPEG,it is cut off\n" for n in range(images))


def _measured(what: str, step: Callable[[], Any]) -> None:
    """Run a step in a process of its own, and print what it and its children took."""
    sys.stdout.flush()
    if not (child := os.fork()):
        step()
        sys.stdout.flush()
        os._exit(0)
    _, status, used = os.wait4(child, 0)
    assert not status, f"{what} failed"
    print(f"{what}: {used.ru_utime + used.ru_stime:.1f} CPU-s, {used.ru_maxrss / _KIB_PER_MIB:.0f} MiB at most")


if __name__ == "__main__":
    main()
