"""Plots of waiting: for the first batch, for a first epoch from disk, and for each later batch."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from loaderbench.findings.findings import START_PHASES, Analysis, ColdStart, shown
from loaderbench.report.plots.bars import Bar, Label, Row, bars, fit_labels
from loaderbench.report.plots.style import ALARM, GREY, INK, Palette, name_rows, new_figure

_MARKS: dict[str, tuple[str, dict[str, Any]]] = {
    "wait_p50_ms": ("p50", {"marker": "o", "markersize": 10}),
    "wait_p95_ms": ("p95", {"marker": "|", "markersize": 15, "markeredgewidth": 2.5}),
    "wait_p99_ms": ("p99", {"marker": "|", "markersize": 9, "markeredgewidth": 2}),
    "wait_max_ms": ("longest", {"marker": "x", "markersize": 7, "markeredgewidth": 1.5}),
}
"""Name and look of each column of waits, from the shortest."""
_PROVEN = {"cold", "guest-cold", "client-cold"}
_ELSEWHERE = {"guest-cold": "the host of this virtual machine", "client-cold": "the server of this file system"}
"""Who may have cached what this machine did not, by state of the page cache."""
_LEAST_MS = 0.01
"""Shorter waits are drawn as this long, because a logarithmic axis has no zero; no training notices them."""


def first_batch(analysis: Analysis, palette: Palette) -> Figure | None:
    """Draw the phases before the first batch, shortest start first."""
    summaries = [s for s in analysis.measured if "start_s" in s.medians]
    rows = []
    for s in sorted(summaries, key=lambda s: s.medians["start_s"]):
        parts = [(s.medians[phase], opacity) for phase, opacity in zip(START_PHASES, (0.3, 0.6, 1.0), strict=True)]
        rows.append(Row(s.title, [Bar(look=palette.look(s), parts=parts)], Label(f"{shown(s.medians['start_s'])} s")))
    legend = [("import libraries", 0.3), ("construct the loader", 0.6), ("prepare the first batch", 1.0)]
    return bars(rows, "seconds; each phase and the total: median of the blocks", legend) if rows else None


def cold(analysis: Analysis, palette: Palette) -> Figure | None:
    """Draw the first epoch's seconds from the page cache and from disk, shortest from disk first."""
    colds = [c for c in analysis.cold_starts if "epoch1_s" in c.warm.medians]
    colds.sort(key=lambda c: c.cold.medians.get("epoch1_s", float("inf")))
    if not any("epoch1_s" in c.cold.medians for c in colds):
        return None
    others = [who for state, who in _ELSEWHERE.items() if any(state in c.states for c in colds)]
    notes = [f"\n({who} may have kept the data in its own memory)" for who in others]
    xlabel = "".join(["seconds for the first epoch, median of the blocks", *notes])
    return bars([_cold_row(c, palette) for c in colds], xlabel, [("data in memory", 0.35), ("data on disk", 1.0)])


def _cold_row(c: ColdStart, palette: Palette) -> Row:
    """Return both bars, what the disk costs in seconds and in speed, and whether reading from disk was verified."""
    warm_s = c.warm.medians["epoch1_s"]
    warm = Bar(look=palette.look(c.warm), parts=[(warm_s, 0.35)])
    cold_s = c.cold.medians.get("epoch1_s")
    if cold_s is None:
        return Row(c.warm.title, [warm, Bar(excuse=f"from disk: {c.cold.trouble or 'not run yet'}")])
    notes = [f"keeps {100 * c.ratio.mean:.0f}% of its speed"] if c.ratio else []
    verified = {state.rsplit(" ", 1)[0] for state in c.states.split(", ")} <= _PROVEN
    if not verified:
        notes.append(f"not verified as cold: {c.states}")
    added = "no common block" if c.added_s is None else f"{c.added_s:+.1f} s"
    label = Label(added, "\n".join(notes), GREY if verified else ALARM)
    return Row(c.warm.title, [warm, Bar(look=palette.look(c.warm), parts=[(cold_s, 1.0)])], label)


def waits(analysis: Analysis, palette: Palette) -> Figure | None:
    """Draw the range from the median wait for a batch to the longest, on a logarithmic axis; shortest median first."""
    summaries = [s for s in analysis.measured if s.medians.keys() >= _MARKS.keys()]
    summaries.sort(key=lambda s: s.medians["wait_p50_ms"])
    if not summaries:
        return None
    figure, (ax,) = new_figure(1.3 + 0.42 * len(summaries))
    ax.set_xscale("log")
    labels = []
    for row, s in enumerate(summaries):
        waits_ms = [max(s.medians[name], _LEAST_MS) for name in _MARKS]
        _draw_range(ax, row, waits_ms, palette.colours[s.adapter])
        p50, p99 = (shown(ms) if ms >= 0.1 else f"{ms:.2g}" for ms in (waits_ms[0], waits_ms[2]))  # noqa: PLR2004
        labels.append((row, waits_ms[-1], Label(f"p50 {p50} ms", f"p99 {p99} ms")))
    name_rows([ax], [s.title for s in summaries])
    start_ms = 0.7 * max(summaries[0].medians["wait_p50_ms"], _LEAST_MS)
    fit_labels(ax, labels, start_ms)
    ax.set_xlabel("wait for a batch, ms; median of the blocks; batches are taken as fast as possible")
    ax.set_xticks(_ticks(start_ms, max(end for _, end, _ in labels)))
    ax.minorticks_off()
    ax.xaxis.set_major_formatter("{x:,g}")
    handles = [Line2D([], [], color=INK, linestyle="", **look) for _, look in _MARKS.values()]
    names = [name for name, _ in _MARKS.values()]
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _ticks(start: float, end: float) -> list[float]:
    """Return the powers of ten between two values, and over few decades also twice and five times each."""
    steps = (1,) if end / start > 1000 else (1, 2, 5)  # noqa: PLR2004 - three decades
    ticks = [step * 10.0**power for power in range(-3, 9) for step in steps]
    return [tick for tick in ticks if start <= tick <= end]


def _draw_range(ax: Axes, row: int, waits_ms: Sequence[float], colour: str) -> None:
    """Draw a line through a row's waits, thick up to p95."""
    p50_ms, p95_ms, _, max_ms = waits_ms
    ax.plot([p50_ms, max_ms], [row, row], color=colour, linewidth=1.5)
    ax.plot([p50_ms, p95_ms], [row, row], color=colour, linewidth=6, solid_capstyle="butt")
    for wait_ms, (_, look) in zip(waits_ms, _MARKS.values(), strict=True):
        ax.plot(wait_ms, row, color=colour, **look)
