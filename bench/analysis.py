"""Who is fastest, by how much, and how sure is that? Pure statistics over a campaign's rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import pandas as pd
from scipy.special import stdtrit

from bench import controls, noise
from bench.records import HEADER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.controls import Verdict
    from bench.records import Record

RANKING_BLOCKS = 6
"""With fewer blocks than this, results are descriptive: no ranking claims."""
START_PHASES = ("import_s", "construct_s", "first_batch_s")
MEDIANS = (
    "images_per_s",
    "epoch1_images_per_s",
    *START_PHASES,
    "epoch_end_s",
    "sustained_images_per_s",
    "bank_bias_bound_pct",
    "wait_p50_ms",
    "wait_p95_ms",
    "wait_p99_ms",
    "wait_max_ms",
    "cpu_load_pct",
    "cores_used",
    "cpu_s_per_1k_images",
    "peak_memory_mib",
    "peak_anon_memory_mib",
    "gpu_util_pct",
    "bytes_per_image",
)
"""Columns of a record of which a standing keeps the median over blocks."""


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Speed over the reference's in the same block: geometric mean and 95 % interval."""

    mean: float
    low: float | None
    """None with fewer than 2 common blocks: one block has no spread."""
    high: float | None
    blocks: int


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One contestant over all its blocks. Only `ok` trials count towards any figure."""

    name: str
    title: str
    adapter: str
    format: str
    memory_format: str
    speeds: tuple[float, ...]
    """Steady images/s of each ok block, in the order of blocks. Empty: there is no speed."""
    medians: Mapping[str, float]
    """Of the columns in `MEDIANS` and of `start_s`, the sum of `START_PHASES`, where measured."""
    rank: tuple[int, int] | None
    """Best and worst rank that the spread leaves open; None with fewer than 2 blocks."""
    ratio: Ratio | None
    trouble: str
    """Status and reason of the latest trial that was not ok, or nothing."""

    @property
    def median(self) -> float:
        """Median images/s. Only for contestants with a speed."""
        return self.medians["images_per_s"]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """All rows that are not ok in the same way."""

    kind: str
    title: str
    status: str
    reason: str
    blocks: tuple[int, ...]
    """Empty for conversions."""


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What the rows of a campaign say."""

    reference: str
    standings: tuple[Standing, ...]
    """Fastest median first, then those without a speed in the campaign's order."""
    writes: tuple[Record, ...]
    """The latest row of each format, in the order of the file."""
    failures: tuple[Failure, ...]
    blocks: int
    """Planned blocks."""
    planned: int
    """Planned trials: every contestant once in every block."""
    recorded: int
    """Planned trials that have a row, whatever its status."""
    gpu_reason: str
    """Why trials that are ok have no GPU figure, or nothing."""
    controls: tuple[Verdict, ...]
    marked: tuple[tuple[Record, tuple[str, ...]], ...]
    """The ok trials that were disturbed, with the signs of it."""
    quiet: int
    """How many ok trials were not."""

    @property
    def controls_failed(self) -> tuple[Verdict, ...]:
        """The controls that did not come out as they must."""
        return tuple(verdict for verdict in self.controls if verdict.held is False)

    @property
    def measured(self) -> tuple[Standing, ...]:
        """The contestants that have a speed, fastest first."""
        return tuple(s for s in self.standings if s.speeds)

    @property
    def leaders(self) -> tuple[Standing, ...]:
        """The fastest contestant and those that the spread does not tell apart from it."""
        first, *others = self.measured
        return (first, *(s for s in others if s.rank and s.rank[0] == 1))

    @property
    def descriptive(self) -> bool:
        """Whether any contestant that has a speed has too few blocks for a claim about ranks."""
        return any(len(s.speeds) < RANKING_BLOCKS for s in self.measured)


