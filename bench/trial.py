"""How fast does one contestant deliver the work? Runs in a fresh process and owns the clock."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from bench import registry
from bench.api import Artifact, Encoding, Work
from bench.monitors.cpu import tree_seconds
from bench.monitors.gpu import Gpu
from bench.monitors.memory import tree_memory

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from bench.monitors.memory import Memory

PAGE_BYTES = 4096
CHANNELS = 3


class InvalidWorkError(Exception):
    """The loader delivered something other than the work asked for."""


def run(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the measured columns of one trial's record.

    `spec`: loader, artifact, work, options, warmup_s, window_s.
    """
    loader = registry.loader(spec["loader"])
    artifact = Artifact(**{**spec["artifact"], "encoding": Encoding(**spec["artifact"]["encoding"])})
    work = Work(**spec["work"])
    started = perf_counter_ns()
    for name in loader.requires:
        importlib.import_module(name)
    imported = perf_counter_ns()
    with Gpu() as gpu, loader.stream(artifact, work, **spec["options"]) as batches:
        constructed = perf_counter_ns()
        meter = Meter(artifact, work, int(spec["warmup_s"] * 1e9), int(spec["window_s"] * 1e9), gpu)
        try:
            meter.consume(batches)
        except InvalidWorkError as error:
            return {"status": "invalid", "reason": str(error)}
        del batches
        closing = perf_counter_ns()
    return {
        "status": "ok",
        "reason": "",
        "import_s": (imported - started) / 1e9,
        "construct_s": (constructed - imported) / 1e9,
        **meter.columns(),
        "teardown_s": (perf_counter_ns() - closing) / 1e9,
    }


@dataclass
class Reading:
    """The state of the counters at one edge of the window."""

    batch: int
    """Index of the batch whose exit is the edge."""
    epoch: int
    cpu_s: float


