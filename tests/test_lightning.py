"""The DataModule serves the Trainer of either Lightning package, in all that it does, and in spawned processes."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from loaderbench.api import Work
from loaderbench.formats import Prepared
from loaderbench.loaders.lightning import DataModule
from loaderbench.loaders.lightning.datamodule import bases
from tests.conftest import CLASSES, PER_CLASS

EACH = Counter(dict.fromkeys(range(CLASSES), PER_CLASS))
"""Images of each class in an epoch."""
PACKAGES = ("lightning", "pytorch_lightning")


def noting(package: str) -> Any:
    """A module of that package that counts the labels that it gets, by what it does with them."""

    class Noting(importlib.import_module(package).LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 1)
            self.seen = {use: Counter[int]() for use in ("train", "val", "test", "predict")}

        def note(self, use: str, batch: Any) -> torch.Tensor:
            self.seen[use].update(batch[1].tolist())
            return self.layer(batch[0].float().mean((2, 3))).square().mean()

        def training_step(self, batch, _):
            return self.note("train", batch)

        def validation_step(self, batch, _):
            self.note("val", batch)

        def test_step(self, batch):
            self.note("test", batch)

        def predict_step(self, batch, _):
            return self.note("predict", batch)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.001)

    return Noting()


def trainer(package: str, **more: Any) -> Any:
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    given = {"accelerator": "cpu", "max_epochs": 1, "num_sanity_val_steps": 0, **dict.fromkeys(quiet, False), **more}
    return importlib.import_module(package).Trainer(**given)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_trainer_of_either_package_fits_validates_tests_and_predicts(package: str, everything: Prepared) -> None:
    artifact, model = everything.artifacts["jpeg-files"], noting(package)
    every = dict.fromkeys(("train", "val", "test", "predict"), artifact)
    data = DataModule("imagefolder", Work(batch_size=16, workers=1, image_size=32), **every)
    trainer(package).fit(model, data)
    trainer(package).test(model, data, verbose=False)
    trainer(package).predict(model, data)
    assert model.seen == dict.fromkeys(every, EACH)
    only_train = DataModule("imagefolder", Work(batch_size=16, workers=1, image_size=32), train=artifact)
    for use, run in (("val", "validate"), ("test", "test"), ("predict", "predict")):
        with pytest.raises(ValueError, match=f"no format for {use}: give DataModule {use}=, a folder"):
            getattr(trainer(package), run)(model, only_train)


def test_one_of_the_two_packages_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = [base.__module__.split(".")[0] for base in bases()]
    assert modules == [*PACKAGES]
    for absent, present in (PACKAGES, PACKAGES[::-1]):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, absent, None)
            assert [base.__module__.split(".")[0] for base in bases()] == [present]
    for package in PACKAGES:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match="lightning"):
        bases()


def test_a_pickled_datamodule_delivers_the_same(everything: Prepared) -> None:
    work = Work(batch_size=16, workers=1, image_size=32)
    data = DataModule("imagefolder", work, train=everything.artifacts["jpeg-files"], decode="torchvision")
    orders = []
    for each in (data, pickle.loads(pickle.dumps(data))):  # noqa: S301 - our own
        orders.append([labels.tolist() for _, labels in each.train_dataloader()])
        with pytest.raises(RuntimeError, match="a DataModule cannot be pickled while it streams: train"):
            pickle.dumps(each)
        each.teardown("fit")
    assert orders[0] == orders[1]


@pytest.mark.parametrize(("loader", "form"), [("imagefolder", "jpeg-files"), ("litdata", "litdata-jpeg")])
def test_workers_deliver_where_processes_are_spawned_by_default(loader: str, form: str, everything: Prepared) -> None:
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)  # as in a rank that is spawned
    try:
        data = DataModule(loader, Work(batch_size=16, workers=2, image_size=32), train=everything.artifacts[form])
        seen = Counter(label for _, labels in data.train_dataloader() for label in labels.tolist())
        data.teardown("fit")
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert seen == EACH


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_spawned_ranks_train_with_a_pickled_datamodule(package: str, everything: Prepared, tmp_path: Path) -> None:
    program = tmp_path / "spawned.py"
    program.write_text(SPAWNED.format(package=package, folder=Path(everything.artifacts["jpeg-files"].path).parent))
    done = subprocess.run(
        [sys.executable, program], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.glob("rank*")} == {"rank0", "rank1"}
    seen = [label for path in tmp_path.glob("rank*") for label in json.loads(path.read_text())]
    assert Counter(seen) == EACH


SPAWNED = """
import json
import torch
from {package} import LightningModule, Trainer
from loaderbench import DataModule, Work

class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer, self.seen = torch.nn.Linear(3, 1), []

    def training_step(self, batch, _):
        self.seen += batch[1].tolist()
        return self.layer(batch[0].float().mean((2, 3))).square().mean()

    def on_train_end(self):
        with open(f"rank{{self.global_rank}}", "w") as file:
            json.dump(self.seen, file)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.001)

if __name__ == "__main__":
    data = DataModule("imagefolder", Work(batch_size=16, workers=1, image_size=32), train="{folder}")
    Trainer(
        accelerator="cpu", devices=2, strategy="ddp_spawn", max_epochs=1, logger=False, enable_checkpointing=False
    ).fit(Model(), data)
"""
