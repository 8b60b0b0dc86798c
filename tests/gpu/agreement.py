"""Compare what the harness says of a GPU with what others say. Pure functions, which need no GPU."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from loaderbench.certify.pixels import LEAST_DB
from loaderbench.images import CanonicalImages

Pixels = NDArray[np.uint8]
TOLERANCE = 0.05
MARKER = "spin_kernel"
"""Part of the name of the kernel of `torch.cuda._sleep`, which `tests.gpu.tasks.profile` runs around each step."""


def digest(pixels: Pixels) -> str:
    """Return the SHA-256 of an image."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def by_label(images: Pixels, labels: NDArray[np.int64]) -> list[tuple[int, Pixels]]:
    """Return images, given as n x 3 x height x width, as height x width x 3 beside their labels."""
    return list(zip(labels.tolist(), images.transpose(0, 2, 3, 1), strict=True)) if len(labels) else []


def source(canonical: CanonicalImages, form: str) -> dict[int, Pixels]:
    """Return the images that a format stores, by label: the canonical pixels, or the canonical JPEG bytes decoded."""
    stored = {}
    for index in range(len(canonical)):
        raw = canonical.mapped("pixels" if form.endswith("raw") else "jpeg", index)
        stored[canonical.label(index)] = raw if raw.ndim > 1 else cv2.imdecode(raw, cv2.IMREAD_COLOR_RGB)
    return stored


def wrong_pixels(consumed: Iterable[tuple[int, Pixels]], stored: Mapping[int, Pixels], *, exact: bool) -> list[str]:
    """Return what is wrong with consumed images: those that are not the stored ones, and those that never came.

    Both are labelled by image. `exact`: whether their digests must be equal, or their PSNR as of two decoders.
    """
    digests, seen, wrong = {label: digest(pixels) for label, pixels in stored.items()}, set(), []
    for number, (label, pixels) in enumerate(consumed):
        seen.add(label)
        if digest(pixels) != digests[label] and (exact or cv2.PSNR(pixels, stored[label]) < LEAST_DB):
            wrong.append(f"image {number}, of label {label}")
    return [*wrong, *(f"never label {label}" for label in sorted(stored.keys() - seen))]


def step_spans(trace: Mapping[str, Any], steps: int) -> list[tuple[float, float]]:
    """Return begin and end of the last steps on the GPU, in µs, from the markers in a trace of torch's profiler."""
    kernels = [event for event in trace["traceEvents"] if event.get("cat") == "kernel" and MARKER in event["name"]]
    kernels.sort(key=lambda event: event["ts"])
    marks = [(event["ts"], event["ts"] + event["dur"]) for event in kernels][-2 * steps :]
    assert len(marks) == 2 * steps, f"{len(kernels)} markers of {steps} steps"
    return [(begin[0], end[1]) for begin, end in zip(marks[::2], marks[1::2], strict=True)]


def starved_pct(spans: Sequence[tuple[float, float]], opened: int, closed: int) -> float:
    """Return the share of time between steps, in %, from the end of step `opened` to the end of step `closed`."""
    window = spans[opened : closed + 1]
    idle = sum(after[0] - before[1] for before, after in pairwise(window))
    return 100 * idle / (window[-1][1] - window[0][1])


def copy_p50_ms(trace: Mapping[str, Any], size_bytes: int, steps: int, opened: int, closed: int) -> float:
    """Return the median copy of a batch to the GPU in the window. `size_bytes`: of a batch; one copy for each step."""
    copies = [
        event
        for event in trace["traceEvents"]
        if event.get("cat") == "gpu_memcpy" and "HtoD" in event["name"] and event["args"]["bytes"] == size_bytes
    ]
    copies.sort(key=lambda event: event["ts"])
    assert len(copies) >= steps, f"{len(copies)} copies of {steps} batches"
    return median(event["dur"] for event in copies[-steps:][opened + 1 : closed + 1]) / 1000


def agree(one: float, other: float) -> bool:
    """Return whether two measurements of the same thing differ by at most 5 % of the larger one."""
    return abs(one - other) <= TOLERANCE * max(abs(one), abs(other))


def unexplained(load: Mapping[str, Any]) -> list[str]:
    """Return the columns of `GpuLoad` that are empty without a reason. Without throttling, `gpu_throttle` is empty."""
    reasons = load["gpu_reason"]
    return [name for name, value in load.items() if value is None and name not in reasons]
