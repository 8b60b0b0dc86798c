"""Plot of a published comparison beside what is measured: which part of it was the loaders, and which the set-up?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.colors import to_rgba
from matplotlib.patches import Patch

from loaderbench.report.plots.style import EXCUSE, GREY, INK, PAPER, Keys, beside, name_rows, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loaderbench.findings.findings import Analysis

_BAR = 0.25
_PAPER = {"facecolor": PAPER, "edgecolor": "none", "pad": 1}
_NAMES = ("published", "measured here, set up as published", "measured here, set-up made equal")


def published(analysis: Analysis, keys: Keys) -> Figure | None:
    """Three bars of the ratio to the reference for each contestant that was published."""
    rows = [p for p in analysis.published if p.name != analysis.reference]
    if not any(p.measured or p.equal for p in rows):
        return None
    figure, (ax,) = new_figure(1.2 + 0.72 * len(rows))
    longest = 1.0
    for row, p in enumerate(rows):
        styles = _styles(keys.colours[p.adapter])
        for place, ratio, style in zip((-_BAR, 0, _BAR), (p.ratio, p.measured, p.equal), styles, strict=True):
            if ratio is None:
                beside(ax, (0, row + place), "not measured", **EXCUSE)
                continue
            low, mean, high = (
                (min(p.ratios), ratio, max(p.ratios))
                if isinstance(ratio, float)
                else (ratio.low or ratio.mean, ratio.mean, ratio.high or ratio.mean)
            )
            ax.barh(row + place, mean, height=_BAR * 0.88, **style)
            ax.plot([low, high], [row + place] * 2, color=INK, linewidth=1.2)
            beside(ax, (high, row + place), f"{mean:.2f}×", size=9.5, bbox=_PAPER)  # noqa: RUF001 - times
            longest = max(longest, high)
    name_rows([ax], [p.title for p in rows])
    ax.axvline(1, color=INK, linewidth=1.2, zorder=0.9)
    reference = next(p.title for p in analysis.published if p.name == analysis.reference)
    ax.set(xlim=(0, 1.12 * longest), xlabel=f"times as fast as {reference}, in the same set-up (the line)")
    key = [Patch(**style) for style in _styles(INK)]
    figure.legend(key, _NAMES, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _styles(colour: str) -> tuple[dict[str, Any], ...]:
    """Return how the three bars look, in the order of their names."""
    return (
        {"facecolor": PAPER, "edgecolor": GREY, "hatch": "////", "linewidth": 0.8},
        {"facecolor": to_rgba(colour, 0.4)},
        {"facecolor": colour},
    )
