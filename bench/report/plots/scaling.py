"""Line plots by number of workers: of images/s and CPU time, and of how long training waits for data."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from loaderbench.findings.findings import Analysis, ScalingCurve
from loaderbench.findings.keeping_busy import BUSY_STALL_PCT, Points, stalls_pct, trained
from loaderbench.report.plots.style import COUNT, GREY, INK, Palette, new_figure, wrapped


def by_workers(analysis: Analysis, palette: Palette) -> Figure | None:
    """Draw images/s and CPU-seconds per 1,000 images against the number of workers."""
    curves = [curve for curve in analysis.scaling if not curve.trains and _measured(curve)]
    if not curves:
        return None
    figure, (speed, cost) = new_figure(5, ncols=2)
    _draw(curves, palette, speed, cost, _costs_s)
    own = {n for curve in curves for n, point in curve.points.items() if point is curve.main}
    for ax, label in ((speed, "images/s   better →"), (cost, "CPU-seconds per 1,000 images   ← better")):
        _count_workers(ax, curves, label)
        for workers in own:
            ax.axvline(workers, color=GREY, ls="--", lw=1)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def stalls(analysis: Analysis, palette: Palette) -> Figure | None:
    """Draw the data stall and images/s in training against the number of workers."""
    curves = [curve for curve in trained(analysis) if stalls_pct(curve.points)]
    if not curves:
        return None
    figure, (stall, speed) = new_figure(5, ncols=2)
    _draw(curves, palette, speed, stall, stalls_pct)
    cached = [p.medians.get("warm_cached_images_per_s", 0.0) for curve in curves for p in curve.points.values()]
    stall.axhline(BUSY_STALL_PCT, color=INK, ls="--", lw=1)
    speed.axhline(max(cached), color=INK, ls="--", lw=1)
    _count_workers(stall, curves, "waiting for data, % of the time   ← better")
    _count_workers(speed, curves, "images/s in training   better →")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _measured(curve: ScalingCurve) -> Points:
    """Return the points of a curve that have a speed."""
    return {workers: point for workers, point in curve.points.items() if point.speeds}


def _costs_s(points: Points) -> dict[int, float]:
    """Return the CPU-seconds per 1,000 images, where they are known."""
    return {n: p.medians["cpu_s_per_1k_images"] for n, p in points.items() if "cpu_s_per_1k_images" in p.medians}


def _draw(
    curves: Collection[ScalingCurve],
    palette: Palette,
    speed: Axes,
    other: Axes,
    values: Callable[[Points], Mapping[int, float]],
) -> None:
    """Draw the speeds of each curve in one panel, and other values of its points in another one."""
    for curve, style in zip(curves, palette.lines(curve.main for curve in curves), strict=True):
        measured = _measured(curve)
        _draw_speeds(speed, curve.main.title, measured, style)
        found = values(measured)
        other.plot([*found], [*found.values()], **style)


def _draw_speeds(ax: Axes, title: str, points: Points, style: Mapping[str, Any]) -> None:
    """Draw median images/s, and a vertical line from the slowest to the fastest block."""
    ax.plot([*points], [p.median for p in points.values()], label=wrapped(title, 44), **style)
    for workers, point in points.items():
        ax.plot([workers] * 2, [min(point.speeds), max(point.speeds)], color=style["color"], lw=1.5)
    ax.yaxis.set_major_formatter(COUNT)


def _count_workers(ax: Axes, curves: Collection[ScalingCurve], label: str) -> None:
    """Label the axes of a panel, and mark all numbers of workers."""
    numbers = sorted({workers for curve in curves for workers in curve.points})
    ax.set_xscale("log", base=2)
    ax.set_xticks(numbers, map(str, numbers))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set(xlabel="workers", ylabel=label)
    ax.set_ylim(0, 1.05 * ax.get_ylim()[1])
