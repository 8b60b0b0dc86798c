"""The reference campaigns, read and analysed; how tables show their figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from loaderbench.findings.comparison import Ratio
from loaderbench.findings.findings import Analysis, shown
from loaderbench.findings.raw_times import analyse_folder
from loaderbench.records.certificates import Certificate
from loaderbench.records.folder import CampaignFolder

ROOT = Path(__file__).parent.parent
QUICK, TRAIN, JOBS = "reference-2-cores", "reference-2-cores-train", "reference-2-cores-jobs"
TIMES, EN_DASH = "\N{MULTIPLICATION SIGN}", "\N{EN DASH}"
STREAM, PR572 = "reference-2-cores-stream", "reference-2-cores-litdata-pr572"
SCALING, FORMATS = "reference-2-cores-scaling", "reference-2-cores-ffcv-formats"
LARGER = "reference-2-cores-larger-than-memory"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers_from: int = 99) -> str:
    """Return a Markdown table; the columns from `numbers_from` on are aligned to the right."""
    rules = ["--:" if column >= numbers_from else "---" for column in range(len(head))]
    return "\n".join(["", *(f"| {' | '.join(cells)} |" for cells in (head, rules, *rows)), ""])


@cache
def _folder(name: str) -> CampaignFolder:
    return CampaignFolder(ROOT / "results" / name)


def env(name: str) -> Mapping[str, Any]:
    """Return the description of a reference campaign: its settings, the machine and the versions."""
    return _folder(name).env


def certificates(name: str) -> Mapping[str, Certificate]:
    """Return the certificates of a reference campaign, by contestant."""
    return _folder(name).certificates


@cache
def analysis(name: str) -> Analysis:
    """Return the analysis of a reference campaign, from its files alone."""
    return analyse_folder(_folder(name))


def interval(ratio: Ratio | None) -> str:
    """Return a ratio with its 95 % interval, or a dash."""
    if ratio is None:
        return EN_DASH
    ends = f" [{shown(ratio.low)}{EN_DASH}{shown(ratio.high)}]" if ratio.low and ratio.high else ""
    return f"{shown(ratio.mean)}{TIMES}{ends}"
