"""How busy was the GPU over time with each contestant? Read from the raw times beside the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loaderbench.findings.findings import GpuUse
from loaderbench.records.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loaderbench.findings.findings import Analysis
    from loaderbench.records.record import Record

_CONSUMERS = ("train", "hungry")
"""The first of them with which NVML told anything is shown."""


def of(folder: Path, rows: Sequence[Record], analysis: Analysis) -> tuple[GpuUse, ...]:
    """Return one for each contestant that has a speed, of its first counted block; fastest first."""
    told = [
        r for r in rows if r.trial in analysis.counted and r.gpu_util_pct is not None and _times(folder, r).is_file()
    ]
    for consumer in _CONSUMERS:
        first: dict[str | None, Record] = {}
        for row in sorted(told, key=lambda r: r.block or 0):
            if (row.consumer or "hungry", row.cache, row.track) == (consumer, "warm", "same"):
                first.setdefault(row.contestant, row)
        uses = (_use(folder, first[s.name], consumer) for s in analysis.measured if s.name in first)
        if found := tuple(use for use in uses if use.samples):
            return found
    return ()


def _times(folder: Path, row: Record) -> Path:
    """Return the file of a row's raw times; a folder if it has none."""
    return folder / "times" / row.times


def _use(folder: Path, row: Record, consumer: str) -> GpuUse:
    times = Timeline.load(_times(folder, row))
    samples = times.gpu_util_pct
    return GpuUse(
        title=row.title,
        adapter=row.adapter,
        format=row.format,
        consumer=consumer,
        window_s=times.columns()["window_s"] or 0.0,
        samples=tuple(((at_us - samples[0][0]) / 1e6, pct) for at_us, pct in samples),
    )
