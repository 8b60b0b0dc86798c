"""The plot of contestants whose data is in a bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loaderbench.report.plots.style import Keys, folded, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loaderbench.findings.findings import Analysis

LINES = {"stream": "-", "bounded": ":", "download": "--"}
_MINUTES_FROM_S = 300


def courses(analysis: Analysis, keys: Keys) -> Figure | None:
    """One line for each: images delivered over the time since it began, median over blocks."""
    racing = sorted((f for f in analysis.fetched if f.courses), key=lambda f: f.end_s or 0)
    if not racing:
        return None
    figure, (ax,) = new_figure(5.5)
    longest_s = max(f.end_s or 0 for f in racing)
    unit, unit_s = ("minutes", 60) if longest_s > _MINUTES_FROM_S else ("seconds", 1)
    for f in racing:
        first = f.courses[0]
        images = np.union1d(first.images, [first.epoch_images])
        since = np.median([course.when_s(images) for course in f.courses], axis=0) / unit_s
        colour, style, name = keys.colours[f.standing.adapter], LINES[f.transport], folded(f.title, 70)
        ax.plot([0, since[0], *since], [0, 0, *images], color=colour, ls=style, lw=2, label=name)
        ax.plot(since[images == first.epoch_images], first.epoch_images, "o", color=colour, ms=7)
    ax.set_xlim(0)
    ax.set_ylim(0)
    ax.yaxis.set_major_formatter("{x:,.0f}")
    ax.set_xlabel(f"{unit} since the start: processes, download, imports and all; dot: the first epoch is over")
    ax.set_ylabel("images delivered")
    figure.legend(title="Through all epochs, soonest first", loc="outside lower center", ncols=2, frameon=False)
    return figure
