"""How fast could this machine do each single step of the work, on all allowed cores at once? Runs in a fresh process.

A limit is in images per second and holds for every loader whose batches need that step. The samples are those that the
loaders deliver.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from loaderbench.api import CHANNELS, Work
from loaderbench.images.canonical_store import CanonicalImages
from loaderbench.machine import page_cache as pagecache
from loaderbench.machine.parallel_rate import StepError, at_once, per_s
from loaderbench.machine.touch import touch
from loaderbench.roofline import steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from loaderbench.api import Mode

STAGES = (
    "gather",
    "crop",
    "decode",
    "decode+crop",
    "original decode",
    "original decode+crop",
    "output",
    "disk",
    "transfer",
    "host-to-device",
    "pageable-to-device",
)
"""In the order in which they are measured: those that use torch last, for it starts threads."""
SAMPLES = 2048
"""At most so many samples are worked on, drawn at random."""
EVICTED_PCT = 5
"""A format is read from the disk if no more than this of it stayed in the page cache."""
READY = 2
"""Batches that each of torch's workers holds ready; so many are let go before the clock starts."""
COPIES = 8
"""Copies to the GPU that are waited for together."""
OF_ANY_IMAGES = ("output", "transfer", "host-to-device", "pageable-to-device")
"""Stages that are the same whatever is stored."""
OF_ONE_PROCESS = ("transfer", "host-to-device", "pageable-to-device")
"""Stages that are measured with one process that takes batches, and one GPU: several may pass them."""
_BY_MODE: dict[Mode, tuple[str, ...]] = {
    "raw": ("crop",),
    "jpeg": ("decode", "decode+crop"),
    "original": ("original decode", "original decode+crop"),
    "jpeg-reencoded": (),  # other bytes than those that are decoded here
    "proportion": (),
    "smart": (),
}


def applicable(mode: Mode, *, cold: bool, shared: bool, on_gpu: bool, pageable: bool) -> tuple[str, ...]:
    """Return the stages that bound a contestant, by its format's encoding mode.

    `cold`: its format was not in memory; `shared`: its batches lie in memory shared between processes, as those do
    that worker processes deliver; `on_gpu`: they are delivered on the GPU; `pageable`: copied to it from memory that
    is not page-locked.
    """
    further = (
        ("disk", cold),
        ("transfer", shared),
        ("host-to-device", on_gpu),
        ("pageable-to-device", pageable),
    )
    return (*_BY_MODE[mode], "output", *(stage for stage, applies in further if applies))


def measurable(mode: Mode, *, cold: bool) -> tuple[str, ...]:
    """Return the stages that say something about contestants of this mode.

    Beside those that can bound one, `gather`: a loader may crop records where they lie, without copying them.
    """
    gather = ("gather",) if mode == "raw" else ()
    return (*gather, *applicable(mode, cold=cold, shared=True, on_gpu=True, pageable=True))


def bound(limits: Mapping[str, float | None], stages: Iterable[str]) -> tuple[float, str] | None:
    """Return the smallest of the stages' limits in images/s and its stage; None if none of them was measured."""
    measured = [(limit, stage) for stage in stages if (limit := limits.get(stage)) is not None]
    return min(measured, default=None)


def run(spec: dict[str, Any]) -> dict[str, Any]:
    """Return `limits`, images/s by stage, and `reasons` for those that could not be measured and are None.

    `spec`: canonical (folder), artifacts (by format name), work, stages, seconds (that each measurement takes). The
    stage `disk` becomes one for each artifact, `disk/NAME`; it leaves their files only partly in the page cache.
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


def _measurements(spec: dict[str, Any]) -> Iterator[tuple[str, Callable[[], float]]]:
    """Yield the name and the measurement of each stage asked for."""
    source, work, seconds = CanonicalImages(Path(spec["canonical"])), Work(**spec["work"]), spec["seconds"]
    drawn = np.random.default_rng(work.seed).permutation(len(source))[:SAMPLES].tolist()

    def on_images(step: Callable[..., Iterator[int]], samples: Callable[..., list[Any]]) -> float:
        return per_s(at_once(partial(step, samples(source, drawn), work), _cores(), seconds))

    by_stage = {
        "gather": lambda: on_images(steps.gather, steps.raw),
        "crop": lambda: on_images(steps.crop, steps.raw),
        "decode": lambda: on_images(steps.decode, steps.jpeg),
        "decode+crop": lambda: on_images(steps.decode_crop, steps.jpeg),
        "original decode": lambda: on_images(steps.decode, steps.original),
        "original decode+crop": lambda: on_images(steps.decode_crop, steps.original),
        "output": lambda: per_s(at_once(partial(steps.output, work), _cores(), seconds)),
        "transfer": lambda: _transfer(work, seconds),
        "host-to-device": lambda: _host_to_device(work, seconds, pinned=True),
        "pageable-to-device": lambda: _host_to_device(work, seconds, pinned=False),
    }
    for stage in sorted(spec["stages"], key=STAGES.index):
        if stage == "disk":
            for name, artifact in spec["artifacts"].items():
                yield f"disk/{name}", partial(_disk, artifact, seconds)
        else:
            yield stage, by_stage[stage]


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _disk(artifact: dict[str, Any], seconds: float) -> float:
    """Return images/s, from bytes/s, of reading a format that is not in memory, one file or part after the other."""
    folder = Path(artifact["path"])
    pagecache.evict(folder)
    resident_pct = pagecache.resident_pct(folder)
    if resident_pct is None:
        raise StepError("the kernel does not tell whether the files left the page cache")
    if resident_pct > EVICTED_PCT:
        raise StepError(f"{resident_pct:.0f} % of the files stayed in the page cache")
    bytes_per_image: float = artifact["size_bytes"] / artifact["samples"]
    shares = at_once(partial(steps.read, steps.parts(folder), _cores()), _cores(), seconds)
    return per_s(shares) / bytes_per_image


def _transfer(work: Work, seconds: float) -> float:
    """Return images/s of batches that torch's worker processes make in shared memory and the parent touches."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    class OneImage(Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return sys.maxsize

        def __getitems__(self, indices: Sequence[int]) -> list[Tensor]:
            return [image] * len(indices)

    if not work.workers:
        raise StepError("the work has no worker processes")
    image = torch.zeros((CHANNELS, work.image_size, work.image_size), dtype=getattr(torch, work.dtype))
    batches = iter(DataLoader(OneImage(), work.batch_size, num_workers=work.workers))
    for _ in range(READY * work.workers):
        touch(next(batches))
    images, started = 0, perf_counter()
    while perf_counter() - started < seconds:
        batch = next(batches)
        touch(batch)
        images += len(batch)
    return images / (perf_counter() - started)


def _host_to_device(work: Work, seconds: float, *, pinned: bool) -> float:
    """Return images/s of batches copied to the GPU, from page-locked memory or any."""
    import torch

    if not torch.cuda.is_available():
        raise StepError("torch finds no CUDA device")
    shape, dtype = (work.batch_size, CHANNELS, work.image_size, work.image_size), getattr(torch, work.dtype)
    host, device = torch.zeros(shape, dtype=dtype, pin_memory=pinned), torch.empty(shape, dtype=dtype, device="cuda")
    device.copy_(host)
    torch.cuda.synchronize()
    images, started = 0, perf_counter()
    while perf_counter() - started < seconds:
        for _ in range(COPIES):
            device.copy_(host, non_blocking=True)
        torch.cuda.synchronize()
        images += COPIES * work.batch_size
    return images / (perf_counter() - started)
