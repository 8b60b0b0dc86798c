"""Measure how fast this machine does each single step of the work.

A rate is in images/s. It is an upper limit for every loader whose batches need that step, and that does it in the
measured way if there are several. It is measured in a fresh process: steps on images on all usable cores at once, on
the samples that the loaders deliver.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from loaderbench.api import CHANNELS, Artifact, Mode, Work
from loaderbench.images import CanonicalImages
from loaderbench.machine import page_cache
from loaderbench.machine.cores import core_count
from loaderbench.machine.parallel_rate import StepError, parallel_rate
from loaderbench.machine.touch import touch
from loaderbench.roofline import steps

if TYPE_CHECKING:
    from torch import Tensor

Situation = Literal["cold", "shared", "on the GPU", "pageable", "copies records", "reads at random"]
"""What decides, beside a contestant's format, which steps its batches need.

`cold`: the format was not in memory. `shared`: batches lie in memory shared between processes, as those from worker
processes do. `on the GPU`: they are delivered there; `pageable`: from memory that is not page-locked. `copies records`,
`reads at random`: no contestant is known to need that, because a loader may crop records where they lie, and read ahead
in the order of the files.
"""
SAMPLES = 2048
"""Maximum number of samples that are worked on, drawn at random."""
RANDOM_DISK = "random-disk"
"""The step that reads files, or parts of 8 MiB, in random order."""
EVICTED_PCT = 5
"""A format is read from the disk if at most this share of it stayed in the page cache."""
READY = 2
"""Batches that each of torch's workers prefetches; that many are taken before the clock starts."""
COPIES = 8
"""Copies to the GPU that are waited for together."""


@dataclass(frozen=True)
class LimitSpec:
    """Which steps are measured, on what."""

    canonical: Path
    """Folder of the canonical images."""
    artifacts: Mapping[str, Artifact]
    """By format: those that are read from the disk."""
    work: Work
    steps: Collection[str]
    seconds: float
    """Of each measurement."""


@dataclass(frozen=True)
class Step:
    """A step of the work whose rate can limit a loader."""

    name: str
    """As in rows of `Record`."""
    measure: Callable[[LimitSpec], float] | None
    """Returns images/s. None: it is measured for each artifact, by `_disk`."""
    modes: tuple[Mode, ...] | None = None
    """Encoding modes of the formats that need it. None: all."""
    only: Situation | None = None
    """The situation in which it limits a contestant. None: always."""
    any_images: bool = False
    """Whether the rate is the same whatever is stored."""
    one_process: bool = False
    """Whether it is measured with one process that takes batches, and one GPU: several may exceed the rate."""
    other_ways: bool = False
    """Whether it is measured in one way of several: a loader that takes another one may exceed the rate."""


def needed(mode: Mode, situations: Collection[Situation]) -> tuple[Step, ...]:
    """Return the steps that contestants of this encoding mode need in these situations."""
    return tuple(
        step for step in STEPS if (step.modes is None or mode in step.modes) and step.only in {None, *situations}
    )


def run(spec: LimitSpec) -> dict[str, Any]:
    """Return `limits`, images/s by step, and `reasons` for those that could not be measured and are None.

    The step `disk` becomes one for each artifact, `disk/NAME`; it leaves their files only partly in the page cache.
    """
    limits: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for name, measure in _measurements(spec):
        try:
            limits[name] = measure()
        except Exception as error:  # noqa: BLE001 - torch may be missing or raise anything
            limits[name] = None
            reasons[name] = str(error) if isinstance(error, StepError) else f"{type(error).__name__}: {error}"
    return {"status": "ok", "reason": "", "limits": limits, "reasons": reasons}


def _measurements(spec: LimitSpec) -> Iterator[tuple[str, Callable[[], float]]]:
    for step in STEPS:
        if step.name in spec.steps:
            if step.measure:
                yield step.name, partial(step.measure, spec)
            else:
                for name, artifact in spec.artifacts.items():
                    seed = spec.work.seed if step.name == RANDOM_DISK else None
                    yield f"{step.name}/{name}", partial(_disk, artifact, spec.seconds, seed)


def _on_images(
    step: Callable[..., Iterator[int]], samples: Callable[[CanonicalImages, Sequence[int]], list[Any]], spec: LimitSpec
) -> float:
    source = CanonicalImages(spec.canonical)
    drawn = np.random.default_rng(spec.work.seed).permutation(len(source))[:SAMPLES].tolist()
    return parallel_rate(partial(step, samples(source, drawn), spec.work), core_count(), spec.seconds)


