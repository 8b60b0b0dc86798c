"""Line plots of images/s and CPU time by number of workers."""

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from loaderbench.findings.findings import Analysis
from loaderbench.report.plots.style import COUNT, GREY, Palette, new_figure, wrapped


def by_workers(analysis: Analysis, palette: Palette) -> Figure | None:
    """Draw images/s and CPU-seconds per 1,000 images against the number of workers."""
    curves = [curve for curve in analysis.scaling if any(point.speeds for point in curve.points.values())]
    if not curves:
        return None
    figure, (speed, cost) = new_figure(5, ncols=2)
    numbers = sorted({workers for curve in curves for workers in curve.points})
    for curve, style in zip(curves, palette.lines(curve.main for curve in curves), strict=True):
        measured = {workers: point for workers, point in curve.points.items() if point.speeds}
        speed.plot([*measured], [p.median for p in measured.values()], label=wrapped(curve.main.title, 44), **style)
        for workers, point in measured.items():
            speed.plot([workers] * 2, [min(point.speeds), max(point.speeds)], color=style["color"], lw=1.5)
        costs = {n: p.medians["cpu_s_per_1k_images"] for n, p in measured.items() if "cpu_s_per_1k_images" in p.medians}
        cost.plot([*costs], [*costs.values()], **style)
    own = {n for curve in curves for n, point in curve.points.items() if point is curve.main}
    for ax, label in ((speed, "images/s   better →"), (cost, "CPU-seconds per 1,000 images   ← better")):
        ax.set_xscale("log", base=2)
        ax.set_xticks(numbers, map(str, numbers))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set(xlabel="workers", ylabel=label)
        ax.set_ylim(0, 1.05 * ax.get_ylim()[1])
        for workers in own:
            ax.axvline(workers, color=GREY, ls="--", lw=1)
    speed.yaxis.set_major_formatter(COUNT)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure
