"""Trains the same network as `train`, by Lightning's Trainer: what does Lightning add for each loader?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning import Callback, LightningModule, Trainer

from bench.consumers.train import columns, ready

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bench.api import Artifact, Work
    from bench.consumers import Consume
    from bench.consumers.train import Training
    from bench.trial import Meter


def prepare(artifact: Artifact, work: Work, *, model: str, cached_s: float, loss_steps: int) -> Consume:
    """As `bench.consumers.train.prepare`; what one batch that is there gives is measured without Lightning."""
    training, cached = ready(artifact, work, model, cached_s)

    def consume(meter: Meter) -> dict[str, Any]:
        watching = _Watching(meter, training)
        trainer = Trainer(
            accelerator="auto",
            devices=1,
            precision="bf16-mixed" if training.device.type == "cuda" else "32-true",
            max_epochs=-1,
            callbacks=[watching],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        trainer.fit(_Module(training), meter)
        return columns(meter, training, watching.losses, cached, loss_steps)

    return consume


class _Module(LightningModule):
    def __init__(self, training: Training) -> None:
        super().__init__()
        self._training = training
        self.network = training.network

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        return self._training.loss(*batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self._training.optimizer


class _Watching(Callback):
    """Takes down each step and its loss, and ends the training when the meter is done."""

    def __init__(self, meter: Meter, training: Training) -> None:
        self.losses: list[Tensor] = []
        self._meter = meter
        self._clock = training.clock

    def on_train_batch_start(self, *_: object) -> None:
        self._clock.begin()

    def on_train_batch_end(self, _: object, __: object, outputs: Any, *___: object) -> None:
        self._clock.end()
        self.losses.append(outputs["loss"])

    def on_train_epoch_end(self, trainer: Trainer, _: object) -> None:
        trainer.should_stop = self._meter.done
