"""Plots of waiting: for the first batch, for a first epoch from the disk, and for each batch after that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from loaderbench.findings.findings import START_PHASES, shown
from loaderbench.report.plots.style import (
    ALARM,
    EXCUSE,
    GREY,
    INK,
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

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loaderbench.findings.findings import Analysis, Cold

_MARKS: dict[str, tuple[str, dict[str, Any]]] = {
    "wait_p50_ms": ("half are shorter", {"marker": "o", "markersize": 10}),
    "wait_p95_ms": ("95 % are shorter", {"marker": "|", "markersize": 15, "markeredgewidth": 2.5}),
    "wait_p99_ms": ("99 % are shorter", {"marker": "|", "markersize": 9, "markeredgewidth": 2}),
    "wait_max_ms": ("the longest", {"marker": "x", "markersize": 7, "markeredgewidth": 1.5}),
}
"""How each column of waits is called and drawn, from the shortest."""
_PROVEN = {"cold", "guest-cold"}
_LEAST_MS = 0.01
"""Shorter waits are drawn as this long, for a logarithmic axis has no zero; and no training notices them."""


def first_batch(analysis: Analysis, keys: Keys) -> Figure | None:
    """Stacked bars of the phases before the first batch."""
    standings = [s for s in analysis.measured if "start_s" in s.medians]
    standings.sort(key=lambda s: s.medians["start_s"])
    if not standings:
        return None
    figure, (ax,) = new_figure(1.3 + 0.42 * len(standings))
    ax.grid(visible=False)
    tints = (0.3, 0.6, 1.0)
    labels = []
    for row, s in enumerate(standings):
        done = 0.0
        for phase, alpha in zip(START_PHASES, tints, strict=True):
            tint = to_rgba(keys.colours[s.adapter], alpha)
            ax.barh(row, s.medians[phase], left=done, height=0.72, color=tint)
            done += s.medians[phase]
        labels.append(Label(row, done, f"{shown(s.medians['start_s'])} s"))
    name_rows([ax], [s.title for s in standings])
    label_ends(ax, labels)
    ax.set_xlabel("seconds, median over blocks")
    key = [Patch(color=to_rgba(INK, alpha)) for alpha in tints]
    names = ["import libraries", "construct loader", "first batch"]
    figure.legend(key, names, loc="outside lower center", ncols=3, frameon=False)
    return figure


def cold(analysis: Analysis, keys: Keys) -> Figure | None:
    """Two bars of the first epoch's seconds, from the page cache and from the disk; shortest from the disk first."""
    colds = [c for c in analysis.colds if "epoch1_s" in c.warm.medians]
    colds.sort(key=lambda c: c.cold.medians.get("epoch1_s", float("inf")))
    if not any("epoch1_s" in c.cold.medians for c in colds):
        return None
    figure, (ax,) = new_figure(1.4 + 0.62 * len(colds))
    labels = []
    for row, c in enumerate(colds):
        bar, warm_s = keys.bar(c.warm) | {"height": 0.36}, c.warm.medians["epoch1_s"]
        ax.barh(row - 0.19, warm_s, **bar | {"color": to_rgba(keys.colours[c.warm.adapter], 0.35)})
        if (cold_s := c.cold.medians.get("epoch1_s")) is None:
            reason = folded(c.cold.trouble or "not run yet", 90, lines=1)
            beside(ax, (0, row + 0.19), f"from the disk: {reason}", **EXCUSE)
            continue
        ax.barh(row + 0.19, cold_s, **bar)
        note, colour = _cost(c)
        labels.append(Label(row, max(warm_s, cold_s), f"{cold_s - warm_s:+.1f} s", note, colour))
    name_rows([ax], [c.warm.title for c in colds])
    label_ends(ax, labels)
    guest = any("guest-cold" in c.states for c in colds)
    host = "\n(the host of this virtual machine may have had the data in its own memory)" if guest else ""
    ax.set_xlabel(f"seconds for the first epoch, median over blocks{host}")
    key = [Patch(color=to_rgba(INK, alpha)) for alpha in (0.35, 1)]
    names = ["data in memory", "data on the disk"]
    figure.legend(key, names, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _cost(c: Cold) -> tuple[str, str]:
    """Say which share of its speed is kept, and whether the disk is what it was measured from; in which colour."""
    notes = [f"keeps {100 * c.ratio.mean:.0f} % of its speed"] if c.ratio else []
    states = {state.rsplit(" ", 1)[0] for state in c.states.split(", ")}
    if states <= _PROVEN:
        return "".join(notes), GREY
    return "\n".join([*notes, f"not proven cold: {c.states}"]), ALARM


def waits(analysis: Analysis, keys: Keys) -> Figure | None:
    """Ranges from the median wait for a batch to the longest, on a logarithmic axis; shortest median first."""
    standings = [s for s in analysis.measured if s.medians.keys() >= _MARKS.keys()]
    standings.sort(key=lambda s: s.medians["wait_p50_ms"])
    if not standings:
        return None
    figure, (ax,) = new_figure(1.3 + 0.42 * len(standings))
    ax.set_xscale("log")
    labels = []
    for row, s in enumerate(standings):
        waits_ms = [max(s.medians[name], _LEAST_MS) for name in _MARKS]
        _range(ax, row, waits_ms, keys.colours[s.adapter])
        half, rare = (shown(ms) if ms >= 0.1 else f"{ms:.2g}" for ms in (waits_ms[0], waits_ms[2]))  # noqa: PLR2004
        labels.append(Label(row, waits_ms[-1], f"half under {half} ms", f"1 in 100 over {rare} ms"))
    name_rows([ax], [s.title for s in standings])
    start_ms = 0.7 * max(standings[0].medians["wait_p50_ms"], _LEAST_MS)
    label_ends(ax, labels, start_ms)
    ax.set_xlabel("milliseconds, median over blocks; batches are taken as fast as they come")
    ax.set_xticks(_ticks(start_ms, max(label.end for label in labels)))
    ax.minorticks_off()
    ax.xaxis.set_major_formatter("{x:,g}")
    key = [Line2D([], [], color=INK, linestyle="", **look) for _, look in _MARKS.values()]
    names = [name for name, _ in _MARKS.values()]
    figure.legend(key, names, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _ticks(start: float, end: float) -> list[float]:
    """Return the powers of ten between, and where they are few their double and their half."""
    steps = (1,) if end / start > 1000 else (1, 2, 5)  # noqa: PLR2004 - three decades
    ticks = [step * 10.0**power for power in range(-3, 9) for step in steps]
    return [tick for tick in ticks if start <= tick <= end]


def _range(ax: Axes, row: int, waits_ms: Sequence[float], colour: str) -> None:
    """Draw a line through a row's waits, thick as long as they are common."""
    p50_ms, p95_ms, _, max_ms = waits_ms
    ax.plot([p50_ms, max_ms], [row, row], color=colour, linewidth=1.5)
    ax.plot([p50_ms, p95_ms], [row, row], color=colour, linewidth=6, solid_capstyle="butt")
    for wait_ms, (_, look) in zip(waits_ms, _MARKS.values(), strict=True):
        ax.plot(wait_ms, row, color=colour, **look)
