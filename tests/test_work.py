"""Every loader delivers the requested order, dtype and normalisation."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from loaderbench.api import Work
from loaderbench.campaign import pixel_values as values
from loaderbench.campaign import registry
from loaderbench.formats import Prepared
from loaderbench.machine import process

pytestmark = pytest.mark.usefixtures("forked")

HALF, NORMALISED = {"dtype": "float16"}, {"dtype": "float16", "normalised": True}


class Case(NamedTuple):
    """A loader's options with changes of the work, and what its process must show."""

    form: str
    loader: str
    options: list[tuple[dict[str, Any], dict[str, Any]]]
    look: str = ""
    seen: tuple[Any, ...] = (None,)
    workers: int = 1


CASES = [
    Case(
        "jpeg-files",
        "imagefolder",
        [
            ({"sharing": "file_system"}, {}),
            ({}, HALF),
            ({}, NORMALISED),
            ({}, {"dtype": "bfloat16", "normalised": True}),
        ],
        "sharing",
        ("file_system", "file_descriptor", "file_descriptor", "file_descriptor"),
    ),
    Case(
        "litdata-raw",
        "litdata",
        [
            ({"prefetch_factor": None}, NORMALISED),
            ({"prefetch_factor": None, "tensor_first": True, "sharing": "file_system"}, {}),
        ],
        "crops",
        ([[False], "file_descriptor"], [[True], "file_system"]),
        workers=0,  # so that the crops are seen
    ),
    Case(
        "ffcv-raw",
        "ffcv",
        [({"convert": "compiled"}, NORMALISED)],
        "transforms",
        (["RandomHorizontalFlip", "NormalizeImage", "ToTensor", "ToTorchImage"],),
    ),
]
DEAR = Case(
    "ffcv-raw",
    "ffcv",
    [
        ({"convert": "compiled"}, {}),
        ({"convert": "torchvision", "os_cache": False}, {"dtype": "bfloat16"}),
        ({"convert": "compiled"}, NORMALISED | {"device": "meta"}),
    ],
    "transforms",
    (
        ["RandomHorizontalFlip", "NormalizeImage", "ToTensor", "ToTorchImage"],
        ["RandomHorizontalFlip", "ToTensor", "ToTorchImage", "ModuleWrapper"],
        [[[3, 32, 32], "torch.float16", "meta", "cpu", True]],
    ),
)
"""FFCV compiles each of these pipelines, which takes seconds."""


@pytest.mark.parametrize(
    "case",
    [*(pytest.param(case, id=case.form) for case in CASES), pytest.param(DEAR, id="ffcv", marks=pytest.mark.slow)],
)
def test_loaders_deliver_floats_in_the_stored_order(everything: Prepared, case: Case, tmp_path: Path) -> None:
    work = Work(batch_size=16, workers=case.workers, image_size=32, passes=2, seed=0, dtype="float32", shuffle=False)
    spec = {
        "loader": case.loader,
        "artifact": asdict(everything.artifacts[case.form]),
        "work": asdict(work),
        "options": case.options,
        "look": case.look,
    }
    result = process.run_child("tests.delivering.run", {**spec, "told": str(tmp_path / "told")}, tmp_path / "log", 600)
    assert result["status"] == "ok", (tmp_path / "log").read_text()
    told = json.loads((tmp_path / "told").read_text())
    assert [seen for _, seen in told] == list(case.seen)
    every_epoch = [epoch for epochs, _ in told for epoch in epochs]
    orders = [[label for label, *_ in images] for images in every_epoch]
    assert all(order == orders[0] for order in orders)
    stored = [0] * 32 + [1] * 32 + [2] * 32
    assert orders[0] == stored * 2 or (case.loader == "litdata" and sorted(orders[0]) == sorted(stored * 2))
    for (epochs, _), (_, changes) in zip(told, case.options, strict=True):
        asked = replace(work, **changes)
        low, high = values.span(asked)
        for images in epochs:
            _, least, most, dtypes, off = zip(*images, strict=True)
            assert set(dtypes) == {f"torch.{asked.dtype}"}
            assert low <= min(least) < (-1 if asked.normalised else 0.5)
            assert (1 if asked.normalised else 0.5) < max(most) <= high
            assert asked.dtype == "float32" or max(off) < 255 * values.rounding(asked)


def test_ffcv_refuses_to_compile_a_dtype_that_numpy_lacks(everything: Prepared) -> None:
    work = Work(batch_size=16, workers=1, image_size=32, passes=1, seed=0, dtype="bfloat16")
    with (
        pytest.raises(NotImplementedError, match='convert = "torchvision"'),
        registry.loader("ffcv").stream(everything.artifacts["ffcv-raw"], work),
    ):
        pass
