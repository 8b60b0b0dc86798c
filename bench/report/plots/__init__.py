"""What does the comparison look like? One question per plot; alone in importing matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from matplotlib import rc_context

from loaderbench.report.plots import best, feeding, resources, speed, streaming, waiting
from loaderbench.report.plots import replication as published
from loaderbench.report.plots.style import STYLE, Keys, head

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.figure import Figure

    from loaderbench.findings.findings import Analysis


class Plot(NamedTuple):
    """One picture of a report. `draw` returns None if there is nothing to show."""

    file: str
    title: str
    draw: Callable[[Analysis, Keys], Figure | None]


PLOTS = (
    Plot("headline.png", "Which loader delivers the most images per second?", speed.headline),
    Plot("best.png", "What does tuning gain each loader?", best.gain),
    Plot("demand.png", "How fast an accelerator does each loader keep busy?", feeding.demand),
    Plot("training.png", "How much does training wait for each loader?", feeding.training),
    Plot("streaming.png", "With the data in a bucket, who has delivered how much by when?", streaming.courses),
    Plot("bound.png", "How close does each loader come to what this machine can do?", speed.bound),
    Plot(
        "published.png",
        "What of the published difference was the loaders, and what the set-up?",
        published.published,
    ),
    Plot("speed-cost.png", "Which loader is fast and cheap in CPU time?", speed.speed_cost),
    Plot("speed-size.png", "How much disk does the speed cost?", speed.speed_size),
    Plot("first-batch.png", "How long until the first batch?", waiting.first_batch),
    Plot("cold.png", "What does the first epoch cost when the data must come from the disk?", waiting.cold),
    Plot("waits.png", "How long does training wait for a batch?", waiting.waits),
    Plot("convert.png", "How long does converting take, and how large is the result?", resources.convert),
    Plot("load.png", "How busy are the CPU and the GPU?", resources.load),
    Plot("gpu-time.png", "How busy does each loader keep the GPU over time?", resources.gpu_over_time),
    Plot("memory.png", "How much memory does each loader hold?", resources.memory),
)


def render(analysis: Analysis, caption: str, folder: Path) -> tuple[Plot, ...]:
    """Write the plots that have something to show, captioned, and return them."""
    drawn = figures(analysis, caption)
    with rc_context(STYLE):
        for plot, figure in drawn.items():
            figure.savefig(folder / plot.file)
    return tuple(drawn)


def figures(analysis: Analysis, caption: str) -> dict[Plot, Figure]:
    """Draw the plots that have something to show."""
    keys = Keys.of(analysis)
    drawn = {}
    with rc_context(STYLE):
        for plot in PLOTS:
            if figure := plot.draw(analysis, keys):
                head(figure, plot.title, caption)
                drawn[plot] = figure
    return drawn
