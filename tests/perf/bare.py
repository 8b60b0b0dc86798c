"""A bare loop over a library's loader, for comparison with the harness (see overhead.py).

With `--touch` it reads one byte of each page of every batch, as the harness does. Batches from worker processes lie in
shared memory, so the first reading has to map every page. That is a cost of the consumer, not of the harness.
"""

from __future__ import annotations

import pickle
import sys
import time
from typing import TYPE_CHECKING

from loaderbench.campaign import registry
from loaderbench.machine.touch import touch
from loaderbench.trial import TrialSpec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor


def images_per_s(
    batches: Iterable[tuple[Tensor, Tensor]], warmup_s: float, window_s: float, window_batches: int, *, touching: bool
) -> float:
    """Images per second over as many epochs as the warm-up and the window take."""
    first = start = 0.0
    count = number = 0
    while True:
        for images, _ in batches:
            now = time.perf_counter()
            if touching:
                touch(images)
            first = first or now
            if start:
                count += len(images)
                number += 1
                if now - start >= window_s and number >= window_batches:
                    return count / (now - start)
            elif now - first >= warmup_s:
                start = now


def main() -> None:
    """Print the speed of the loader that standard input describes."""
    spec: TrialSpec = pickle.load(sys.stdin.buffer)  # noqa: S301 - from overhead.py
    with registry.loader(spec.loader).stream(spec.artifact, spec.work, **spec.options) as batches:
        window = spec.window
        lengths = window.warmup_s, window.window_s, window.window_batches
        speed = images_per_s(batches, *lengths, touching="--touch" in sys.argv)
        print(f"images_per_s {speed}")


if __name__ == "__main__":
    main()
