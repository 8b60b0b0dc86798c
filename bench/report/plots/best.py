"""Plot of the second track: what each loader gains from settings of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.colors import to_rgba
from matplotlib.patches import Patch

from loaderbench.findings.findings import shown
from loaderbench.report.plots.style import EXCUSE, INK, Keys, Label, beside, folded, label_ends, name_rows, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loaderbench.findings.findings import Analysis, AtBest


def gain(analysis: Analysis, keys: Keys) -> Figure | None:
    """Two bars of images/s, at equal settings and at the loader's best, fastest at its best first."""
    bests = [b for b in analysis.bests if b.same.speeds or b.best.speeds]
    if not any(b.best.speeds for b in bests):
        return None
    figure, (ax,) = new_figure(1.4 + 0.62 * len(bests))
    labels = []
    for row, b in enumerate(bests):
        bar = keys.bar(b.best) | {"height": 0.36}
        same = b.same.median if b.same.speeds else 0
        ax.barh(row - 0.19, same, **bar | {"color": to_rgba(keys.colours[b.best.adapter], 0.35)})
        if not b.best.speeds:
            beside(
                ax, (0, row + 0.19), folded(f"at its best: {b.best.trouble or 'not run yet'}", 90, lines=1), **EXCUSE
            )
            continue
        ax.barh(row + 0.19, b.best.median, **bar)
        figures = f"{b.gain.ratio.mean:.2f}×" if b.gain else shown(b.best.median)  # noqa: RUF001 - times
        note = folded(_note(b, descriptive=analysis.descriptive), 36)
        labels.append(Label(row, max(same, b.best.median), figures, note))
    name_rows([ax], [b.best.title for b in bests])
    label_ends(ax, labels)
    ax.set_xlabel("images per second, median over blocks")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    key = [Patch(color=to_rgba(INK, alpha)) for alpha in (0.35, 1)]
    names = ["at settings equal for all", "at the best settings found for it"]
    figure.legend(key, names, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _note(b: AtBest, *, descriptive: bool) -> str:
    """Say which settings differ, and if it is not sure that they gain anything."""
    if not b.changes:
        return "its own settings were the best"
    unsure = b.gain and not descriptive and b.gain.verdict in {"tie", "unresolved"}
    changes = ", ".join(f"{name} = {value}" for name, value in b.changes.items())
    return f"{changes} ({b.gain.verdict})" if b.gain and unsure else changes
