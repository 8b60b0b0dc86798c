"""All plots of a report; alone in importing matplotlib."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure

from loaderbench.findings.findings import Analysis
from loaderbench.report.plots import over_time, resources, scaling, speed, trade_offs, waiting
from loaderbench.report.plots.style import STYLE, Palette, add_title


class Plot(NamedTuple):
    """One picture of a report. `draw` returns None if there is nothing to show."""

    file: str
    title: str
    draw: Callable[[Analysis, Palette], Figure | None]


PLOTS = (
    Plot("headline.png", "Steady throughput by loader", speed.headline),
    Plot("best.png", "Throughput with shared and with tuned settings", speed.tuned),
    Plot("demand.png", "How busy each loader keeps an accelerator", over_time.demand),
    Plot("training.png", "Training throughput by loader", speed.training),
    Plot("keeping-busy.png", "How long training waits for data, by number of workers", scaling.stalls),
    Plot("scaling.png", "Throughput and CPU time by number of workers", scaling.by_workers),
    Plot("streaming.png", "Images delivered over time (data in S3)", over_time.delivered),
    Plot("bound.png", "Throughput compared with the machine limit", speed.machine_limit),
    Plot("published.png", "Speed ratios: published and measured here", speed.published),
    Plot("speed-cost.png", "Throughput and its price in CPU time", trade_offs.cpu_cost),
    Plot("speed-size.png", "Throughput and its price in disk space", trade_offs.disk_space),
    Plot("first-batch.png", "Start-up: time to the first batch", waiting.first_batch),
    Plot("cold.png", "First epoch from memory and from disk", waiting.cold),
    Plot("from-disk.png", "Throughput and what is read from the disk for each image", trade_offs.from_disk),
    Plot("waits.png", "Waiting time per batch", waiting.waits),
    Plot("convert.png", "Time and disk space to write each format", resources.conversion),
    Plot("load.png", "CPU and GPU utilisation", resources.utilisation),
    Plot("gpu-time.png", "GPU utilisation over time", over_time.gpu_utilisation),
    Plot("memory.png", "Memory by loader", resources.memory),
)


def render(analysis: Analysis, caption: str, folder: Path) -> tuple[Plot, ...]:
    """Write the plots that have something to show into a folder, each with the caption, and return them."""
    drawn = figures(analysis, caption)
    with rc_context(STYLE):
        for plot, figure in drawn.items():
            figure.savefig(folder / plot.file)
    return tuple(drawn)


def figures(analysis: Analysis, caption: str) -> dict[Plot, Figure]:
    """Return the figures of the plots that have something to show."""
    palette = Palette.of(analysis)
    drawn = {}
    with rc_context(STYLE):
        for plot in PLOTS:
            if figure := plot.draw(analysis, palette):
                add_title(figure, plot.title, caption)
                drawn[plot] = figure
    return drawn
