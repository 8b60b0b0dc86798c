"""Line plots: accelerator utilisation by demand, images delivered over time, and GPU utilisation over time."""

import numpy as np
from matplotlib.figure import Figure

from loaderbench.findings.findings import Analysis, shown
from loaderbench.report.plots.style import (
    COUNT,
    GREY,
    INK,
    Palette,
    annotate_right,
    name_rows,
    new_figure,
    wrapped,
)
from loaderbench.trial.consumers.demand_sweep import FED

_LINES = {"stream": "-", "bounded": ":", "download": "--"}
_MINUTES_FROM_S = 300
_WHOLE = 0.9
"""Samples over more than this share of the window count as covering all of it."""
_STRIP = 0.8
"""Height of a strip, as a share of the distance between rows."""
_DOING = {"train": "in training", "hungry": "with batches only taken"}


def demand(analysis: Analysis, palette: Palette) -> Figure | None:
    """Draw, for each loader, how busy an emulated accelerator is over the images/s that it could take."""
    paced = [fed for fed in analysis.by_consumer if fed.consumer == "paced" and fed.curve]
    if not paced:
        return None
    figure, (ax,) = new_figure(5)
    for fed, look in zip(paced, palette.lines(fed.summary for fed in paced), strict=True):
        s = fed.summary
        rate = s.medians.get("fed_images_per_s")
        name = wrapped(s.title, 44) + (f": {shown(rate)}" if rate else "")
        demands, busy = zip(*fed.curve, strict=True)
        ax.plot(demands, busy, ms=5, label=name, **look)
    ax.axhline(100 * FED, color=INK, ls="--", lw=1)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(COUNT)
    ax.xaxis.set_minor_formatter(lambda x, _: f"{x:,.0f}" if f"{x:.0e}"[0] in "25" else "")
    ax.set_xlabel("demand: images/s that the accelerator could take")
    ax.set_ylabel("accelerator busy, % of time")
    ax.set_ylim(0, 105)
    title = f"Highest demand with the accelerator {100 * FED:.0f}% busy (dashed line), images/s"
    figure.legend(title=title, loc="outside lower center", ncols=2, frameon=False)
    return figure


def delivered(analysis: Analysis, palette: Palette) -> Figure | None:
    """Draw images delivered over the time since each trial began, median over blocks."""
    curves = sorted((f for f in analysis.by_transport if f.curves), key=lambda f: f.end_s or 0)
    if not curves:
        return None
    figure, (ax,) = new_figure(5.5)
    longest_s = max(f.end_s or 0 for f in curves)
    unit, unit_s = ("minutes", 60) if longest_s > _MINUTES_FROM_S else ("seconds", 1)
    for f in curves:
        first = f.curves[0]
        images = np.union1d(first.images, [first.epoch_images])
        since = np.median([curve.when_s(images) for curve in f.curves], axis=0) / unit_s
        colour, style, name = palette.colours[f.summary.adapter], _LINES[f.transport], wrapped(f.title, 70)
        ax.plot([0, since[0], *since], [0, 0, *images], color=colour, ls=style, lw=2, label=name)
        ax.plot(since[images == first.epoch_images], first.epoch_images, "o", color=colour, ms=7)
    ax.set_xlim(0)
    ax.set_ylim(0)
    ax.yaxis.set_major_formatter(COUNT)
    ax.set_xlabel(f"{unit} since the trial began (process start, download and imports included); dot: end of epoch 1")
    ax.set_ylabel("images delivered")
    figure.legend(
        title="In the order in which they finished all epochs", loc="outside lower center", ncols=2, frameon=False
    )
    return figure


def gpu_utilisation(analysis: Analysis, palette: Palette) -> Figure | None:
    """Draw a strip for each loader, as high as the GPU was busy, over the time of the window."""
    if not analysis.gpu_uses:
        return None
    figure, (ax,) = new_figure(1.1 + 0.62 * len(analysis.gpu_uses))
    end_s = max(use.samples[-1][0] for use in analysis.gpu_uses)
    for row, use in enumerate(analysis.gpu_uses):
        at_s, busy_pct = zip(*use.samples, strict=True)
        floor = row + 0.4
        tops = [floor - _STRIP * pct / 100 for pct in busy_pct]
        ax.fill_between(at_s, tops, floor, step="pre", color=palette.colours[use.adapter], lw=0)
        ax.hlines([floor, floor - _STRIP], 0, end_s, color=GREY, lw=0.5)
        annotate_right(ax, (end_s, row), f"mean {shown(sum(busy_pct) / len(busy_pct))}%")
    name_rows([ax], [use.title for use in analysis.gpu_uses])
    ax.set_xlim(0, 1.25 * (end_s or 1))
    longest_s = max(use.window_s for use in analysis.gpu_uses)
    whole = end_s > _WHOLE * longest_s
    part = "the window" if whole else f"the last {end_s:.0f} s of the window (all that NVML kept)"
    ax.set_xlabel(f"seconds of {part}, {_DOING[analysis.gpu_uses[0].consumer]}; full strip: GPU 100% busy")
    return figure
