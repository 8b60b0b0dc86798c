"""What a campaign asks for besides crops is what every loader delivers: the order, and the type of the values."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from loaderbench.api import Work
from loaderbench.campaign import pixel_values as values
from loaderbench.campaign import registry
from loaderbench.formats.prepare import Prepared

ROOT = Path(__file__).parent.parent
DELIVER = """
import json, sys
import torch
from torchvision.transforms import v2
from loaderbench.campaign import pixel_values as values, registry
from loaderbench.api import Artifact, Work

class Watched(v2.RandomResizedCrop):
    def forward(self, *images):
        crops_tensors.add(isinstance(images[0], torch.Tensor))
        return super().forward(*images)

v2.RandomResizedCrop = Watched
spec = json.load(sys.stdin)
told = []

def off(images, work):
    "How far values lie from those that whole grey levels stand for, in levels."
    levels = 255 * values.unnormalised(images, work)
    return float((levels - levels.round()).abs().max())

for options, changes in spec["options"]:
    crops_tensors = set()
    loader, work = registry.loader(spec["loader"]), Work(**{**spec["work"], **changes})
    with loader.stream(Artifact.from_dict(spec["artifact"]), work, **options) as batches:
        if work.device == "meta":  # where tensors have a form and no content
            forms = {(tuple(images.shape[1:]), str(images.dtype), images.device.type, labels.device.type,
                      images.is_contiguous(memory_format=torch.channels_last)) for images, labels in batches}
            told.append(([], sorted(forms)))
            continue
        epochs = [[(int(n), float(i.min()), float(i.max()), str(i.dtype), off(i[None], work))
                   for images, labels in batches for i, n in zip(images, labels)] for _ in range(2)]
        told.append((epochs, eval(spec["look"])))
print(json.dumps(told))
"""


HALF, NORMALISED = {"dtype": "float16"}, {"dtype": "float16", "normalised": True}


class Case(NamedTuple):
    """Options of a loader with what is asked of it beside the order, and how they are seen in its process."""

    form: str
    loader: str
    options: list[tuple[dict[str, Any], dict[str, Any]]]
    look: str = "None"
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
        "torch.multiprocessing.get_sharing_strategy()",
        ("file_system", "file_descriptor", "file_descriptor", "file_descriptor"),
    ),
    Case(
        "litdata-raw",
        "litdata",
        [
            ({"prefetch_factor": None}, NORMALISED),
            ({"prefetch_factor": None, "tensor_first": True, "sharing": "file_system"}, {}),
        ],
        "[list(crops_tensors), torch.multiprocessing.get_sharing_strategy()]",
        ([[False], "file_descriptor"], [[True], "file_system"]),
        workers=0,  # so that the crops are seen
    ),
    Case(
        "ffcv-raw",
        "ffcv",
        [
            ({"convert": "compiled"}, {}),
            ({"convert": "compiled"}, NORMALISED),
            ({"convert": "torchvision", "os_cache": False}, {"dtype": "bfloat16"}),
            ({"convert": "compiled"}, NORMALISED | {"device": "meta"}),
        ],
        "[type(one).__name__ for one in batches.pipeline_specs['image'].transforms]",
        (
            ["RandomHorizontalFlip", "NormalizeImage", "ToTensor", "ToTorchImage"],
            ["RandomHorizontalFlip", "NormalizeImage", "ToTensor", "ToTorchImage"],
            ["RandomHorizontalFlip", "ToTensor", "ToTorchImage", "ModuleWrapper"],
            [[[3, 32, 32], "torch.float16", "meta", "cpu", True]],
        ),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case.form for case in CASES])
def test_floats_in_the_stored_order(everything: Prepared, case: Case) -> None:
    work = Work(batch_size=16, workers=case.workers, image_size=32, passes=2, seed=0, dtype="float32", shuffle=False)
    spec = {
        "loader": case.loader,
        "artifact": asdict(everything.artifacts[case.form]),
        "work": asdict(work),
        "options": case.options,
        "look": case.look,
    }
    command = [sys.executable, "-c", DELIVER]
    done = subprocess.run(
        command,
        env=os.environ | {"NUMBA_OPT": "0"},
        input=json.dumps(spec),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=600,
    )
    told = json.loads(done.stdout.splitlines()[-1])
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


def test_what_numpy_has_no_type_for_ffcv_says_it_cannot_compile(everything: Prepared) -> None:
    work = Work(batch_size=16, workers=1, image_size=32, passes=1, seed=0, dtype="bfloat16")
    with (
        pytest.raises(NotImplementedError, match='convert = "torchvision"'),
        registry.loader("ffcv").stream(everything.artifacts["ffcv-raw"], work),
    ):
        pass
