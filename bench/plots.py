"""What does the comparison look like? One question per plot; alone in importing matplotlib."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib import rc_context
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter

from bench.analysis import START_PHASES, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.ticker import Formatter
    from matplotlib.typing import RcKeyType

    from bench.analysis import Analysis, Standing
    from bench.records import Record

WIDTH_IN = 10
"""At 100 pixels per inch, the width at which text must be readable: 1,000 pixels."""
INK, GREY, PAPER = "#222222", "#666666", "#ffffff"
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


class Plot(NamedTuple):
    """One picture of a report. `draw` returns None if there is nothing to show."""

    file: str
    title: str
    draw: Callable[[Analysis, Keys], Figure | None]


def render(analysis: Analysis, caption: str, folder: Path) -> tuple[Plot, ...]:
    """Write the plots that have something to show, captioned, and return them."""
    keys = Keys.of(analysis)
    drawn = []
    with rc_context(STYLE):
        for plot in PLOTS:
            if figure := plot.draw(analysis, keys):
                _head(figure, plot.title, caption)
                figure.savefig(folder / plot.file)
                drawn.append(plot)
    return tuple(drawn)


def _figure(height_in: float, **panels: Any) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH_IN, height_in))
    return figure, list(figure.subplots(1, squeeze=False, **panels)[0])


def _head(figure: Figure, title: str, caption: str) -> None:
    """Put a title and a line below it on top of the figure, which grows by as much."""
    lines = textwrap.wrap(caption, 145, max_lines=2, placeholder=" …")
    plot = figure.get_figheight()
    height = plot + 0.6 + 0.19 * len(lines)
    figure.set_figheight(height)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=(0.01, 0.01, 0.98, plot / height)))
    figure.text(0.015, 1 - 0.14 / height, title, size=15, weight="bold", va="top")
    figure.text(0.015, 1 - 0.48 / height, "\n".join(lines), size=9, color=GREY, va="top")


def _rows(axes: Sequence[Axes], titles: Sequence[str], reference: str = "") -> None:
    """Label the rows of bar charts that share them, the first at the top."""
    labels = [_folded(t, 30) + ("\n(reference)" if t == reference else "") for t in titles]
    axes[0].set_yticks(range(len(labels)), labels)
    axes[0].set_ylim(len(labels) - 0.4, -0.6)
    for ax in axes:
        ax.tick_params(axis="y", length=0)
        ax.grid(visible=False, axis="y")


def _folded(text: str, width: int, lines: int = 2) -> str:
    return "\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" …"))


def _beside(ax: Axes, spot: tuple[float, float], text: str, **style: Any) -> Annotation:
    """Write to the right of a spot, for example of a bar's end."""
    where = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
    return ax.annotate(text, spot, in_layout=False, **where | style)


def headline(analysis: Analysis, keys: Keys) -> Figure | None:
    """Bars of images/s, fastest first; whoever has no speed is listed with the reason."""
    if not analysis.recorded:
        return None
    standings = analysis.standings
    figure, (ax,) = _figure(0.9 + 0.46 * len(standings))
    for row, s in enumerate(standings):
        if not s.speeds:
            _beside(ax, (0, row), _folded(s.trouble or "not run yet", 85), **EXCUSE)
            continue
        ax.barh(row, s.median, **keys.bar(s))
        ax.plot([min(s.speeds), max(s.speeds)], [row, row], color=INK, linewidth=1.5)
        ax.plot(s.speeds, [row] * len(s.speeds), "o", color=INK, mfc=PAPER, markersize=4)
        label = _beside(ax, (max(s.speeds), row), shown(s.median), weight="bold", size=11)
        _beside(ax, (1, 0.5), _note(s, analysis), xycoords=label, color=GREY)
    titles = {s.name: s.title for s in standings}
    _rows([ax], list(titles.values()), titles[analysis.reference])
    fastest = max((max(s.speeds) for s in analysis.measured), default=1)
    ax.set(xlim=(0, 1.25 * fastest), xlabel="images per second: median, and each block (dots)")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.xaxis.set_visible(bool(analysis.measured))
    return figure


def _note(s: Standing, analysis: Analysis) -> str:
    compared = s.ratio and s.name != analysis.reference
    ratio = f"{s.ratio.mean:.2g}×   " if compared and s.ratio else ""  # noqa: RUF001 - times
    return ratio + (f"{len(s.speeds)} of {analysis.blocks} blocks" if s.trouble else "")


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
    titles = [_folded(s.title, 38) for s in points]
    gap = 0.38 if any("\n" in title for title in titles) else 0.22
    height = max(4.0, 0.6 + gap * len(points))
    figure, (ax,) = _figure(height)
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