@dataclass
class Meter:
    """Consumes epochs until both the first epoch and the steady window are over, touching and checking every batch."""

    artifact: Artifact
    work: Work
    warmup_ns: int
    window_ns: int
    gpu: Gpu
    exits_ns: list[int] = field(default_factory=list)
    """When each batch was handed over."""
    images: list[int] = field(default_factory=list)
    """Images in each batch."""
    epoch_starts: list[tuple[int, int]] = field(default_factory=list)
    """Of each epoch: the time just before `iter()`, and the index of its first batch."""
    opened: Reading | None = None
    closed: Reading | None = None
    memory: list[Memory | None] = field(default_factory=list)
    memory_format: str = ""
    gpu_start_us: int = 0
    gpu_util_pct: float | None = None
    gpu_reason: str = ""

    def consume(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Run until done. Raises InvalidWorkError."""
        while not (self.closed and len(self.epoch_starts) > 1):
            self.epoch_starts.append((perf_counter_ns(), len(self.exits_ns)))
            label_sum = 0
            for images, labels in batches:
                self.exits_ns.append(perf_counter_ns())
                self._check(images, labels)
                touch(images)
                self.images.append(len(images))
                label_sum += int(labels.sum())
                self._edges()
                if self.closed and len(self.epoch_starts) > 1:
                    return
            self._check_epoch(label_sum)

    def _edges(self) -> None:
        """Open or close the window if this batch is its edge."""
        now = self.exits_ns[-1]
        batch, epoch = len(self.exits_ns) - 1, len(self.epoch_starts)
        if batch == 0:
            self.memory.append(tree_memory())
        if self.opened is None and now - self.exits_ns[0] >= self.warmup_ns:
            self.gpu_start_us = self.gpu.now_us()
            self.opened = Reading(batch, epoch, tree_seconds())
        elif self.opened and self.closed is None and now - self.exits_ns[self.opened.batch] >= self.window_ns:
            self.closed = Reading(batch, epoch, tree_seconds())
            utilisation = self.gpu.utilisation_since(self.gpu_start_us)
            self.gpu_util_pct, self.gpu_reason = utilisation.pct, utilisation.reason
            self.memory.append(tree_memory())

    def _check(self, images: Tensor, labels: Tensor) -> None:
        import torch

        size, count = self.work.image_size, len(images)
        if images.shape != (count, CHANNELS, size, size) or not 0 < count <= self.work.batch_size:
            message = (
                f"images of shape {tuple(images.shape)} instead of (n, {CHANNELS}, {size}, {size}) "
                f"with 1 to {self.work.batch_size} images"
            )
            raise InvalidWorkError(message)
        if (dtype := str(images.dtype).removeprefix("torch.")) != self.work.dtype:
            message = f"images of dtype {dtype} instead of {self.work.dtype}"
            raise InvalidWorkError(message)
        if labels.shape != (count,) or labels.is_floating_point():
            message = f"labels of shape {tuple(labels.shape)}, {labels.dtype} instead of ({count},), integer"
            raise InvalidWorkError(message)
        if images.is_contiguous():
            self.memory_format = "contiguous"
        elif images.is_contiguous(memory_format=torch.channels_last):
            self.memory_format = "channels_last"
        else:
            message = f"images with strides {images.stride()}, neither contiguous nor channels_last"
            raise InvalidWorkError(message)

    def _check_epoch(self, label_sum: int) -> None:
        first = self.epoch_starts[-1][1]
        epoch, delivered = len(self.epoch_starts), sum(self.images[first:])
        expected = self.artifact.samples * self.work.passes
        if delivered != expected:
            message = f"epoch {epoch} delivered {delivered} images instead of {expected}"
            raise InvalidWorkError(message)
        if label_sum != (expected_sum := self.artifact.label_sum * self.work.passes):
            message = f"the labels of epoch {epoch} add up to {label_sum} instead of {expected_sum}"
            raise InvalidWorkError(message)
        # A loader may leave one partial batch per worker; more would be smaller batches than asked for.
        most = -(-expected // self.work.batch_size) + self.work.workers
        if (count := len(self.images) - first) > most:
            message = f"epoch {epoch} came in {count} batches, more than {most}: smaller than the batch size asked for"
            raise InvalidWorkError(message)

    def columns(self) -> dict[str, Any]:
        """Return the measured columns."""
        assert self.opened
        assert self.closed
        first, last = self.opened.batch, self.closed.batch
        window_s = (self.exits_ns[last] - self.exits_ns[first]) / 1e9
        images = sum(self.images[first + 1 : last + 1])
        cpu_s = self.closed.cpu_s - self.opened.cpu_s
        (start_ns, _), (_, second_epoch) = self.epoch_starts[:2]
        waits_ns = [self.exits_ns[batch] - self.exits_ns[batch - 1] for _, batch in self.epoch_starts[1:]]
        memory = [reading for reading in self.memory if reading]
        return {
            "memory_format": self.memory_format,
            "images_per_s": images / window_s,
            "epoch1_images_per_s": sum(self.images[:second_epoch])
            / ((self.exits_ns[second_epoch - 1] - start_ns) / 1e9),
            "first_batch_s": (self.exits_ns[0] - start_ns) / 1e9,
            "window_s": window_s,
            "window_images": images,
            "window_epochs": self.closed.epoch - self.opened.epoch,
            "epoch_end_s": sum(waits_ns) / len(waits_ns) / 1e9,
            "cpu_s": cpu_s,
            "cpu_load_pct": 100 * cpu_s / window_s / len(os.sched_getaffinity(0)),
            "cores_used": cpu_s / window_s,
            "cpu_s_per_1k_images": 1000 * cpu_s / images,
            "peak_memory_mib": max((reading.total_mib for reading in memory), default=None),
            "peak_anon_memory_mib": max((reading.anon_mib for reading in memory), default=None),
            "gpu_util_pct": self.gpu_util_pct,
            "gpu_reason": self.gpu_reason,
        }


def touch(images: Tensor) -> None:
    """Read one byte of each page, so that a batch that is only promised has to be there."""
    images.as_strided((images.numel(),), (1,))[:: PAGE_BYTES // images.element_size()].sum()
