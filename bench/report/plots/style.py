"""Shared look of all plots: palette, figures with a title, and text that fits beside a mark."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Annotation
from matplotlib.textpath import text_to_path
from matplotlib.ticker import EngFormatter
from matplotlib.typing import RcKeyType

from loaderbench.findings.findings import Analysis, ContestantSummary
from loaderbench.records.record import Record

WIDTH_IN = 10
"""At 100 pixels per inch, 1,000 pixels: the width at which text must be readable."""
INK, GREY, PAPER, ALARM = "#222222", "#666666", "#ffffff", "#c00000"
EXCUSE = {"style": "italic", "size": 9, "color": GREY}
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
"""Okabe and Ito's palette, which all kinds of colour vision can distinguish."""
HATCHES = ("", "///", "...", r"\\\\", "xxx", "ooo", "---", "+++")
MARKERS = "os^Dvh*X"
COUNT = "{x:,.0f}"
BYTES = EngFormatter("B", places=0, sep=" ")  # 1,500 as 2 kB
GAP_PT = 6
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


class Look(NamedTuple):
    """How a bar is filled and edged."""

    colour: str = INK
    hatch: str = ""
    edge: str = PAPER
    """Colour of the edge and of the hatch."""


PLAIN = Look()
HOLLOW = Look(PAPER, "////", GREY)


@dataclass(frozen=True)
class Palette:
    """Colours by adapter, hatches and markers by format: the same in all plots."""

    colours: Mapping[str, str]
    hatches: Mapping[str, str]
    markers: Mapping[str, str]

    @classmethod
    def of(cls, analysis: Analysis) -> Palette:
        """Return the palette of a campaign, in the order of names, which does not depend on results."""
        things: Sequence[ContestantSummary | Record] = (*analysis.summaries, *analysis.writes)
        adapters, formats = sorted({t.adapter for t in things}), sorted({t.format for t in things})
        return cls(
            colours=dict(zip(adapters, cycle(COLOURS), strict=False)),
            hatches=dict(zip(formats, cycle(HATCHES), strict=False)),
            markers=dict(zip(formats, cycle(MARKERS), strict=False)),
        )

    def lines(self, summaries: Iterable[ContestantSummary]) -> Iterator[dict[str, Any]]:
        """Yield how the line of each contestant looks: further ones of one loader and format are dotted and hollow."""
        seen = set()
        for s in summaries:
            again = {"ls": ":", "mfc": PAPER} if (s.adapter, s.format) in seen else {}
            yield {"color": self.colours[s.adapter], "marker": self.markers[s.format], "lw": 1, **again}
            seen.add((s.adapter, s.format))

    def look(self, thing: ContestantSummary | Record) -> Look:
        """Return how its bars look."""
        return Look(self.colours[thing.adapter], self.hatches[thing.format])


def new_figure(height_in: float, **panels: Any) -> tuple[Figure, list[Axes]]:
    """Return an empty figure and its panels, side by side."""
    figure = Figure(figsize=(WIDTH_IN, height_in))
    return figure, list(figure.subplots(1, squeeze=False, **panels)[0])


def add_title(figure: Figure, title: str, caption: str) -> None:
    """Put a title and a caption above a figure, which grows by their height."""
    lines = textwrap.wrap(caption, 145, max_lines=2, placeholder=" …")
    plot = figure.get_figheight()
    height = plot + 0.6 + 0.19 * len(lines)
    figure.set_figheight(height)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=(0.01, 0.01, 0.98, plot / height)))
    figure.text(0.015, 1 - 0.14 / height, title, size=15, weight="bold", va="top")
    figure.text(0.015, 1 - 0.48 / height, "\n".join(lines), size=9, color=GREY, va="top")


def name_rows(axes: Sequence[Axes], titles: Sequence[str]) -> None:
    """Name the rows that these panels share, the first at the top."""
    names = [wrapped(title, 30) for title in titles]
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    for ax in axes:
        ax.tick_params(axis="y", length=0)
        ax.grid(visible=False, axis="y")


def wrapped(text: str, width: int, lines: int = 2) -> str:
    """Break a text into lines of at most `width` characters; the rest is cut off."""
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" …"))


def annotate_right(ax: Axes, spot: tuple[float, float], text: str, **style: Any) -> Annotation:
    """Write to the right of a spot, for example of a bar's end."""
    where = {"xytext": (GAP_PT, 0), "textcoords": "offset points", "va": "center"}
    return ax.annotate(text, spot, in_layout=False, **where | style)


def width_in(text: str, font: Mapping[str, Any]) -> float:
    """Return how many inches the widest line of a text takes."""
    properties = FontProperties(**font)
    lines = text.split("\n")
    return max(text_to_path.get_text_width_height_descent(line, properties, ismath=False)[0] for line in lines) / 72
