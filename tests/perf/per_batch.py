"""What does the harness's own loop cost? Its laps in turn with those of a bare loop that touches batches as it does.

    python -m tests.perf.per_batch [--pairs 40] [CONTESTANT ...]

Both loops take batches from one loader in one process, in laps of about a second, so that a machine whose speed changes
slows both alike. The share is the geometric mean over pairs of the harness's images/s over the bare loop's, with a 95 %
t interval on the logarithms.
"""

from __future__ import annotations

import math
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench import config, registry
from bench.comparison import ratio
from bench.consumers.hungry import touch
from bench.display import Display
from bench.monitors.gpu import Gpu
from bench.prepare import prepare
from bench.trial import Meter, Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LAP_S = 1.0
WARM_UP_LAPS = 3
NEVER = Window(warmup_s=float("inf"), window_s=1, window_batches=1, pause_s=0)
"""The window never opens: its edges are no cost per batch."""


class _LapOverError(Exception):
    """Ends the harness's loop."""


class _Lap:
    """An iterable of so many batches, whose end ends the loop."""

    def __init__(self, batches: Iterator[Any], count: int) -> None:
        self.batches, self.count = batches, count

    def __iter__(self) -> Iterator[Any]:
        yield from islice(self.batches, self.count)
        raise _LapOverError


def main(
    contestants: Annotated[list[str] | None, typer.Argument(help="Default: all of the campaign quick.")] = None,
    pairs: int = 40,
    cache: Path = Path("data"),
) -> None:
    """Measure the harness's loop against a bare one."""
    campaign = config.load("quick")
    prepared = prepare(campaign, None, cache, Display(), strict=True)
    for contestant in campaign.contestants:
        if contestant.control or (contestants and contestant.name not in contestants):
            continue
        artifact = prepared.artifacts[contestant.format]
        work = campaign.work_on(artifact.samples, 1)
        with registry.loader(contestant.loader).stream(artifact, work, **contestant.options) as loader:
            logs = _pairs(_endless(loader), Meter((), artifact, work, NEVER, Gpu()), pairs)
        print(f"{contestant.name}: {ratio(logs)} of the bare loop, {pairs} pairs", flush=True)


def _pairs(batches: Iterator[Any], meter: Meter, pairs: int) -> list[float]:
    """Return the logarithms of the bare loop's seconds over the harness's, lap by lap of equal numbers of batches."""
    _harness_s(batches, 1, meter)  # the first batch of all has its memory read
    count = 1
    for _ in range(WARM_UP_LAPS):
        count = max(1, round(count * LAP_S / _bare_s(batches, count)))
    logs = []
    for pair in range(pairs):
        if pair % 2:
            harness_s, bare_s = _harness_s(batches, count, meter), _bare_s(batches, count)
        else:
            bare_s, harness_s = _bare_s(batches, count), _harness_s(batches, count, meter)
        logs.append(math.log(bare_s / harness_s))
    return logs


def _endless(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def _bare_s(batches: Iterator[Any], count: int) -> float:
    started_s = time.perf_counter()
    for images, _ in islice(batches, count):
        touch(images)
    return time.perf_counter() - started_s


def _harness_s(batches: Iterator[Any], count: int, meter: Meter) -> float:
    started_s = time.perf_counter()
    try:
        meter.batches = _Lap(batches, count)
        for images, _ in meter:
            touch(images)
    except _LapOverError:
        return time.perf_counter() - started_s
    raise AssertionError("a lap has no window that could close")


if __name__ == "__main__":
    typer.run(main)
