"""Train a small network under Lightning with any loader, with progressive resizing and torchvision's transforms.

loaderbench prepare --samples 2048                            # prints the folder of each format
loaderbench prepare examples/validation.toml --samples 512    # the same for other images
python examples/train_lightning.py data/artifacts/ffcv-jpeg-... data/artifacts/ffcv-jpeg-... --loader ffcv
"""

from __future__ import annotations

from pathlib import Path

import torch
import typer
from lightning import LightningModule, Trainer, seed_everything
from network import small
from torch.nn.functional import cross_entropy
from torchvision.transforms import v2

from loaderbench import Artifact, DataModule, Work

NORMALIZE = v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])


class Classifier(LightningModule):
    """Learn the classes, and print the validation accuracy after each epoch."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.network = small(classes)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        images, labels = batch
        return cross_entropy(self.network(images), labels.long())

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> None:
        images, labels = batch
        right = (self.network(images).argmax(1) == labels).float().mean()
        self.log("accuracy", right, batch_size=len(labels), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        self.print(f"epoch {self.current_epoch}: validation accuracy {self.trainer.callback_metrics['accuracy']:.3f}")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.003)


def main(  # noqa: PLR0913 - each is an option of the command
    train: Path,
    val: Path,
    *,
    loader: str = "ffcv",
    epochs: int = 10,
    image_size: int = 64,
    batch_size: int = 64,
    workers: int = 2,
    devices: int = 1,
) -> None:
    """Train on one folder that `loaderbench prepare` prints, and validate on another."""
    seed_everything(0)
    work = Work(
        batch_size=batch_size,
        workers=workers,
        image_size=image_size,
        dtype="float32",
        resizes=((0, image_size // 2), (epochs // 2, image_size)),
        transforms=[v2.RandomErasing(0.2), NORMALIZE],
    )
    data = DataModule(loader, work, train=train, val=val, val_transforms=[NORMALIZE])
    trainer = Trainer(
        max_epochs=epochs, devices=devices, num_sanity_val_steps=0, logger=False, enable_checkpointing=False
    )
    trainer.fit(Classifier(Artifact.load(train).classes), data)


if __name__ == "__main__":
    typer.run(main)
