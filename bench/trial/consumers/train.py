"""Train a network in plain PyTorch, as on ImageNet, and measure how much the training waits for the loader."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributed import broadcast
from torch.nn.parallel import DistributedDataParallel
from torchvision import models
from torchvision.transforms import v2

from loaderbench.api import DEVIATION, MEAN, Artifact, Loader, Work
from loaderbench.machine.cores import core_count
from loaderbench.trial.clock import Clock, CudaClock, stall_pct
from loaderbench.trial.consumers import Consume
from loaderbench.trial.device import demand
from loaderbench.trial.meter import Meter

_LABEL_SMOOTHING = 0.1
_MIXUP_ALPHA, _CUTMIX_ALPHA = 0.2, 1.0
_JUDGED_STEPS = 8
"""Number of losses that are averaged."""
_WARM_UP_STEPS = 3


def prepare(artifact: Artifact, work: Work, *, model: str, cached_s: float, loss_steps: int) -> Consume:
    """Create the network, and measure how fast it trains on one cached batch.

    The options are those of `loaderbench.campaign.schema.TrainingOptions`. Several ranks train one network, by torch's
    DistributedDataParallel, each on its own batches.
    """
    cached = CachedBatch(model, artifact.classes, work, cached_s)
    training = Training(model, artifact.classes, work)

    def consume(loader: Loader, meter: Meter) -> dict[str, Any]:
        meter.in_step = work.ranks > 1
        with meter.fed_by(loader, requested(work)):
            losses = learn(meter, training)
        return {**columns(meter, training, losses, loss_steps), **cached.columns(meter)}

    return consume


def requested(work: Work) -> Work:
    """Return the work that training requests from the loader.

    Batches that training copies to a GPU itself must stay valid: a copy waits for earlier steps, while the next batch
    is requested.
    """
    return replace(work, lasting=True) if work.device == "cpu" and torch.cuda.is_available() else work


def learn(meter: Meter, training: Training) -> list[Tensor]:
    """Train epoch after epoch until the meter is done; return the loss of each step."""
    losses = []
    while not meter.done:
        for images, labels in meter:
            training.begin()
            losses.append(training.step(images, labels))
            training.clock.end()
    return losses


class CachedBatch:
    """Training of the same network on one cached batch, with no loader running.

    It is measured before there is a loader and again after it, when the device is as warm as in training: a GPU that
    has cooled may run at higher clocks. Gradients are reduced over ranks.
    """

    def __init__(self, model: str, classes: int, work: Work, seconds: float) -> None:
        """Measure for the first time. `seconds`: how long each time."""
        self._model, self._classes, self._work, self._seconds = model, classes, work, seconds
        self._threads = torch.get_num_threads()
        self._before = self._images_per_s()

    def columns(self, meter: Meter) -> dict[str, float]:
        """Measure again, once all ranks or jobs have closed their loaders, and return the columns of `Record`."""
        if meter.ended:
            meter.ended.wait()
        torch.set_num_threads(self._threads)  # the loader may have changed it
        after = self._images_per_s()
        images_per_s = meter.timeline.columns()["images_per_s"]
        assert images_per_s
        return {
            "cached_images_per_s": self._before,
            "stall_vs_cached_pct": stall_pct(images_per_s, self._before),
            "warm_cached_images_per_s": after,
            "stall_vs_warm_cached_pct": stall_pct(images_per_s, after),
        }

    def _images_per_s(self) -> float:
        return cached_images_per_s(Training(self._model, self._classes, self._work), self._work, self._seconds)


def cached_images_per_s(training: Training, work: Work, cached_s: float) -> float:
    """Return images/s of training on one cached batch repeatedly, measured for `cached_s`."""
    random = torch.Generator().manual_seed(work.seed)
    shape = (work.batch_size, 3, work.image_size, work.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
    if work.normalised:
        images = training.normalised(images.to(training.device)).cpu()
    elif work.dtype != "uint8":
        images = images / 255
    images = images.to(work.device, getattr(torch, work.dtype))
    labels = torch.randint(0, training.classes, (work.batch_size,), generator=random)

    def speed(steps: int) -> float:
        started_s = time.perf_counter()
        for _ in range(steps):  # as in `learn`
            training.begin()
            loss = training.step(images, labels)
            training.clock.end()
        loss.item()  # waits for a GPU
        return steps * work.batch_size / (time.perf_counter() - started_s)

    speed(_WARM_UP_STEPS)
    steps = torch.tensor(max(_WARM_UP_STEPS, round(cached_s * speed(_WARM_UP_STEPS) / work.batch_size)))
    if work.ranks > 1:
        broadcast(steps, src=0)  # all must take the same number
    return speed(int(steps))


def columns(meter: Meter, training: Training, losses: Sequence[Tensor], loss_steps: int) -> dict[str, float | None]:
    """Return the columns of `Record` for a finished training."""
    first = losses[:_JUDGED_STEPS]
    later = losses[loss_steps - _JUDGED_STEPS : loss_steps] if len(losses) >= loss_steps else []
    clock, overlap = training.clock, {}
    if meter.copies and isinstance(clock, CudaClock):
        overlap = meter.copies.clock.overlap(meter.timeline, clock)
    return {
        **clock.columns(meter.timeline),
        **overlap,
        "training_threads": training.threads,
        "loss_first": _mean(first),
        "loss_last": _mean(later),
    }


def _mean(losses: Sequence[Tensor]) -> float | None:
    return float(torch.stack(list(losses)).mean()) if losses else None


class Training:
    """A network and all that a step needs: on the GPU in bfloat16, if there is a GPU."""

    def __init__(self, model: str, classes: int, work: Work, *, parallel: bool = True) -> None:
        """`parallel`: whether gradients are reduced over ranks here."""
        demand(work)
        torch.manual_seed(work.seed)
        self.classes = classes
        self.threads = min(torch.get_num_threads(), core_count())
        """Torch's threads in each step, whatever the loader sets in this process."""
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._mix = v2.RandomChoice(
            [
                v2.MixUp(alpha=_MIXUP_ALPHA, num_classes=classes),
                v2.CutMix(alpha=_CUTMIX_ALPHA, num_classes=classes),
            ]
        )
        self._mean, self._deviation = (
            255 * torch.tensor(values, device=self.device).reshape(1, 3, 1, 1) for values in (MEAN, DEVIATION)
        )
        self._delivers_normalised = work.normalised
        self._criterion = torch.nn.CrossEntropyLoss(label_smoothing=_LABEL_SMOOTHING)
        network = models.get_model(model, weights=None, num_classes=classes)
        self.network = network.to(self.device, memory_format=torch.channels_last)
        self.model = DistributedDataParallel(self.network) if parallel and work.ranks > 1 else self.network
        """What a step calls: the network, wrapped if its gradients are reduced over ranks."""
        on_gpu = self.device.type == "cuda"
        # Waiting for a blocking event takes no CPU time from the loader.
        event = partial(torch.cuda.Event, enable_timing=True, blocking=True)
        self.clock: Clock = CudaClock(event) if on_gpu else Clock()
        torch.manual_seed(work.own_seed)  # each rank mixes images differently
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-5, nesterov=True
        )

    def begin(self) -> None:
        """Begin a step: note the time, and give torch its threads again if the loader has changed their number."""
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        self.clock.begin()

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch as a loader delivers it. Normalises it, if it is not yet, and mixes its images."""
        inputs = images.to(self.device, non_blocking=True)
        targets = labels.to(self.device, torch.int64, non_blocking=True)
        inputs = inputs.to(torch.float32) if self._delivers_normalised else self.normalised(inputs)
        inputs, targets = self._mix(inputs.contiguous(memory_format=torch.channels_last), targets)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss: Tensor = self._criterion(self.model(inputs), targets)
        return loss

    def normalised(self, images: Tensor) -> Tensor:
        """Return uint8 images, or images with values from 0 to 1, normalised by ImageNet's means and deviations."""
        levels = images.to(torch.float32)
        if images.dtype != torch.uint8:
            levels = levels * 255
        return (levels - self._mean) / self._deviation

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Train on a batch; return its loss, which a GPU may still compute."""
        loss = self.loss(images, labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()
