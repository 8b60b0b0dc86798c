"""A meter on made-up batches."""

from __future__ import annotations

from typing import Any

import torch

from loaderbench.api import Artifact, Encoding, Work
from loaderbench.machine.gpu import Gpu
from loaderbench.trial.consumers import drain
from loaderbench.trial.meter import Meter
from loaderbench.trial.spec import Window

AT_ONCE = Window(0, 0, 1, pause_s=0)
LABELS = [0] * 10 + [1] * 10 + [2] * 10
WORK = Work(batch_size=8, workers=2, image_size=16, dtype="uint8", passes=2, seed=0)
ARTIFACT = Artifact(
    "f", "/nowhere", len(LABELS), sum(LABELS), 1, 1, Encoding("jpeg"), classes=3, label_counts=(10, 10, 10)
)
Batches = list[tuple[torch.Tensor, torch.Tensor]]


def right() -> Batches:
    """One epoch of right work."""
    labels = torch.tensor(LABELS * WORK.passes)
    return [(torch.zeros(len(part), 3, 16, 16, dtype=torch.uint8), part) for part in labels.split(WORK.batch_size)]


def consume(batches: Any, window: Window = AT_ONCE, work: Work = WORK, gpu: Gpu | None = None) -> Meter:
    timed = Meter(batches, ARTIFACT, work, window, gpu or Gpu())
    drain.take_all(work, timed)
    return timed
