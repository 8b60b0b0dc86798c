"""The examples learn: after training, a network classifies unseen images far better than by chance."""

from __future__ import annotations

import colorsys
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaderbench.campaign import campaign as config
from loaderbench.formats import prepare
from loaderbench.images import synthetic
from loaderbench.machine.progress import Display
from tests.archives import python2_pickle, tar
from tests.campaigns import campaign

pytestmark = pytest.mark.usefixtures("forked")

ROOT = Path(__file__).parent.parent


def prepared(data: Path, form: dict[str, Any], folder: Path) -> Path:
    """The folder of the images in a format, as `loaderbench prepare` names it."""
    chosen = campaign({"a": {"loader": form["writer"]}}, {"one": form})
    return Path(prepare(chosen, data, folder / "cache", Display(), strict=True).artifacts["one"].path).parent


def accuracy(example: str, train: Path, val: Path, options: dict[str, object]) -> float:
    """Run an example and return the validation accuracy that it prints last."""
    given = [f"--{name}={value}" for name, value in {**options, "workers": 1}.items()]
    command = [sys.executable, ROOT / "examples" / example, train, val, *given]
    env = os.environ | {"PYTHONPATH": str(ROOT), "NUMBA_OPT": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stderr
    return float(re.findall(r"validation accuracy (\S+)", done.stdout)[-1])


def cifar10(folder: Path, seed: int, images: int) -> Path:
    """An archive laid out like CIFAR-10, with noisy images whose hue is their class."""
    random = np.random.default_rng(seed)
    labels = np.arange(images) % 10
    random.shuffle(labels)
    colours = np.array([colorsys.hsv_to_rgb(label / 10, 0.4, 0.7) for label in labels])
    light = random.uniform(0.6, 1.2, (images, 1, 8, 8)).repeat(4, 2).repeat(4, 3)
    pixels = 255 * colours[:, :, None, None] * light + random.normal(0, 20, (images, 3, 32, 32))
    rows = np.clip(pixels, 0, 255).astype(np.uint8).reshape(images, 3072)
    parts = zip(np.array_split(rows, 5), np.array_split(labels, 5), strict=True)
    batches = {
        f"data_batch_{number}": {b"data": data, b"labels": names.tolist()}
        for number, (data, names) in enumerate(parts, 1)
    }
    entries = [(f"cifar-10-batches-py/{name}", python2_pickle(batch)) for name, batch in batches.items()]
    folder.mkdir()
    return tar(folder / "cifar-10-python.tar.gz", entries, "w:gz")


@pytest.mark.slow
@pytest.mark.parametrize(("example", "loader"), [("train_plain.py", "litdata"), ("train_lightning.py", "ffcv")])
def test_examples_learn_cifar(example: str, loader: str, tmp_path: Path) -> None:
    form = {"writer": loader, "mode": "raw"}
    train, val = (
        prepared(cifar10(tmp_path / str(seed), seed, images), form, tmp_path) for seed, images in ((0, 500), (1, 200))
    )
    options = {"loader": loader, "epochs": 3, "image-size": 32, "batch-size": 32}
    assert accuracy(example, train, val, options) > 0.3, "by chance: 0.1"


@pytest.mark.slow
def test_plain_example_learns_the_synthetic_images(tmp_path: Path) -> None:
    sets = []
    for seed, images in ((0, 320), (config.load(str(ROOT / "examples" / "validation.toml")).data.seed, 160)):
        synthetic.write(tmp_path / str(seed), images, seed, lambda _: None)
        sets.append(prepared(tmp_path / str(seed), {"writer": "imagefolder", "mode": "jpeg"}, tmp_path))
    options = {"loader": "imagefolder", "epochs": 6, "image-size": 32, "batch-size": 16}
    assert accuracy("train_plain.py", *sets, options) > 0.2, "by chance: 0.06"