def analyse(records: Sequence[Record], campaign: Mapping[str, Any]) -> Analysis:
    """Analyse the rows of a campaign, which is given as `env.json` keeps it.

    A trial that has several rows counts by its latest; their failures are all kept.
    """
    loads = _latest_loads(records)
    good = loads[(loads["status"] == "ok") & loads["images_per_s"].notna()]
    controlling = [c["name"] for c in campaign["contestants"] if c["control"]]
    ranks = _ranks(good[~good["contestant"].isin(controlling)])
    medians, ratios = _medians(good), _ratios(good, campaign["reference"])
    standings = []
    for contestant in campaign["contestants"]:
        if contestant["control"]:
            continue
        name = contestant["name"]
        rows = good[good["contestant"] == name]
        standings.append(
            Standing(
                name=name,
                title=contestant["title"],
                adapter=contestant["loader"],
                format=contestant["format"],
                memory_format=", ".join(sorted(set(rows["memory_format"]) - {""})),
                speeds=tuple(rows["images_per_s"]),
                medians=medians.get(name, {}),
                rank=ranks.get(name) if len(rows) > 1 else None,
                ratio=ratios.get(name),
                trouble=_trouble(loads[loads["contestant"] == name]),
            )
        )
    blocks = campaign["timing"]["blocks"]
    names = [contestant["name"] for contestant in campaign["contestants"]]
    ok = [record for record in records if record.kind == "load" and record.status == "ok"]
    marked = tuple((record, signs) for record in ok if (signs := noise.marks(record)))
    fastest = max((s.medians["images_per_s"] for s in standings if s.speeds), default=None)
    planned = loads["contestant"].isin(names) & loads["block"].between(1, blocks)
    return Analysis(
        reference=campaign["reference"],
        standings=tuple(sorted(standings, key=lambda s: -s.medians.get("images_per_s", 0))),
        writes=tuple({r.format: r for r in records if r.kind == "write"}.values()),
        failures=_failures(records),
        blocks=blocks,
        planned=blocks * len(names),
        recorded=int(planned.sum()),
        gpu_reason="; ".join(sorted(set(good["gpu_reason"]) - {""})),
        controls=controls.judge(campaign, ok, ratios, fastest),
        marked=marked,
        quiet=len(ok) - len(marked),
    )


def _latest_loads(records: Sequence[Record]) -> pd.DataFrame:
    rows = pd.DataFrame([vars(r) for r in records if r.kind == "load"], columns=list(HEADER))
    rows = rows.drop_duplicates("trial", keep="last").sort_values("block", kind="stable")
    rows = rows.astype({"block": int} | dict.fromkeys(MEDIANS, float))
    # Before taking medians: the median of the sums, not the sum of medians. Empty if a phase is.
    return rows.assign(start_s=rows[list(START_PHASES)].sum(axis=1, skipna=False))


def _medians(good: pd.DataFrame) -> dict[str, dict[str, float]]:
    table = good.groupby("contestant")[[*MEDIANS, "start_s"]].median()
    return {
        str(name): {str(column): float(value) for column, value in medians.items() if not math.isnan(value)}
        for name, medians in table.to_dict("index").items()
    }


def _ratios(good: pd.DataFrame, reference: str) -> dict[str, Ratio]:
    """Pair by block, so that what slows a whole block cancels; t interval on the log ratio."""
    speeds = good.pivot_table(index="block", columns="contestant", values="images_per_s")
    logs = speeds.map(math.log)
    if reference not in logs:
        return {}
    pairs = logs.sub(logs[reference], axis=0)
    ratios = {}
    for name in pairs.columns:
        pair: list[float] = pairs[name].dropna().tolist()
        if not pair:
            continue
        mean, low, high = fmean(pair), None, None
        if len(pair) > 1:
            quantile = float(stdtrit(len(pair) - 1, 0.975))  # of Student's t
            half = quantile * stdev(pair) / math.sqrt(len(pair))
            low, high = math.exp(mean - half), math.exp(mean + half)
        ratios[name] = Ratio(mean=math.exp(mean), low=low, high=high, blocks=len(pair))
    return ratios


def _ranks(good: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Rank behind those whose slowest block beats its fastest, before those that it beats so."""
    spread = good.groupby("contestant")["images_per_s"].agg(["min", "max"])
    return {
        str(name): (
            1 + int((spread["min"] > row["max"]).sum()),
            int((spread["max"] >= row["min"]).sum()),
        )
        for name, row in spread.iterrows()
    }


def _trouble(rows: pd.DataFrame) -> str:
    bad = rows[rows["status"] != "ok"]
    if bad.empty:
        return ""
    last = bad.iloc[-1]
    return f"{last['status']}: {last['reason']}" if last["reason"] else str(last["status"])


def _failures(records: Sequence[Record]) -> tuple[Failure, ...]:
    blocks: dict[tuple[str, str, str, str], list[int]] = {}
    for r in records:
        if r.status != "ok":
            found = blocks.setdefault((r.kind, r.title, r.status, r.reason), [])
            if r.block is not None:
                found.append(r.block)
    return tuple(
        Failure(kind=kind, title=title, status=status, reason=reason, blocks=tuple(sorted(found)))
        for (kind, title, status, reason), found in blocks.items()
    )


def shown(value: float) -> str:
    """Return a figure as reports print it: counts whole, measures with three digits or more."""
    whole = isinstance(value, int) or abs(value) >= 99.95  # noqa: PLR2004 - where 3 digits are whole
    return f"{value:,.0f}" if whole else f"{value:#.3g}"
