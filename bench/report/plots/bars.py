"""Horizontal bar charts: rows of bars, marks on them, and labels at their ends."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from loaderbench.report.plots.style import (
    ALARM,
    EXCUSE,
    GAP_PT,
    GREY,
    INK,
    PAPER,
    PLAIN,
    WIDTH_IN,
    Look,
    annotate_right,
    name_rows,
    new_figure,
    width_in,
    wrapped,
)

_BOLD = {"weight": "bold", "size": 11}
_NOTE = {"size": 10}
_ROW_IN = 0.46
_BAR_IN = 0.15
"""Height of each further bar of a row."""
_BACKED = {"size": 9.5, "bbox": {"facecolor": PAPER, "edgecolor": "none", "pad": 1}}


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar with its marks and its end label. Lengths are in the unit of the axis."""

    parts: Sequence[tuple[float, float]] = ()
    """Length and opacity of its segments, from left to right."""
    look: Look = PLAIN
    alarm: bool = False
    """Draw a red edge: the figure is not to be trusted."""
    outline: float | None = None
    """Length of a pale bar around it; the part that goes beyond is red."""
    dots: Sequence[float] = ()
    """Single measurements, joined by a line."""
    interval: tuple[float, float] | None = None
    mark: float | None = None
    """Where a line crosses the bar."""
    text: str = ""
    """Written at its end in small type."""
    excuse: str = ""
    """Why there is no bar: written in its place."""

    @property
    def end(self) -> float:
        """Return how far anything of the bar reaches to the right."""
        length = sum(length for length, _ in self.parts)
        return max(length, self.outline or 0, self.mark or 0, *self.dots, *(self.interval or ()), 0)


class Label(NamedTuple):
    """A figure in bold and a note, at the end of a row's bars."""

    figure: str
    note: str = ""
    colour: str = GREY


class Row(NamedTuple):
    """The bars of one contestant or format, from top to bottom."""

    title: str
    bars: Sequence[Bar]
    label: Label | None = None


def bars(rows: Sequence[Row], xlabel: str, legend: Sequence[tuple[str, float | Look]] = ()) -> Figure:
    """Return a chart of one panel. `legend`: names of opacities or looks."""
    height_in = 0.9 + (0.5 if legend else 0) + len(rows) * (_ROW_IN + _BAR_IN * (len(rows[0].bars) - 1))
    figure, (ax,) = new_figure(height_in)
    draw_rows(ax, rows)
    name_rows([ax], [row.title for row in rows])
    fit_labels(ax, [(number, max(bar.end for bar in row.bars), row.label) for number, row in enumerate(rows)])
    ax.set_xlabel(xlabel)
    ax.xaxis.set_major_formatter("{x:,.10g}")
    if legend:
        handles = [_patch(look) for _, look in legend]
        names = [name for name, _ in legend]
        figure.legend(handles, names, loc="outside lower center", ncols=len(legend), frameon=False)
    return figure


def _patch(look: float | Look) -> Patch:
    if isinstance(look, Look):
        return Patch(facecolor=look.colour, hatch=look.hatch, edgecolor=look.edge, linewidth=0.8)
    return Patch(color=to_rgba(INK, look))


def draw_rows(ax: Axes, rows: Sequence[Row]) -> None:
    """Draw the bars of all rows into a panel, without names and labels."""
    for number, row in enumerate(rows):
        for place, bar in enumerate(row.bars):
            height = 0.72 / len(row.bars)
            y = number + height * (place - (len(row.bars) - 1) / 2)
            if bar.excuse:
                annotate_right(ax, (0, y), wrapped(bar.excuse, 88, lines=2 if len(row.bars) == 1 else 1), **EXCUSE)
            else:
                _draw(ax, y, 0.95 * height, bar)


def _draw(ax: Axes, y: float, height: float, bar: Bar) -> None:
    """Draw one bar with its marks."""
    colour, hatch, edge = bar.look
    style: dict[str, Any] = {"height": height, "hatch": hatch if len(bar.parts) == 1 else "", "edgecolor": edge}
    if bar.outline is not None:
        edge = ALARM if bar.alarm else GREY
        ax.barh(y, bar.outline, height=height, color=to_rgba(colour, 0.15), edgecolor=edge)
        style["height"] = 0.64 * height
    elif bar.alarm:
        style |= {"edgecolor": ALARM, "linewidth": 1.5}
    left = 0.0
    for length, opacity in bar.parts:
        ax.barh(y, length, left=left, color=to_rgba(colour, opacity), **style)
        left += length
    if bar.outline is not None and left > bar.outline:
        ax.barh(y, left - bar.outline, left=bar.outline, height=style["height"], color=ALARM)
    if bar.dots:
        ax.plot([min(bar.dots), max(bar.dots)], [y, y], color=INK, linewidth=1.5)
        ax.plot(bar.dots, [y] * len(bar.dots), "o", color=INK, mfc=PAPER, markersize=4)
    if bar.interval:
        ax.plot(bar.interval, [y, y], color=INK, linewidth=1.2)
    if bar.mark is not None:
        ax.plot([bar.mark, bar.mark], [y - 0.4, y + 0.4], color=INK, linewidth=2)
    if bar.text:
        annotate_right(ax, (bar.end, y), bar.text, **_BACKED)


def fit_labels(ax: Axes, labels: Sequence[tuple[int, float, Label | None]], start: float = 0) -> None:
    """Write labels at the ends of named rows, and extend the axis from `start` so far that they fit.

    `labels`: row, end of its bars, label. A `start` above zero is that of a logarithmic axis.
    """
    given = [(row, end, label) for row, end, label in labels if label]
    for row, end, label in given:
        figure = annotate_right(ax, (end, row), label.figure, **_BOLD)
        annotate_right(ax, (1, 0.5), label.note, xycoords=figure, color=label.colour, **_NOTE)
    axis_in = WIDTH_IN - max(width_in(tick.get_text(), _NOTE) for tick in ax.get_yticklabels()) - 0.6
    ends = [(end, min(_label_in(label) / axis_in, 0.8)) for _, end, label in given]
    ends += [(end, 0.1) for _, end, label in labels if not label]
    if start:
        decades = [(math.log10(end / start), share) for end, share in ends]
        ax.set_xlim(start, start * 10 ** max(length / (1 - share) for length, share in decades))
    else:
        ax.set_xlim(0, max(end / (1 - share) for end, share in ends) or 1)


def _label_in(label: Label) -> float:
    return width_in(label.figure, _BOLD) + width_in(label.note, _NOTE) + 3 * GAP_PT / 72
