"""What a campaign asks for besides crops is what every loader delivers: the order, and the type of the values."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench.api import Work
from bench.prepare import Prepared

ROOT = Path(__file__).parent.parent
DELIVER = """
import json, sys
from bench import registry
from bench.api import Artifact, Work

spec = json.load(sys.stdin)
told = []
for options in spec["options"]:
    loader = registry.loader(spec["loader"])
    with loader.stream(Artifact.from_dict(spec["artifact"]), Work(**spec["work"]), **options) as batches:
        epochs = [[(int(n), float(i.min()), float(i.max()), str(i.dtype)) for images, labels in batches
                   for i, n in zip(images, labels)] for _ in range(2)]
    told.append(epochs)
print(json.dumps(told))
"""


def delivered(
    prepared: Prepared, name: str, loader: str, *options: dict[str, Any], **work: Any
) -> list[list[list[Any]]]:
    """For each of the options two epochs: label, least and largest value and type of every image."""
    spec = {
        "loader": loader,
        "artifact": asdict(prepared.artifacts[name]),
        "work": asdict(Work(batch_size=16, workers=1, image_size=32, passes=2, seed=0, **work)),
        "options": options,
    }
    command = [sys.executable, "-c", DELIVER]
    done = subprocess.run(
        command, input=json.dumps(spec), capture_output=True, text=True, check=True, cwd=ROOT, timeout=90
    )
    told: list[list[list[Any]]] = json.loads(done.stdout.splitlines()[-1])
    return told


IN_ORDER = [0] * 32 + [1] * 32 + [2] * 32
CASES = [
    ("jpeg-files", "imagefolder", [{}, {"decode": "torchvision"}]),
    ("litdata-raw", "litdata", [{}, {"tensor_first": True}]),
    ("litdata-again", "litdata", [{}]),
    ("ffcv-raw", "ffcv", [{"convert": "compiled"}, {"convert": "torchvision", "os_cache": False}]),
]


@pytest.mark.parametrize(("name", "loader", "options"), CASES, ids=[name for name, *_ in CASES])
def test_floats_in_the_stored_order(
    everything: Prepared, name: str, loader: str, options: list[dict[str, Any]]
) -> None:
    for epochs in delivered(everything, name, loader, *options, dtype="float32", shuffle=False):
        for images in epochs:
            labels, least, most, dtypes = zip(*images, strict=True)
            assert list(labels) == IN_ORDER * 2
            assert set(dtypes) == {"torch.float32"}
            assert min(least) >= 0
            assert 0.5 < max(most) <= 1
