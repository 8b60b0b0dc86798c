"""Measure the cost of the harness's loop: its laps alternate with those of a bare loop that touches batches alike.

    python -m tests.perf.per_batch [--pairs 40] [CONTESTANT ...]
    python -m tests.perf.per_batch --train --pairs 100 [CONTESTANT ...]

With `--train` both loops take the same steps of training, with the work of the campaign `train`, by default on a batch
that is there: with no loader beside them nothing hides what the harness costs.

Both loops take batches from one loader in one process, in laps of about a second, so that a machine whose speed changes
slows both alike. The share is the geometric mean over pairs of the harness's images/s over the bare loop's, with a 95 %
t interval on the logarithms.
"""

from __future__ import annotations

import math
import time
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from loaderbench.campaign import campaign as config
from loaderbench.campaign import registry
from loaderbench.findings.comparison import ratio
from loaderbench.formats import prepare
from loaderbench.machine.gpu import Gpu
from loaderbench.machine.progress import Display
from loaderbench.machine.touch import touch
from loaderbench.trial.consumers.drain import take_all
from loaderbench.trial.meter import Meter
from loaderbench.trial.spec import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from loaderbench.api import Artifact, Work

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
    contestants: Annotated[
        list[str] | None, typer.Argument(help="Default: all of the campaign quick; with --train no loader.")
    ] = None,
    pairs: int = 40,
    cache: Path = Path("data"),
    *,
    train: Annotated[bool, typer.Option(help="Train on the batches, and do not only touch them.")] = False,
) -> None:
    """Measure the harness's loop against a bare one."""
    campaign = config.load("train" if train else "quick")
    default = ["ceiling"] if train else [contestant.name for contestant in campaign.competing]
    prepared = prepare(campaign, None, cache, Display(), strict=True)
    for contestant in campaign.contestants:
        if contestant.name not in (contestants or default):
            continue
        artifact = prepared.artifacts[contestant.format]
        work = campaign.work_on(artifact.samples, 1)
        with registry.loader(contestant.loader).stream(artifact, work, **contestant.options) as loader:
            loops = (_training if train else _touching)(artifact, work)
            logs = _pairs(loops, _endless(loader), Meter((), artifact, work, NEVER, Gpu()), pairs)
        print(f"{contestant.name}: {ratio(logs)} of the bare loop, {pairs} pairs", flush=True)


class _Loops(NamedTuple):
    """The same done by a bare loop and by the harness's."""

    bare: Callable[[Any, Any], Any]
    """Is called with images and labels."""
    harness: Callable[[Meter], Any]
    """Takes them from a meter."""


def _touching(_: Artifact, work: Work) -> _Loops:
    return _Loops(lambda images, _: touch(images), partial(take_all, work))


def _training(artifact: Artifact, work: Work) -> _Loops:
    from loaderbench.campaign.schema import TrainingOptions
    from loaderbench.trial.consumers.train import Training, learn

    training = Training(TrainingOptions().model, artifact.classes, work)
    return _Loops(training.step, partial(learn, training=training))


def _pairs(loops: _Loops, batches: Iterator[Any], meter: Meter, pairs: int) -> list[float]:
    """Return the logarithms of the bare loop's seconds over the harness's, lap by lap of equal numbers of batches."""
    _harness_s(loops, batches, 1, meter)  # the first batch of all has its memory read
    count = 1
    for _ in range(WARM_UP_LAPS):
        count = max(1, round(count * LAP_S / _bare_s(loops, batches, count)))
    logs = []
    for pair in range(pairs):
        if pair % 2:
            harness_s, bare_s = _harness_s(loops, batches, count, meter), _bare_s(loops, batches, count)
        else:
            bare_s, harness_s = _bare_s(loops, batches, count), _harness_s(loops, batches, count, meter)
        logs.append(math.log(bare_s / harness_s))
    return logs


def _endless(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def _bare_s(loops: _Loops, batches: Iterator[Any], count: int) -> float:
    started_s = time.perf_counter()
    for images, labels in islice(batches, count):
        loops.bare(images, labels)
    return time.perf_counter() - started_s


def _harness_s(loops: _Loops, batches: Iterator[Any], count: int, meter: Meter) -> float:
    started_s = time.perf_counter()
    try:
        meter.batches = _Lap(batches, count)
        loops.harness(meter)
    except _LapOverError:
        return time.perf_counter() - started_s
    raise AssertionError("a lap has no window that could close")


if __name__ == "__main__":
    typer.run(main)
