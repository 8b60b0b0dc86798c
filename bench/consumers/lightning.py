"""Trains the same network as `train`, by Lightning's Trainer: what does Lightning add for each loader?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning import Callback, LightningModule, Trainer

from bench.consumers.train import columns, ready

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from bench.api import Artifact, Work
    from bench.consumers import Consume
    from bench.consumers.train import Training
    from bench.trial import Meter


def prepare(artifact: Artifact, work: Work, *, model: str, cached_s: float, loss_steps: int) -> Consume:
    """As `bench.consumers.train.prepare`; what one batch that is there gives is measured without Lightning.

    Raises NotImplementedError for more ranks than there are GPUs, if there are any.
    """
    if 0 < (gpus := torch.cuda.device_count()) < work.ranks:
        raise NotImplementedError(f"Lightning takes a GPU for each rank, and there are {gpus} for {work.ranks}")
    training, cached = ready(artifact, work, model, cached_s, parallel=False)  # Lightning does that itself

    def consume(meter: Meter) -> dict[str, Any]:
        watching = _Watching(training)
        meter.in_step = work.ranks > 1
        trainer = Trainer(
            accelerator=training.device.type,
            devices=work.ranks,
            strategy="ddp" if work.ranks > 1 else "auto",
            use_distributed_sampler=False,  # the loaders share each epoch themselves
            precision="bf16-mixed" if training.device.type == "cuda" else "32-true",
            max_epochs=1,
            callbacks=[watching],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        trainer.fit(_Module(training), _OneEpoch(meter))
        return columns(meter, training, watching.losses, cached, loss_steps)

    return consume


class _OneEpoch:
    """All epochs as one of more batches than there can be, as far as Lightning (2.6) knows.

    Without a length, it would ask for each batch before it trains on the one before, which a loader that uses its
    memory again has then overwritten. Of several ranks, it would have to see epochs of equal length end.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def __len__(self) -> int:
        return 1 << 40

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while not self._meter.done:
            yield from self._meter


class _Module(LightningModule):
    def __init__(self, training: Training) -> None:
        super().__init__()
        self._training = training
        self.network = training.network

    def on_before_batch_transfer(self, batch: list[Tensor], _: int) -> list[Tensor]:
        self._training.clock.begin()
        return batch

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        return self._training.loss(*batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self._training.optimizer


class _Watching(Callback):
    """Takes down each step's end and its loss."""

    def __init__(self, training: Training) -> None:
        self.losses: list[Tensor] = []
        self._clock = training.clock

    def on_train_batch_end(self, _: object, __: object, outputs: Any, *___: object) -> None:
        self._clock.end()
        self.losses.append(outputs["loss"])
