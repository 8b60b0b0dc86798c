"""The pixels that a training on the GPU consumes are those of the source, on every way onto the device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from loaderbench.formats import Prepared
from loaderbench.images import CanonicalImages
from tests.gpu.agreement import by_label, source, wrong_pixels
from tests.gpu.conftest import Task
from tests.gpu.ways import LOADERS, WAYS

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("loader", LOADERS)
def test_training_consumes_the_pixels_of_the_source(loader: str, squares: Prepared, task: Task, tmp_path: Path) -> None:
    ways = [way for way in WAYS if way.loader == loader]
    task("consume", {"ways": [(way, squares.artifacts[way.format]) for way in ways], "folder": tmp_path})
    canonical = CanonicalImages(squares.canonicals["files"])
    wrong = []
    for number, way in enumerate(ways):
        with np.load(tmp_path / f"{number}.npz") as kept:
            consumed, delivered = by_label(kept["arr_0"], kept["arr_1"]), by_label(kept["arr_2"], kept["arr_3"])
        stored = source(canonical, way.format)
        wrong += [(way, said) for said in wrong_pixels(consumed, stored, exact=way.format.endswith("raw"))]
        if way.delivers_on_cpu:
            wrong += [(way, said) for said in wrong_pixels(consumed, dict(delivered), exact=True)]
    assert wrong == []
