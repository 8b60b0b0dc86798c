"""Plots of images per second: who delivers most, how close that is to what is possible, and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.colors import to_rgba

from loaderbench.findings.findings import shown
from loaderbench.report.plots.style import (
    ALARM,
    BYTES,
    EXCUSE,
    GREY,
    INK,
    PAPER,
    Keys,
    Label,
    beside,
    folded,
    label_ends,
    name_rows,
    new_figure,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from matplotlib.ticker import Formatter

    from loaderbench.findings.comparison import Comparison
    from loaderbench.findings.findings import Analysis, Standing


def headline(analysis: Analysis, keys: Keys) -> Figure | None:
    """Bars of images/s, fastest first, and below them those of other work; whoever has no speed is listed with the
    reason.
    """
    if not analysis.recorded:
        return None
    standings = analysis.standings
    figure, (ax,) = new_figure(0.9 + 0.46 * len(standings))
    labels = []
    for row, s in enumerate(standings):
        if not s.speeds:
            beside(ax, (0, row), folded(s.trouble or "not run yet", 85), **EXCUSE)
            continue
        pale = {"alpha": 0.45} if s.other_work else {}
        alarm = {"color": to_rgba(keys.colours[s.adapter], 0.35), "edgecolor": ALARM, "linewidth": 1.5}
        ax.barh(row, s.median, **keys.bar(s) | (alarm if s.beyond_bound else pale))
        ax.plot([min(s.speeds), max(s.speeds)], [row, row], color=INK, linewidth=1.5)
        ax.plot(s.speeds, [row] * len(s.speeds), "o", color=INK, mfc=PAPER, markersize=4)
        colour = ALARM if s.beyond_bound else GREY
        labels.append(Label(row, max(s.speeds), shown(s.median), _note(s, analysis), colour))
    titles = {s.name: s.title for s in standings}
    name_rows([ax], list(titles.values()), titles[analysis.reference])
    if labels:
        label_ends(ax, labels)
    if first_other := next((row for row, s in enumerate(standings) if s.speeds and s.other_work), 0):
        ax.axhline(first_other - 0.5, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    ax.set_xlabel("images per second: median, and each block (dots)")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.xaxis.set_visible(bool(labels))
    return figure


def _note(s: Standing, analysis: Analysis) -> str:
    """Say how it stands to the reference, and which of its blocks are missing."""
    notes = []
    if s.beyond_bound:
        notes.append("more than its bound:\nunequal work")
    elif s.other_work and s.reference:
        notes.append(f"{_times(s.reference, descriptive=True)}   {folded(f'other work: {s.other_work}', 46)}")
    elif s.reference:
        notes.append(_times(s.reference, descriptive=analysis.descriptive))
    if s.trouble:
        notes.append(f"{len(s.speeds)} of {analysis.blocks} blocks")
    return "   ".join(notes)


def _times(compared: Comparison, *, descriptive: bool) -> str:
    mean = compared.ratio.mean
    decimals = 2 if mean < 1.1 else 1 if mean < 10 else 0  # noqa: PLR2004 - 0.56, 1.01, 4.4, 12
    unsure = not descriptive and compared.verdict in {"tie", "unresolved"}
    return f"{mean:.{decimals}f}×" + (f" ({compared.verdict})" if unsure else "")  # noqa: RUF001 - times


def bound(analysis: Analysis, keys: Keys) -> Figure | None:
    """Bars of images/s in bars of what the slowest step of the same work allows, closest first."""
    standings = [s for s in analysis.measured if s.medians.keys() >= {"bound_ips", "pct_of_bound"}]
    standings.sort(key=lambda s: -s.medians["pct_of_bound"])
    if not standings:
        return None
    figure, (ax,) = new_figure(0.9 + 0.46 * len(standings))
    labels = []
    for row, s in enumerate(standings):
        limit, share = s.medians["bound_ips"], s.medians["pct_of_bound"]
        colour = ALARM if s.beyond_bound else GREY
        ax.barh(row, limit, height=0.72, color=to_rgba(keys.colours[s.adapter], 0.15), edgecolor=colour)
        ax.barh(row, s.median, **keys.bar(s) | {"height": 0.46})
        if s.beyond_bound:
            ax.barh(row, max(0, s.median - limit), left=limit, height=0.46, color=ALARM)
        unequal = ": more than its bound, unequal work" if s.beyond_bound else ""
        note = folded(f"of {s.bound_by or 'its bound'}{unequal}", 36)
        figures = f"{share:.1f} %" if s.beyond_bound else f"{share:.0f} %"  # 100.4 % must not read as 100 %
        labels.append(Label(row, max(limit, s.median), figures, note, colour))
    name_rows([ax], [s.title for s in standings])
    label_ends(ax, labels)
    ax.set_xlabel("images per second, in the outline of what its slowest step alone would allow")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    return figure


def speed_cost(analysis: Analysis, keys: Keys) -> Figure | None:
    """Images/s against CPU-seconds per 1,000 images."""
    return _against(analysis, keys, "cpu_s_per_1k_images", "CPU-seconds per 1,000 images", "{x:g}")


def speed_size(analysis: Analysis, keys: Keys) -> Figure | None:
    """Images/s against bytes per image."""
    return _against(analysis, keys, "bytes_per_image", "bytes per image on disk", BYTES)


def _against(analysis: Analysis, keys: Keys, column: str, label: str, unit: str | Formatter) -> Figure | None:
    """Points of images/s, their titles at the right in order of height."""
    points = [s for s in analysis.measured if column in s.medians]
    if len(points) < 2:  # noqa: PLR2004 - nothing to compare
        return None
    titles = [folded(s.title + (" (other work)" if s.other_work else ""), 38) for s in points]
    gap = 0.38 if any("\n" in title for title in titles) else 0.22
    height = max(4.0, 0.6 + gap * len(points))
    figure, (ax,) = new_figure(height)
    top = 1.08 * max(max(s.speeds) for s in points)
    places = _spread([s.median / top for s in points], gap / (height - 0.6))
    for s, title, place in zip(points, titles, places, strict=True):
        x, colour = s.medians[column], keys.colours[s.adapter]
        ax.plot([x, x], [min(s.speeds), max(s.speeds)], color=colour, linewidth=1.5)
        ax.plot(x, s.median, keys.markers[s.format], color=colour, markersize=10, mec=PAPER)
        line = {"arrowstyle": "-", "color": colour, "alpha": 0.6, "relpos": (0, 0.5)}
        ax.annotate(
            title, (x, s.median), xytext=(1.04, place), textcoords="axes fraction", va="center",
            size=9.5, annotation_clip=False, arrowprops=line,
        )  # fmt: skip
    ax.set(xlim=(0, 1.08 * max(s.medians[column] for s in points)), xlabel=f"← better   {label}")
    ax.set(ylim=(0, top), ylabel="images per second   better →")
    ax.xaxis.set_major_formatter(unit)
    ax.yaxis.set_major_formatter("{x:,.0f}")
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
