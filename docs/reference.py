"""The reference campaigns, read and analysed; how tables show their figures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from loaderbench.findings.analysis import analyse
from loaderbench.findings.comparison import Ratio
from loaderbench.findings.crossover import DeliveryCurve
from loaderbench.findings.findings import Analysis, shown
from loaderbench.records import certificates, record
from loaderbench.records.timeline import Timeline

ROOT = Path(__file__).parent.parent
QUICK, TRAIN, JOBS = "reference-2-cores", "reference-2-cores-train", "reference-2-cores-jobs"
TIMES, EN_DASH = "\N{MULTIPLICATION SIGN}", "\N{EN DASH}"
STREAM, PR572 = "reference-2-cores-stream", "reference-2-cores-litdata-pr572"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers_from: int = 99) -> str:
    """Return a Markdown table; the columns from `numbers_from` on are aligned to the right."""
    rules = ["--:" if column >= numbers_from else "---" for column in range(len(head))]
    return "\n".join(["", *(f"| {' | '.join(cells)} |" for cells in (head, rules, *rows)), ""])


@cache
def env(name: str) -> dict[str, Any]:
    """Return the description of a reference campaign: its settings, the machine and the versions."""
    return json.loads((ROOT / "results" / name / "env.json").read_text())


@cache
def analysis(name: str) -> Analysis:
    """Return the analysis of a reference campaign, from its files alone."""
    folder = ROOT / "results" / name
    rows = record.read(folder / "trials.csv")
    curves = {
        row.trial: DeliveryCurve.of(Timeline.load(folder / "times" / row.times), row.until_asked_s)
        for row in rows
        if row.until_asked_s is not None and row.status == "ok"
    }
    return analyse(rows, env(name)["campaign"], certificates.load(folder), curves)


def interval(ratio: Ratio | None) -> str:
    """Return a ratio with its 95 % interval, or a dash."""
    if ratio is None:
        return EN_DASH
    ends = f" [{shown(ratio.low)}{EN_DASH}{shown(ratio.high)}]" if ratio.low and ratio.high else ""
    return f"{shown(ratio.mean)}{TIMES}{ends}"
