"""Train the same network as `train` by Lightning's Trainer and our DataModule, to measure what Lightning costs.

Epochs end as in any training. Validation, logger, checkpoints and progress bar are off.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from loaderbench.api import Artifact, Loader, Work
from loaderbench.loaders.lightning import DataModule
from loaderbench.loaders.lightning.datamodule import Epochs
from loaderbench.trial.checks import InvalidWorkError
from loaderbench.trial.consumers import Consume
from loaderbench.trial.consumers.train import CachedBatch, Training, columns
from loaderbench.trial.meter import Meter


def prepare(artifact: Artifact, work: Work, *, model: str, cached_s: float, loss_steps: int) -> Consume:
    """Prepare as `loaderbench.trial.consumers.train.prepare` does; one cached batch is measured without Lightning.

    Raises NotImplementedError for more ranks than there are GPUs, if there are any.
    """
    if 0 < (gpus := torch.cuda.device_count()) < work.ranks:
        raise NotImplementedError(f"Lightning takes a GPU for each rank, and there are {gpus} for {work.ranks}")
    cached = CachedBatch(model, artifact.classes, work, cached_s)
    training = Training(model, artifact.classes, work, parallel=False)  # Lightning wraps the network itself

    def consume(loader: Loader, meter: Meter) -> dict[str, Any]:
        watching = _Watching(training, meter)
        meter.in_step = work.ranks > 1
        trainer = Trainer(
            accelerator=training.device.type,
            devices=work.ranks,
            strategy="ddp" if work.ranks > 1 else "auto",
            precision="bf16-mixed" if training.device.type == "cuda" else "32-true",
            max_epochs=-1,
            callbacks=[watching],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        trainer.fit(_Module(training), datamodule=_Data(loader, work, meter))
        return {**columns(meter, training, watching.losses, loss_steps), **cached.columns(meter)}

    return consume


class _Data(DataModule):
    """The DataModule that users train with, through a meter where the Trainer takes the batches."""

    def __init__(self, loader: Loader, work: Work, meter: Meter) -> None:
        super().__init__(loader, work, train=meter.artifact)
        self._meter = meter

    def train_dataloader(self) -> _Metered:
        epochs = super().train_dataloader()
        assert isinstance(epochs, Epochs)
        return _Metered(epochs, self._meter)


class _Metered:
    """Epochs that pass through a meter. When it is done, the current epoch ends early, in all ranks alike."""

    def __init__(self, epochs: Epochs, meter: Meter) -> None:
        meter.batches, meter.cut = epochs, epochs.lacking
        self._meter = meter
        self._length = len(epochs)
        self._epoch: Iterator[Any] = iter(())

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        self._epoch = iter(self._meter)
        return self._epoch

    def end(self) -> None:
        """Exhaust the epoch: Lightning (2.6) counts batches and does not request one more to find the end."""
        if next(self._epoch, None):
            raise InvalidWorkError(f"an epoch has more batches than its __len__, {self._length}")


class _Module(LightningModule):
    def __init__(self, training: Training) -> None:
        super().__init__()
        self._training = training
        self.network = training.network

    def on_before_batch_transfer(self, batch: list[Tensor], _: int) -> list[Tensor]:
        self._training.begin()
        return batch

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        return self._training.loss(*batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self._training.optimizer


class _Watching(Callback):
    """Records each step's end and loss, and stops the Trainer when the meter is done."""

    def __init__(self, training: Training, meter: Meter) -> None:
        self.losses: list[Tensor] = []
        self._clock = training.clock
        self._meter = meter

    def on_train_batch_end(self, _: object, __: object, outputs: Any, *___: object) -> None:
        self._clock.end()
        self.losses.append(outputs["loss"])

    def on_train_epoch_end(self, trainer: Trainer, _: object) -> None:
        epochs = trainer.train_dataloader
        assert isinstance(epochs, _Metered)
        epochs.end()
        trainer.should_stop = self._meter.done
