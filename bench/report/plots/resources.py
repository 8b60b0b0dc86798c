"""Plots of what the loaders use: the disk and the time to convert, cores, the GPU, memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.colors import to_rgba
from matplotlib.patches import Patch

from loaderbench.findings.findings import shown
from loaderbench.report.plots.style import (
    BYTES,
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
    from matplotlib.figure import Figure

    from loaderbench.findings.findings import Analysis

_WHOLE = 0.9
"""Samples over this share of the window are samples of all of it."""
_STRIP = 0.8
"""Height of a strip over time, of the distance between rows."""


def convert(analysis: Analysis, keys: Keys) -> Figure | None:
    """Two aligned panels: seconds to write each format, and its size."""
    writes = sorted(analysis.writes, key=lambda w: (w.status != "ok", w.write_s or 0))
    if not writes:
        return None
    figure, axes = new_figure(0.9 + 0.46 * len(writes), ncols=2, sharey=True)
    for row, w in enumerate(writes):
        if w.status != "ok":
            beside(axes[0], (0, row), folded(f"{w.status}: {w.reason}", 45), **EXCUSE)
            continue
        speed = f"  ({shown(w.images_per_s)} images/s)" if w.images_per_s else ""
        total = f"  ({BYTES(w.size_bytes)})" if w.size_bytes else ""
        for ax, value, text in (
            (axes[0], w.write_s, f"{shown(w.write_s or 0)} s{speed}"),
            (axes[1], w.bytes_per_image, f"{BYTES(w.bytes_per_image or 0)}{total}"),
        ):
            if value is not None:
                ax.barh(row, value, **keys.bar(w))
                beside(ax, (value, row), text)
    name_rows(axes, [w.title for w in writes])
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
    figure, axes = new_figure(0.9 + 0.42 * len(standings), ncols=2, sharey=True, width_ratios=ratios)
    for ax, column in zip(axes, ("cpu_load_pct", "gpu_util_pct"), strict=True):
        for row, s in enumerate(standings):
            if (value := s.medians.get(column)) is not None:
                ax.barh(row, value, **keys.bar(s))
                cores = s.medians.get("cores_used") if ax is axes[0] else None
                used = f"  ({shown(cores)} cores)" if cores else ""
                beside(ax, (value, row), f"{shown(value)} %{used}")
        ax.set(xlim=(0, 170), xticks=range(0, 101, 25))
    name_rows(axes, [s.title for s in standings])
    axes[0].set_xlabel("CPU load, % of all allowed cores")
    if with_gpu:
        axes[1].set_xlabel("GPU utilisation, % of time")
    else:
        reason = folded(analysis.gpu_reason or "no reason recorded", 26, lines=6)
        beside(axes[1], (0, (len(standings) - 1) / 2), f"No GPU figure:\n{reason}", **EXCUSE)
        axes[1].set_axis_off()
    return figure


def gpu_over_time(analysis: Analysis, keys: Keys) -> Figure | None:
    """A strip for each loader, as high as the GPU was busy, over the time of the window."""
    if not analysis.gpu_uses:
        return None
    figure, (ax,) = new_figure(1.1 + 0.62 * len(analysis.gpu_uses))
    end_s = max(use.samples[-1][0] for use in analysis.gpu_uses)
    for row, use in enumerate(analysis.gpu_uses):
        at_s, busy_pct = zip(*use.samples, strict=True)
        floor = row + 0.4
        tops = [floor - _STRIP * pct / 100 for pct in busy_pct]
        ax.fill_between(at_s, tops, floor, step="pre", color=keys.colours[use.adapter], lw=0)
        ax.hlines([floor, floor - _STRIP], 0, end_s, color=GREY, lw=0.5)
        beside(ax, (end_s, row), f"{shown(sum(busy_pct) / len(busy_pct))} % on average")
    name_rows([ax], [use.title for use in analysis.gpu_uses])
    ax.set_xlim(0, 1.25 * (end_s or 1))
    doing = {"train": "in training", "hungry": "with batches only taken"}[analysis.gpu_uses[0].consumer]
    longest_s = max(use.window_s for use in analysis.gpu_uses)
    part = "the window" if end_s > _WHOLE * longest_s else f"the last {end_s:.0f} s of a window, which NVML still had"
    ax.set_xlabel(f"seconds of {part}, {doing}; height of a strip: 100 % of the time busy")
    return figure


def memory(analysis: Analysis, keys: Keys) -> Figure | None:
    """Stacked bars of memory of its own and of files' pages that it maps, least first."""
    standings = [s for s in analysis.measured if s.medians.keys() >= {"peak_memory_mib", "peak_anon_memory_mib"}]
    standings.sort(key=lambda s: s.medians["peak_memory_mib"])
    if not standings:
        return None
    figure, (ax,) = new_figure(1.3 + 0.42 * len(standings))
    ax.grid(visible=False)
    tints = (1.0, 0.35)
    labels = []
    for row, s in enumerate(standings):
        total, own = s.medians["peak_memory_mib"], s.medians["peak_anon_memory_mib"]
        for left, width, alpha in zip((0, own), (own, total - own), tints, strict=True):
            ax.barh(row, width, left=left, height=0.72, color=to_rgba(keys.colours[s.adapter], alpha))
        labels.append(Label(row, total, f"{shown(total)} MiB", f"{shown(own)} of its own"))
    name_rows([ax], [s.title for s in standings])
    label_ends(ax, labels)
    ax.set_xlabel("MiB at the peak, all its processes together, what they share counted once; median over blocks")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    key = [Patch(color=to_rgba(INK, alpha)) for alpha in tints]
    names = ["its own: anonymous and shared", "pages of files, which the system can take back"]
    figure.legend(key, names, loc="outside lower center", ncols=2, frameon=False)
    return figure
