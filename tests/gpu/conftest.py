"""Skip all tests here without a GPU, and prepare images whose every pixel is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from loaderbench.formats import Prepared, prepare
from loaderbench.machine import process
from loaderbench.machine.progress import Display
from tests.campaigns import campaign
from tests.gpu.ways import FORMATS, SIDE

ROOT = Path(__file__).parents[2]
IMAGES = 48
Task = Callable[[str, Any], dict[str, Any]]
"""The type of the fixture `task`."""


@pytest.fixture(scope="session", autouse=True)
def _gpu() -> None:
    """First of all fixtures, so that nothing is prepared for tests that are skipped."""
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    """Return a function that runs a task of `tests.gpu.tasks` in a process of its own, as trials are run."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=":")

    def run(name: str, spec: Any) -> dict[str, Any]:
        log = tmp_path / "log"
        report = process.run_child(f"tests.gpu.tasks.{name}", spec, log, 120)
        assert report["status"] == "ok", f"{report['reason']}\n{log.read_text() if log.exists() else ''}"
        return report

    return run


def grow(root: Path) -> None:
    """Make an ImageFolder tree of square images, each in a class of its own, which is its name in a batch."""
    random = np.random.default_rng(0)
    for label in range(IMAGES):
        folder = root / f"class{label:02}"
        folder.mkdir(parents=True)
        coarse = random.integers(0, 255, (6, 6, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "only.png"), cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC))


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Square images of the size that is delivered, in all formats: validation shows them as they are stored."""
    folder = tmp_path_factory.mktemp("squares")
    grow(folder / "tree")
    chosen = campaign({"a": {"loader": "imagefolder", "format": "files"}}, FORMATS)
    return prepare(chosen, folder / "tree", folder / "cache", Display(), strict=True)
