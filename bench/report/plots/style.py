"""How do all plots look? Colours, figures with a title, rows of bars and the words beside them."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import text_to_path
from matplotlib.ticker import EngFormatter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.typing import RcKeyType

    from loaderbench.findings.findings import Analysis, Standing
    from loaderbench.records.record import Record

WIDTH_IN = 10
"""At 100 pixels per inch, the width at which text must be readable: 1,000 pixels."""
INK, GREY, PAPER, ALARM = "#222222", "#666666", "#ffffff", "#c00000"
EXCUSE = {"style": "italic", "size": 9, "color": GREY}
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
"""Okabe and Ito's palette, told apart with any colour vision."""
HATCHES = ("", "///", "...", r"\\\\", "xxx", "ooo", "---", "+++")
MARKERS = "os^Dvh*X"
BYTES = EngFormatter("B", places=0, sep=" ")  # 1,500 as 2 kB
STYLE: dict[RcKeyType, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "grid.color": "#e4e4e4",
    "savefig.dpi": 150,
    "text.color": INK,
    "text.parse_math": False,  # a title may hold dollar signs
}
_BOLD = {"weight": "bold", "size": 11}
_NOTE = {"size": 10}
_GAP_PT = 6


@dataclass(frozen=True)
class Keys:
    """Colours stand for adapters, hatches and markers for formats: the same in all plots."""

    colours: Mapping[str, str]
    hatches: Mapping[str, str]
    markers: Mapping[str, str]

    @classmethod
    def of(cls, analysis: Analysis) -> Keys:
        """Give out keys in the order of names, which does not depend on results."""
        things: Sequence[Standing | Record] = (*analysis.standings, *analysis.writes)
        adapters, formats = sorted({t.adapter for t in things}), sorted({t.format for t in things})
        return cls(
            colours=dict(zip(adapters, cycle(COLOURS), strict=False)),
            hatches=dict(zip(formats, cycle(HATCHES), strict=False)),
            markers=dict(zip(formats, cycle(MARKERS), strict=False)),
        )

    def bar(self, thing: Standing | Record) -> dict[str, Any]:
        """Return how its bars look."""
        colour, hatch = self.colours[thing.adapter], self.hatches[thing.format]
        return {"height": 0.72, "color": colour, "hatch": hatch, "edgecolor": PAPER}


def new_figure(height_in: float, **panels: Any) -> tuple[Figure, list[Axes]]:
    """Return an empty figure and its panels, side by side."""
    figure = Figure(figsize=(WIDTH_IN, height_in))
    return figure, list(figure.subplots(1, squeeze=False, **panels)[0])


def head(figure: Figure, title: str, caption: str) -> None:
    """Put a title and a line below it on top of the figure, which grows by as much."""
    lines = textwrap.wrap(caption, 145, max_lines=2, placeholder=" …")
    plot = figure.get_figheight()
    height = plot + 0.6 + 0.19 * len(lines)
    figure.set_figheight(height)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=(0.01, 0.01, 0.98, plot / height)))
    figure.text(0.015, 1 - 0.14 / height, title, size=15, weight="bold", va="top")
    figure.text(0.015, 1 - 0.48 / height, "\n".join(lines), size=9, color=GREY, va="top")


def name_rows(axes: Sequence[Axes], titles: Sequence[str], reference: str = "") -> None:
    """Name the rows of bar charts that share them, the first at the top."""
    names = [folded(t, 30) + ("\n(reference)" if t == reference else "") for t in titles]
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    for ax in axes:
        ax.tick_params(axis="y", length=0)
        ax.grid(visible=False, axis="y")


def folded(text: str, width: int, lines: int = 2) -> str:
    """Break a text into lines; what does not fit into them is left out."""
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" …"))


def beside(ax: Axes, spot: tuple[float, float], text: str, **style: Any) -> Annotation:
    """Write to the right of a spot, for example of a bar's end."""
    where = {"xytext": (_GAP_PT, 0), "textcoords": "offset points", "va": "center"}
    return ax.annotate(text, spot, in_layout=False, **where | style)


class Label(NamedTuple):
    """What is written at the end of a row's bar: a figure, and a few words."""

    row: float
    end: float
    figure: str
    note: str = ""
    colour: str = GREY


def label_ends(ax: Axes, labels: Sequence[Label], start: float = 0) -> None:
    """Write labels at the ends of named rows, and let the axis go from `start` so far that they fit.

    A `start` above zero is that of a logarithmic axis.
    """
    for label in labels:
        figure = beside(ax, (label.end, label.row), label.figure, **_BOLD)
        beside(ax, (1, 0.5), label.note, xycoords=figure, color=label.colour, **_NOTE)
    names_in = max(_width_in(tick.get_text(), _NOTE) for tick in ax.get_yticklabels())
    axis_in = WIDTH_IN - names_in - 0.6
    shares = [min(_label_in(label) / axis_in, 0.8) for label in labels]
    if start:
        decades = [math.log10(label.end / start) for label in labels]
        ax.set_xlim(start, start * 10 ** max(d / (1 - share) for d, share in zip(decades, shares, strict=True)))
    else:
        ax.set_xlim(0, max(label.end / (1 - share) for label, share in zip(labels, shares, strict=True)) or 1)


def _label_in(label: Label) -> float:
    return _width_in(label.figure, _BOLD) + _width_in(label.note, _NOTE) + 3 * _GAP_PT / 72


def _width_in(text: str, font: Mapping[str, Any]) -> float:
    properties = FontProperties(**font)
    lines = text.split("\n")
    return max(text_to_path.get_text_width_height_descent(line, properties, ismath=False)[0] for line in lines) / 72
