"""Bar charts of resources: time and disk space to write each format, CPU and GPU utilisation, memory."""

from matplotlib.figure import Figure

from loaderbench.findings.findings import Analysis, shown
from loaderbench.report.plots.bars import Bar, Label, Row, bars, draw_rows
from loaderbench.report.plots.style import BYTES, EXCUSE, Look, Palette, annotate_right, name_rows, new_figure, wrapped


def conversion(analysis: Analysis, palette: Palette) -> Figure | None:
    """Draw two panels: seconds to write each format, and its size."""
    writes = sorted(analysis.writes, key=lambda w: (w.status != "ok", w.write_synced_s or 0))
    if not writes:
        return None
    seconds, sizes = [], []
    for w in writes:
        speed = f"  ({shown(w.images_per_s)} images/s)" if w.images_per_s else ""
        total = f"  ({BYTES(w.size_bytes)})" if w.size_bytes else ""
        failed = [Bar(excuse=wrapped(f"{w.status}: {w.reason}", 45))] if w.status != "ok" else []
        duration = f"{shown(w.write_synced_s or 0)} s{speed}"
        seconds.append(Row(w.title, failed or _bar(palette.look(w), w.write_synced_s, duration)))
        size = None if failed else w.bytes_per_image
        sizes.append(Row(w.title, _bar(palette.look(w), size, f"{BYTES(size or 0)}{total}")))
    figure, axes = new_figure(0.9 + 0.46 * len(writes), ncols=2, sharey=True)
    labels = ("seconds to write the data set", "bytes per image on disk  (all images)")
    for ax, rows, label in zip(axes, (seconds, sizes), labels, strict=True):
        draw_rows(ax, rows)
        ax.set(xlim=(0, 1.7 * ax.dataLim.xmax if ax.patches else 1), xlabel=label)
    name_rows(axes, [w.title for w in writes])
    axes[1].xaxis.set_major_formatter(BYTES)
    return figure


def utilisation(analysis: Analysis, palette: Palette) -> Figure | None:
    """Draw two panels: CPU and GPU utilisation; without a GPU figure, the reason."""
    if not (summaries := analysis.measured):
        return None
    with_gpu = any("gpu_util_pct" in s.medians for s in summaries)
    ratios = (4, 3) if with_gpu else (3, 1)
    figure, axes = new_figure(0.9 + 0.42 * len(summaries), ncols=2, sharey=True, width_ratios=ratios)
    for ax, column in zip(axes, ("cpu_load_pct", "gpu_util_pct"), strict=True):
        rows = []
        for s in summaries:
            value, cores = s.medians.get(column), s.medians.get("cores_used") if column == "cpu_load_pct" else None
            used = f"  ({shown(cores)} cores)" if cores else ""
            rows.append(Row(s.title, _bar(palette.look(s), value, f"{shown(value or 0)}%{used}")))
        draw_rows(ax, rows)
        ax.set(xlim=(0, 170), xticks=range(0, 101, 25))
    name_rows(axes, [s.title for s in summaries])
    axes[0].set_xlabel("CPU utilisation, % of all allowed cores")
    if with_gpu:
        axes[1].set_xlabel("GPU utilisation, % of time")
    else:
        reason = wrapped(analysis.gpu_reason or "no reason recorded", 26, lines=6)
        annotate_right(axes[1], (0, (len(summaries) - 1) / 2), f"No GPU figure:\n{reason}", **EXCUSE)
        axes[1].set_axis_off()
    return figure


def _bar(look: Look, value: float | None, text: str) -> list[Bar]:
    """Return a bar with text at its end, or none without a value."""
    return [] if value is None else [Bar(look=look, parts=[(value, 1.0)], text=text)]


def memory(analysis: Analysis, palette: Palette) -> Figure | None:
    """Draw anonymous and file-backed memory, least first."""
    summaries = [s for s in analysis.measured if "file_backed_mib" in s.medians]
    rows = []
    for s in sorted(summaries, key=lambda s: s.medians["memory_mib"]):
        total, anonymous, files = (s.medians[c] for c in ("memory_mib", "anon_memory_mib", "file_backed_mib"))
        label = Label(f"{shown(total)} MiB", f"{shown(anonymous)} anonymous + shared")
        rows.append(Row(s.title, [Bar(look=palette.look(s), parts=[(anonymous, 1.0), (files, 0.35)])], label))
    legend = [("anonymous and shared memory", 1.0), ("file-backed pages, which the system can reclaim", 0.35)]
    return bars(rows, "MiB, all processes; the larger of two readings; median of the blocks", legend) if rows else None
