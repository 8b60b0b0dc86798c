"""Calibration loader of known speed and cost, which the harness must measure correctly; by default the null loader.

It delivers one prepared batch repeatedly: as fast as possible, which measures the harness's overhead (null loader), or
at fixed times, so that its speed does not depend on the machine while that keeps up. CPU time is burnt in this process,
in a child, and in grandchildren that end soon, each by its own CPU clock.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt

from loaderbench.api import Artifact, Work
from loaderbench.loaders.shared import burner

if TYPE_CHECKING:
    from torch import Tensor

requires = ("torch",)
reads = ()
streams = False


@contextmanager
def stream(  # noqa: PLR0913 - each is a cost of its own
    artifact: Artifact,
    work: Work,
    *,
    images_per_s: Annotated[float, Gt(0)] | None = None,
    burst_batches: Annotated[int, Ge(1)] = 1,
    own_cores: Annotated[float, Ge(0)] = 0.0,
    child_cores: Annotated[float, Ge(0)] = 0.0,
    grandchild_cores: Annotated[float, Ge(0)] = 0.0,
    shared_mib: Annotated[int, Ge(0)] = 0,
    read_mib: Annotated[int, Ge(0)] = 0,
    cpu_memory: Literal["pinned", "pageable"] | None = None,
) -> Iterator[Iterable[tuple[Tensor, Tensor]]]:
    """Deliver batches at a known rate and cost.

    `images_per_s`: None delivers without waiting. `burst_batches`: number of batches that are due at the same time.
    `..._cores`: CPU seconds burnt per second. `shared_mib`: memory that this process and the child share. `read_mib`:
    read from the disk at construction, from a temporary file beside the format. `cpu_memory`: leave images for a GPU in
    the CPU's memory, page-locked (`pinned`) or not (`pageable`); None delivers them on the GPU.
    """
    _read(Path(artifact.path), read_mib)
    made_for = replace(work, device="cpu") if cpu_memory else work
    batches = _Batches(artifact, made_for, images_per_s, burst_batches, own_cores)
    if cpu_memory == "pinned":
        batches.images = batches.images.pin_memory()
    descriptor = os.memfd_create("pace")
    os.truncate(descriptor, max(1, shared_mib << 20))
    # A new interpreter, not a fork of this process: small, so that its own forks cost next to nothing.
    command = [sys.executable, "-I", "-S", burner.__file__, str(descriptor), str(child_cores), str(grandchild_cores)]
    with subprocess.Popen(command, pass_fds=[descriptor]) as child, burner.held(descriptor):
        try:
            yield batches
        finally:
            child.kill()


class _Batches:
    def __init__(
        self, artifact: Artifact, work: Work, images_per_s: float | None, burst_batches: int, own_cores: float
    ) -> None:
        import torch

        shape = (work.batch_size, 3, work.image_size, work.image_size)
        self.images = torch.zeros(shape, dtype=getattr(torch, work.dtype), device=work.device)
        counts = torch.tensor(artifact.label_counts or (artifact.samples,))
        self.labels = torch.arange(len(counts)).repeat_interleave(counts * work.passes)[work.rank :: work.ranks]
        self.images_per_s = images_per_s
        self.burst_images = burst_batches * work.batch_size
        self.own_cores = own_cores
        self.start_s = 0.0
        self.handed_out = 0

    def __len__(self) -> int:
        return math.ceil(len(self.labels) / len(self.images))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for labels in self.labels.split(len(self.images)):
            if self.images_per_s:
                self._wait(len(labels), self.images_per_s)
            yield self.images[: len(labels)], labels

    def _wait(self, count: int, images_per_s: float) -> None:
        """Burn CPU time, then sleep until the next images are due.

        The schedule starts with the first batch. It restarts if a batch is late by the time between two bursts or
        more. Otherwise all images that are due would come at once, faster than `images_per_s`.
        """
        burner.burn_until(time.process_time() + self.own_cores * count / images_per_s)
        now_s = time.perf_counter()
        self.start_s = self.start_s or now_s
        late_s = now_s - self.start_s - self.handed_out // self.burst_images * self.burst_images / images_per_s
        self.handed_out += count
        if late_s >= self.burst_images / images_per_s:
            self.start_s += late_s
        time.sleep(max(0.0, -late_s))


def _read(folder: Path, read_mib: int) -> None:
    """Write a file of that size, drop it from the page cache, and read it once."""
    if not read_mib:
        return
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(read_mib):
            file.write(bytes(1 << 20))
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        while file.read(1 << 20):
            pass
