"""Read a campaign's folder and analyse it, with what follows from raw times alone."""

from dataclasses import replace
from typing import Any

from loaderbench.campaign.variant import Variant
from loaderbench.findings.analysis import analyse
from loaderbench.findings.crossover import DeliveryCurve
from loaderbench.findings.findings import Analysis, ContestantSummary, GpuUse
from loaderbench.records.earlier import RENAMED_IN
from loaderbench.records.folder import CampaignFolder
from loaderbench.records.record import Consumer, Record

_CONSUMERS: tuple[Consumer, ...] = ("train", "hungry")
"""The first of them with which NVML reported anything is shown."""


_CHANGED = ("later_epochs_images_per_s", "epoch_gap_s", "prefetched_images", "prefetch_bias_bound_pct")
"""Columns that rows of earlier schemas computed in another way."""


def analyse_folder(folder: CampaignFolder) -> Analysis:
    """Return the analysis of a campaign. Raises FileNotFoundError or ValueError, see `CampaignFolder.env`."""
    rows = [_recomputed(folder, row) if row.schema < RENAMED_IN else row for row in folder.rows]
    analysis = analyse(rows, folder.env["campaign"], folder.certificates, delivery_curves(folder))
    return replace(analysis, gpu_uses=gpu_uses(folder, analysis))


def _recomputed(folder: CampaignFolder, row: Record) -> Record:
    """Return a row with the columns that changed, computed from its raw times as today; empty without them."""
    timeline = folder.timeline(row)
    known = timeline.columns() if timeline else {}
    columns: dict[str, Any] = {name: known.get(name) for name in _CHANGED}
    return replace(row, **columns)


def delivery_curves(folder: CampaignFolder) -> dict[str, DeliveryCurve]:
    """Return the delivery curves, by trial, of those whose data was in a bucket and whose raw times are there."""
    return {
        row.trial: DeliveryCurve.of(timeline, row.until_asked_s)
        for row in folder.rows
        if row.until_asked_s is not None and row.status == "ok" and (timeline := folder.timeline(row))
    }


def gpu_uses(folder: CampaignFolder, analysis: Analysis) -> tuple[GpuUse, ...]:
    """Return the GPU utilisation with each contestant, in its first block that counts; the fastest first."""
    for consumer in _CONSUMERS:
        first: dict[str | None, Record] = {}
        for row in sorted(folder.rows, key=lambda row: row.block or 0):
            shown = row.trial in analysis.counted and row.gpu_util_pct is not None
            if shown and Variant.of(row) == Variant(consumer=consumer) and folder.has_times(row):
                first.setdefault(row.contestant, row)
        uses = [_use(folder, first[s.name], s, consumer) for s in analysis.measured if s.name in first]
        if found := tuple(use for use in uses if use.samples):
            return found
    return ()


def _use(folder: CampaignFolder, row: Record, s: ContestantSummary, consumer: str) -> GpuUse:
    timeline = folder.timeline(row)
    assert timeline
    samples = timeline.gpu_util_pct
    return GpuUse(
        title=s.title,
        adapter=s.adapter,
        consumer=consumer,
        window_s=timeline.columns()["window_s"] or 0.0,
        samples=tuple(((at_us - samples[0][0]) / 1e6, pct) for at_us, pct in samples),
    )
