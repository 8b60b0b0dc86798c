"""Measure the cost of `loaderbench.watch`: loops over a loader that is watched alternate with loops that are not.

    python -m tests.perf.watching [--pairs 40] [--step-ms 1]

The loader has ready batches, and a step only computes, so nothing hides the cost. It is the same for each batch: the
share of a training is that for a step of 1 ms over the milliseconds of its step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext

import typer

from loaderbench.doctor import watch
from loaderbench.findings.comparison import ratio

_LAP_S = 1.0


class Ready:
    """A loader whose batches cost nothing."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.batches))


def main(pairs: int = 40, step_ms: float = 1.0) -> None:
    """Print the speed of a training that is watched, over one that is not."""
    rounds = _rounds(step_ms / 1000)
    loader = Ready(round(_LAP_S / (step_ms / 1000)))
    _lap_s(loader, rounds, watched=True)
    logs = []
    for pair in range(pairs):
        seconds = {watched: _lap_s(loader, rounds, watched=watched) for watched in (pair % 2 == 0, pair % 2 == 1)}
        logs.append(math.log(seconds[False] / seconds[True]))
    print(f"watched: {ratio(logs)} of the speed unwatched, {pairs} pairs, steps of {step_ms:g} ms")


def _lap_s(loader: Ready, rounds: int, *, watched: bool) -> float:
    """Return the seconds of an epoch, without the beginning and end of the watch, which a training has once."""
    with watch(loader, lambda _: None) if watched else nullcontext():
        begun = time.perf_counter()
        for _ in loader:
            _step(rounds)
        return time.perf_counter() - begun


def _step(rounds: int) -> None:
    for _ in range(rounds):
        pass


def _rounds(step_s: float) -> int:
    """Return the rounds of a step that takes so long."""
    rounds = 1 << 16
    begun = time.perf_counter()
    _step(rounds)
    return max(1, round(rounds * step_s / (time.perf_counter() - begun)))


if __name__ == "__main__":
    typer.run(main)
