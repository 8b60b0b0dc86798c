"""Say how much each contestant reads from the disk where the page cache cannot hold the format."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loaderbench.findings.findings import Analysis, ContestantSummary, shown
from loaderbench.findings.replication import stored_bytes_by_format

_KB, _MB = 1e3, 1e6


@dataclass(frozen=True, kw_only=True)
class DiskReads:
    """What one contestant read in the window, beside what the disk can do."""

    summary: ContestantSummary
    read_kb: float
    """Per image, in 1,000 bytes."""
    takes_kb: float | None
    """What an image takes in the format."""
    sequential_mb_per_s: float | None
    """Of reading its format in the stored order."""
    random_mb_per_s: float | None
    """Of reading it in random order, by files or by parts of 8 MiB."""


def disk_reads(analysis: Analysis) -> tuple[DiskReads, ...]:
    """Return what the contestants read, in the order of their summaries; empty unless the page cache was limited."""
    takes_bytes = stored_bytes_by_format(analysis.writes)
    return tuple(
        _one(analysis.limits, takes_bytes, s) for s in analysis.measured if "read_bytes_per_image" in s.medians
    )


def _one(limits: Mapping[str, float], takes_bytes: Mapping[str, float], s: ContestantSummary) -> DiskReads:
    takes = takes_bytes.get(s.format)
    rates = [limits.get(f"{step}/{s.format}") for step in ("disk", "random-disk")]
    sequential, random = [rate * takes / _MB if rate and takes else None for rate in rates]
    return DiskReads(
        summary=s,
        read_kb=s.medians["read_bytes_per_image"] / _KB,
        takes_kb=takes and takes / _KB,
        sequential_mb_per_s=sequential,
        random_mb_per_s=random,
    )


def conclusion(found: tuple[DiskReads, ...], memory_mib: float | None) -> str:
    """Return in one sentence what the fastest contestant reads, and which one reads least; empty if none is ranked.

    Only ranked contestants count: those that do the requested work. `memory_mib`: limit of each trial.
    """
    ranked = [one for one in found if one.summary.is_ranked]
    if not ranked:
        return ""
    fastest = max(ranked, key=lambda one: one.summary.median)
    least = min(ranked, key=lambda one: one.read_kb)
    memory = f"With {shown(memory_mib)} MiB of memory" if memory_mib else "With this machine's memory"
    start = (
        f"{memory}, {fastest.summary.title} has the highest median, {shown(fastest.summary.median)} images/s, "
        f"and reads {shown(fastest.read_kb)} kB from the disk for each image"
    )
    if least is fastest:
        return f"{start}; no other ranked contestant reads less."
    return f"{start}; {least.summary.title} reads least, {shown(least.read_kb)} kB."


def memory_limit_mib(campaign: Mapping[str, Any]) -> float | None:
    """Return the memory limit of a campaign's trials, as `env.json` keeps the campaign; None without a limit."""
    limited = campaign.get("limited") or {}
    return limited.get("memory_mib")
