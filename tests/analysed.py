"""Analyse a campaign of three contestants."""

from __future__ import annotations

from loaderbench.findings.analysis import analyse
from loaderbench.findings.findings import Analysis, ContestantSummary
from loaderbench.records.record import Record
from tests import fabricate

FAST, SLOW, REFERENCE = (
    fabricate.Actor(name, name.title(), "ffcv", "ffcv-raw", 1000) for name in ("fast", "slow", "reference")
)
CAST = (SLOW, REFERENCE, FAST)


def analysis_of(rows: list[Record], blocks: int = 3) -> Analysis:
    return analyse(rows, fabricate.environment(CAST, blocks, "reference")["campaign"])


def runs(actor: fabricate.Actor, *speeds: float) -> list[Record]:
    return [fabricate.load(actor, block, images_per_s=s) for block, s in enumerate(speeds, 1)]


def summary(name: str, analysis: Analysis) -> ContestantSummary:
    return next(s for s in analysis.summaries if s.name == name)