def _output(spec: LimitSpec) -> float:
    return parallel_rate(partial(steps.output, spec.work), core_count(), spec.seconds)


def _disk(artifact: Artifact, seconds: float, seed: int | None) -> float:
    """Return images/s, from bytes/s, of reading a format that is not in memory, one file or part after the other.

    `seed`: of a random order of the parts; None: the stored order.
    Only what holds images counts for an image: a loader need not read the rest.
    """
    folder = Path(artifact.path)
    page_cache.evict(folder)
    resident_pct = page_cache.resident_pct(folder)
    if resident_pct is None:
        raise StepError("the kernel does not report whether the files left the page cache")
    if resident_pct > EVICTED_PCT:
        raise StepError(f"{resident_pct:.0f} % of the files stayed in the page cache")
    parts = steps.parts(folder)
    if seed is not None:
        random.Random(seed).shuffle(parts)
    read = partial(steps.read, parts, core_count())
    return parallel_rate(read, core_count(), seconds) / (artifact.payload_bytes / artifact.samples)


def _transfer(spec: LimitSpec) -> float:
    """Return images/s of batches that torch's worker processes make in shared memory and the parent touches."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    class OneImage(Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return sys.maxsize

        def __getitems__(self, indices: Sequence[int]) -> list[Tensor]:
            return [image] * len(indices)

    work = spec.work
    if not work.workers:
        raise StepError("the work has no worker processes")
    image = torch.zeros((CHANNELS, work.image_size, work.image_size), dtype=getattr(torch, work.dtype))
    batches = iter(DataLoader(OneImage(), work.batch_size, num_workers=work.workers))
    for _ in range(READY * work.workers):
        touch(next(batches))
    images, started = 0, perf_counter()
    while perf_counter() - started < spec.seconds:
        batch = next(batches)
        touch(batch)
        images += len(batch)
    return images / (perf_counter() - started)


def _to_device(spec: LimitSpec, *, pinned: bool) -> float:
    """Return images/s of batches copied to the GPU, from page-locked memory or from any other."""
    import torch

    if not torch.cuda.is_available():
        raise StepError("torch finds no CUDA device")
    work = spec.work
    shape, dtype = (work.batch_size, CHANNELS, work.image_size, work.image_size), getattr(torch, work.dtype)
    host, device = torch.zeros(shape, dtype=dtype, pin_memory=pinned), torch.empty(shape, dtype=dtype, device="cuda")
    device.copy_(host)
    torch.cuda.synchronize()
    images, started = 0, perf_counter()
    while perf_counter() - started < spec.seconds:
        for _ in range(COPIES):
            device.copy_(host, non_blocking=True)
        torch.cuda.synchronize()
        images += COPIES * work.batch_size
    return images / (perf_counter() - started)


COPIES_OF_BATCHES: tuple[tuple[str, Callable[[LimitSpec], float], Situation], ...] = (
    ("transfer", _transfer, "shared"),
    ("host-to-device", partial(_to_device, pinned=True), "on the GPU"),
    ("pageable-to-device", partial(_to_device, pinned=False), "pageable"),
)
IMAGE_FILES: tuple[tuple[str, Callable[..., list[Any]], Mode], ...] = (
    ("", steps.jpeg, "jpeg"),
    ("original ", steps.original, "original"),
)
DECODING: tuple[tuple[str, Callable[..., Iterator[int]]], ...] = (
    ("decode", steps.decode),
    ("decode+crop", steps.decode_crop),
    ("region decode+crop", steps.region_decode_crop),
)
"""A loader may decode the region alone that it crops, and then exceeds the rates of those that decode whole images."""
STEPS = (
    Step("gather", partial(_on_images, steps.gather, steps.raw), ("raw",), "copies records"),
    Step("crop", partial(_on_images, steps.crop, steps.raw), ("raw",)),
    *(
        Step(
            f"{prefix}{name}", partial(_on_images, step, samples), (mode,), other_ways=step != steps.region_decode_crop
        )
        for prefix, samples, mode in IMAGE_FILES
        for name, step in DECODING
    ),
    Step("output", _output, any_images=True),
    Step("disk", None, only="cold", other_ways=True),
    Step(RANDOM_DISK, None, only="reads at random", other_ways=True),
    *(
        Step(name, measure, None, only, any_images=True, one_process=True, other_ways=True)
        for name, measure, only in COPIES_OF_BATCHES
    ),
)
"""In the order in which they are measured. Those that use torch, which starts threads, come last."""
