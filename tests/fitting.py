"""Train with the DataModule and record what it delivers.

`python -m tests.fitting SPEC`, or by torchrun in several ranks.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from lightning import LightningModule, Trainer
from torchvision.transforms import v2

from loaderbench.api import Artifact, Work
from loaderbench.campaign import registry
from loaderbench.certify import probe
from loaderbench.loaders.lightning import DataModule


class Noting(LightningModule):
    """A network with running statistics, which ranks exchange; it records every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)
        self.last = torch.nn.Linear(3, 1)
        self.epochs: dict[str, list[dict[str, Any]]] = {"train": [], "val": []}

    def training_step(self, batch, _):
        self.note("train", batch[0], batch[1])
        return self.last(self.norm(batch[0]).mean((2, 3))).square().mean()

    def validation_step(self, batch, _):
        images, labels = batch
        note = self.note("val", images, labels)
        views = probe.read(((images + 1) * 127.5).numpy())
        note["edges"] += views.edges.tolist()
        note["flipped"] += int(views.flipped.sum())
        self.log("loss", self.norm(images).mean(), sync_dist=True)

    def note(self, kind: str, images: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
        note = self.epochs[kind][-1]
        note["labels"] += labels.tolist()
        note["batches"] += 1
        note["sizes"] = sorted({*note["sizes"], images.shape[-1]})
        note["range"] = [min(note["range"][0], float(images.min())), max(note["range"][1], float(images.max()))]
        return note

    def begin(self, kind: str) -> None:
        note = {"labels": [], "batches": 0, "sizes": [], "range": [9, -9], "edges": [], "flipped": 0}
        self.epochs[kind].append(note)

    def on_train_epoch_start(self) -> None:
        self.begin("train")

    def on_validation_epoch_start(self) -> None:
        self.begin("val")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.001)


def fail(_: torch.Tensor) -> torch.Tensor:
    raise ArithmeticError("the planted failure")


def failure(spec: dict[str, Any], work: Work) -> str:
    """The error message of the first batch in a plain loop."""
    with registry.loader(spec["loader"]).stream(Artifact.load(spec["folder"]), work) as batches:
        try:
            next(iter(batches))
        except ArithmeticError as error:
            return str(error)
    return ""


def refused(work: Work) -> str:
    """The error message for an unknown loader."""
    try:
        DataModule("dali", work)
    except ValueError as error:
        return str(error)
    return ""


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    normalized = [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
    work = Work(
        batch_size=16,
        workers=spec["workers"],
        image_size=64,
        resizes=((1, 96), (2, 32)),
        transforms=[*normalized, v2.Lambda(lambda images: images + 4)],
    )
    data = DataModule(spec["loader"], work, train=spec["folder"], val=spec["folder"], val_transforms=normalized)
    model = Noting()
    trainer = Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        max_epochs=spec["epochs"],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data)
    left = [thread.name for thread in threading.enumerate() if type(thread).__name__ == "EpochIterator"]
    left += [" ".join(child.cmdline()) for child in psutil.Process().children()]
    model.epochs["val"].pop(0)  # Lightning's look at the first two batches
    loaders = [type(loader).__name__ for loader in (trainer.train_dataloader, trainer.val_dataloaders)]
    failed = failure(spec, replace(work, resizes=(), transforms=[v2.Lambda(fail)]))
    told = {**model.epochs, "left": left, "loaders": loaders, "failed": failed, "refused": refused(work)}
    Path(spec["out"], f"{trainer.global_rank}.json").write_text(json.dumps(told))
    assert np.isfinite(float(trainer.callback_metrics["loss"]))


if __name__ == "__main__":
    main()
