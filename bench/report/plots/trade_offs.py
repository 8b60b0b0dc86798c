"""Scatter plots of images/s against what the speed costs: CPU time or disk space."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import Formatter

from loaderbench.findings import frontier
from loaderbench.findings.findings import Analysis
from loaderbench.report.plots.style import (
    BYTES,
    COUNT,
    EXCUSE,
    GREY,
    PAPER,
    Palette,
    annotate_right,
    new_figure,
    wrapped,
)

_DECADE = 10
"""Sizes that differ by more than this factor are drawn on a logarithmic axis."""


def cpu_cost(analysis: Analysis, palette: Palette) -> Figure | None:
    """Draw images/s against CPU-seconds per 1,000 images."""
    prices = _medians(analysis, "cpu_s_per_1k_images")
    return _against(analysis, palette, prices, "CPU-seconds per 1,000 images", "{x:g}")


def disk_space(analysis: Analysis, palette: Palette) -> Figure | None:
    """Draw images/s against stored bytes per image, and join what no other contestant beats in both."""
    sizes = frontier.bytes_per_image(analysis)
    figure = _against(analysis, palette, sizes, "stored bytes per image, without index and padding", BYTES)
    if figure is None:
        return None
    [ax], (least, most) = figure.axes, (min(sizes.values()), max(sizes.values()))
    if most > _DECADE * least:
        ax.set_xscale("log")
        ax.set_xlim(least / 1.5, most * 1.5)
        ax.xaxis.set_major_formatter(BYTES)
    for one in frontier.frontiers(analysis):
        ax.plot([sizes[s.name] for s in one.contestants], [s.median for s in one.contestants], "--", color=GREY, lw=1)
        last = one.contestants[-1]
        annotate_right(ax, (sizes[last.name], last.median), one.images, xytext=(-8, 9), ha="right", **EXCUSE)
    return figure


def from_disk(analysis: Analysis, palette: Palette) -> Figure | None:
    """Draw images/s against the bytes that are read from the disk for an image."""
    prices = _medians(analysis, "read_bytes_per_image")
    return _against(analysis, palette, prices, "bytes read from the disk for each image", BYTES)


def _medians(analysis: Analysis, column: str) -> dict[str, float]:
    return {s.name: s.medians[column] for s in analysis.measured if column in s.medians}


def _against(
    analysis: Analysis, palette: Palette, prices: Mapping[str, float], label: str, unit: str | Formatter
) -> Figure | None:
    """Draw points of images/s, with their titles at the right in order of height. `prices`: by contestant."""
    points = sorted((s for s in analysis.measured if s.name in prices), key=lambda s: -s.median)
    if len(points) < 2:  # noqa: PLR2004 - nothing to compare
        return None
    titles = [wrapped(s.title + (" (not ranked)" if s.unranked_reason else ""), 38) for s in points]
    gap = 0.38 if any("\n" in title for title in titles) else 0.22
    height = max(4.0, 0.6 + gap * len(points))
    figure, (ax,) = new_figure(height)
    top = 1.08 * max(max(s.speeds) for s in points)
    places = _spread([s.median / top for s in points], gap / (height - 0.6))
    for s, title, place in zip(points, titles, places, strict=True):
        x, colour = prices[s.name], palette.colours[s.adapter]
        ax.plot([x, x], [min(s.speeds), max(s.speeds)], color=colour, linewidth=1.5)
        ax.plot(x, s.median, palette.markers[s.format], color=colour, markersize=10, mec=PAPER)
        line = {"arrowstyle": "-", "color": colour, "alpha": 0.6, "relpos": (0, 0.5)}
        ax.annotate(
            title, (x, s.median), xytext=(1.04, place), textcoords="axes fraction", va="center",
            size=9.5, annotation_clip=False, arrowprops=line,
        )  # fmt: skip
    ax.set(xlim=(0, 1.08 * max(prices[s.name] for s in points)), xlabel=f"← better   {label}")
    ax.set(ylim=(0, top), ylabel="images/s   better →")
    ax.xaxis.set_major_formatter(unit)
    ax.yaxis.set_major_formatter(COUNT)
    return figure


def _spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Return heights at least `gap` apart and close to the wanted ones, both from the top down."""
    places: list[float] = []
    for height in wanted:
        places.append(min(height, places[-1] - gap) if places else height)
    floor = gap / 2
    for i in reversed(range(len(places))):  # what was pushed below the axis pushes back
        places[i] = max(places[i], floor)
        floor = places[i] + gap
    return places