def first_batch(analysis: Analysis, keys: Keys) -> Figure | None:
    """Stacked bars of the phases before the first batch."""
    standings = [s for s in analysis.measured if "start_s" in s.medians]
    standings.sort(key=lambda s: s.medians["start_s"])
    if not standings:
        return None
    figure, (ax,) = _figure(1.3 + 0.42 * len(standings))
    ax.grid(visible=False)
    tints = (0.3, 0.6, 1.0)
    for row, s in enumerate(standings):
        done = 0.0
        for phase, alpha in zip(START_PHASES, tints, strict=True):
            tint = to_rgba(keys.colours[s.adapter], alpha)
            ax.barh(row, s.medians[phase], left=done, height=0.72, color=tint)
            done += s.medians[phase]
        _beside(ax, (done, row), f"{shown(s.medians['start_s'])} s", weight="bold")
    _rows([ax], [s.title for s in standings])
    ax.set(xlim=(0, 1.12 * standings[-1].medians["start_s"]), xlabel="seconds, median over blocks")
    key = [Patch(color=to_rgba(INK, alpha)) for alpha in tints]
    labels = ["import libraries", "construct loader", "first batch"]
    figure.legend(key, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def convert(analysis: Analysis, keys: Keys) -> Figure | None:
    """Two aligned panels: seconds to write each format, and its size."""
    writes = sorted(analysis.writes, key=lambda w: (w.status != "ok", w.write_s or 0))
    if not writes:
        return None
    figure, axes = _figure(0.9 + 0.46 * len(writes), ncols=2, sharey=True)
    for row, w in enumerate(writes):
        if w.status != "ok":
            _beside(axes[0], (0, row), _folded(f"{w.status}: {w.reason}", 45), **EXCUSE)
            continue
        speed = f"  ({shown(w.images_per_s)} images/s)" if w.images_per_s else ""
        total = f"  ({BYTES(w.size_bytes)})" if w.size_bytes else ""
        for ax, value, text in (
            (axes[0], w.write_s, f"{shown(w.write_s or 0)} s{speed}"),
            (axes[1], w.bytes_per_image, f"{BYTES(w.bytes_per_image or 0)}{total}"),
        ):
            if value is not None:
                ax.barh(row, value, **keys.bar(w))
                _beside(ax, (value, row), text)
    _rows(axes, [w.title for w in writes])
    labels = ("seconds to convert the data set", "bytes per image on disk  (all images)")
    for ax, label in zip(axes, labels, strict=True):
        ax.set(xlim=(0, 1.7 * ax.dataLim.xmax if ax.patches else 1), xlabel=label)
    axes[1].xaxis.set_major_formatter(BYTES)
    return figure


def load(analysis: Analysis, keys: Keys) -> Figure | None:
    """Two aligned panels: CPU and GPU load; without a GPU figure, the reason."""
    if not (standings := analysis.measured):
        return None
    with_gpu = any("gpu_util_pct" in s.medians for s in standings)
    ratios = (4, 3) if with_gpu else (3, 1)
    figure, axes = _figure(0.9 + 0.42 * len(standings), ncols=2, sharey=True, width_ratios=ratios)
    for ax, column in zip(axes, ("cpu_load_pct", "gpu_util_pct"), strict=True):
        for row, s in enumerate(standings):
            if (value := s.medians.get(column)) is not None:
                ax.barh(row, value, **keys.bar(s))
                cores = s.medians.get("cores_used") if ax is axes[0] else None
                used = f"  ({shown(cores)} cores)" if cores else ""
                _beside(ax, (value, row), f"{shown(value)} %{used}")
        ax.set(xlim=(0, 170), xticks=range(0, 101, 25))
    _rows(axes, [s.title for s in standings])
    axes[0].set_xlabel("CPU load, % of all allowed cores")
    axes[1].set_xlabel("GPU utilisation, % of time")
    if not with_gpu:
        reason = _folded(analysis.gpu_reason or "no reason recorded", 26, lines=6)
        _beside(axes[1], (0, (len(standings) - 1) / 2), f"No GPU figure:\n{reason}", **EXCUSE)
        axes[1].set_axis_off()
    return figure


PLOTS = (
    Plot("headline.png", "Which loader delivers the most images per second?", headline),
    Plot("speed-cost.png", "Which loader is fast and cheap in CPU time?", speed_cost),
    Plot("speed-size.png", "How much disk does the speed cost?", speed_size),
    Plot("first-batch.png", "How long until the first batch?", first_batch),
    Plot("convert.png", "How long does converting take, and how large is the result?", convert),
    Plot("load.png", "How busy are the CPU and the GPU?", load),
)
