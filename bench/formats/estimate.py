"""What will it take to prepare so many images: how long, how much disk, at what cost? Measured on two samples of them.

Each part of the work costs so much by itself and so much per image. Both are found by preparing two samples of
different sizes, with the code that will prepare them all, and drawing the straight line through the two.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loaderbench.machine.files import size_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from loaderbench.formats.prepare import Prepared

SAMPLES = (256, 1024)
"""Sizes of the two samples, images."""
_GIB = 1 << 30
_HOUR_S = 3600


@dataclass(frozen=True)
class Part:
    """The canonical images, or one format."""

    title: str
    seconds: float
    size_bytes: float


@dataclass(frozen=True)
class Estimate:
    """What preparing all images will take."""

    images: int
    parts: tuple[Part, ...]
    free_bytes: int
    """On the disk that it will take."""

    @property
    def seconds(self) -> float:
        """Return how long it will take on this machine."""
        return sum(part.seconds for part in self.parts)

    @property
    def size_bytes(self) -> float:
        """Return how much disk it will take."""
        return sum(part.size_bytes for part in self.parts)

    def lines(self, usd_per_hour: float | None = None) -> list[str]:
        """Return it in words, the sum first. `usd_per_hour`: what the machine costs."""
        cores = len(os.sched_getaffinity(0))
        cost = f" (${self.seconds / _HOUR_S * usd_per_hour:,.2f})" if usd_per_hour is not None else ""
        duration = f"about {_duration(self.seconds)} on {cores} cores{cost}"
        size = f"{self.size_bytes / _GIB:.3g} GiB, where {self.free_bytes / _GIB:.3g} GiB is free"
        total = f"preparing {self.images:,} images takes {duration} and {size}:"
        return [total, *(f"  {p.title}: {_duration(p.seconds)}, {p.size_bytes / _GIB:.3g} GiB" for p in self.parts)]


def estimate(prepare: Callable[[int, Path], Prepared], images: int, cache: Path) -> Estimate:
    """Return what it will take to prepare so many images.

    `prepare` prepares a sample of a number of images in a cache of its own.
    """
    few, more = (_measure(prepare, samples, cache) for samples in SAMPLES)
    parts = []
    for title in more:
        line = [_line(*values, images) for values in zip(few.get(title, more[title]), more[title], strict=True)]
        parts.append(Part(title, *line))
    return Estimate(images, tuple(parts), shutil.disk_usage(cache).free)


def _measure(prepare: Callable[[int, Path], Prepared], samples: int, cache: Path) -> dict[str, tuple[float, float]]:
    """Return seconds and bytes of each part for a sample, by title."""
    with tempfile.TemporaryDirectory(prefix="estimate-", dir=cache) as folder:
        start = time.perf_counter()
        prepared = prepare(samples, Path(folder))
        whole_s = time.perf_counter() - start
        folders = {name: Path(artifact.path) for name, artifact in prepared.artifacts.items()}
        written = {r.title: (r.write_s, size_bytes(folders[r.format])) for r in prepared.records if r.write_s}
        canonical_bytes = sum(map(size_bytes, set(prepared.canonicals.values())))
    rest_s = whole_s - sum(seconds for seconds, _ in written.values())
    return {"decoding once for all formats, and checking them": (rest_s, canonical_bytes), **written}


def _line(few: float, more: float, images: int) -> float:
    """Return where the line through the two samples' values comes to at so many images."""
    each = max(more - few, 0) / (SAMPLES[1] - SAMPLES[0])
    return more + each * (images - SAMPLES[1])


def _duration(seconds: float) -> str:
    if seconds < 100:  # noqa: PLR2004
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < _HOUR_S else f"{seconds / _HOUR_S:.1f} h"
