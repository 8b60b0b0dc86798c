"""Plots of consumers that do more with batches than to take them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from loaderbench.findings.findings import shown
from loaderbench.report.plots.style import GREY, INK, PAPER, Keys, Label, folded, label_ends, name_rows, new_figure
from loaderbench.trial.consumers.paced import FED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from loaderbench.findings.findings import Analysis


def demand(analysis: Analysis, keys: Keys) -> Figure | None:
    """One line for each loader: how busy an emulated accelerator is, over how many images a second it could take."""
    paced = [fed for fed in analysis.fed if fed.consumer == "paced" and fed.curve]
    if not paced:
        return None
    figure, (ax,) = new_figure(5)
    drawn: Counter[tuple[str, str]] = Counter()
    for fed in paced:
        s = fed.standing
        rate = s.medians.get("fed_images_per_s")
        name = folded(s.title, 44) + (f": {shown(rate)}" if rate else "")
        demands, busy = zip(*fed.curve, strict=True)
        colour, marker = keys.colours[s.adapter], keys.markers[s.format]
        again: dict[str, Any] = {"ls": ":", "mfc": PAPER} if drawn[s.adapter, s.format] else {}
        ax.plot(demands, busy, color=colour, marker=marker, lw=1, ms=5, label=name, **again)
        drawn[s.adapter, s.format] += 1
    ax.axhline(100 * FED, color=INK, ls="--", lw=1)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.xaxis.set_minor_formatter(lambda x, _: f"{x:,.0f}" if f"{x:.0e}"[0] in "25" else "")
    ax.set_xlabel("images per second that the accelerator could take")
    ax.set_ylabel("time in which it is busy, %")
    ax.set_ylim(0, 105)
    figure.legend(
        title=f"Fed at {100 * FED:.0f} % (dashed line), images/s", loc="outside lower center", ncols=2, frameon=False
    )
    return figure


def training(analysis: Analysis, keys: Keys) -> Figure | None:
    """A bar of images/s for each loader, and a mark where the same training comes with one batch that is there."""
    trained = [fed for fed in analysis.fed if fed.consumer != "paced" and fed.standing.speeds]
    if not trained:
        return None
    figure, (ax,) = new_figure(1.4 + 0.46 * len(trained))
    labels = []
    for row, s in enumerate(fed.standing for fed in trained):
        ax.barh(row, s.median, **keys.bar(s))
        cached = s.medians["cached_images_per_s"]
        ax.plot([cached, cached], [row - 0.4, row + 0.4], color=INK, lw=2)
        note = f"{s.medians['stall_vs_cached_pct']:.0f} % slower than from memory"
        labels.append(Label(row, max(s.median, cached), shown(s.median), note, GREY))
    name_rows([ax], [f.standing.title + (", Lightning" if f.consumer == "lightning" else "") for f in trained])
    label_ends(ax, labels)
    ax.set_xlabel("images per second in training, median over blocks; line: the same batch again and again, no loader")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    return figure
