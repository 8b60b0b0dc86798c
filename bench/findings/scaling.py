"""Speed by number of workers: where each contestant stops growing, and at which limit, or how busy it keeps a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from loaderbench.campaign.variant import MAIN, Variant
from loaderbench.findings import keeping_busy
from loaderbench.findings.findings import ContestantSummary, ScalingCurve, shown
from loaderbench.findings.summaries import summary
from loaderbench.findings.trials import of_variant

if TYPE_CHECKING:
    import pandas as pd

GROWS = 1.05
"""More workers must make it faster by this factor, or it has stopped growing."""
AT_LIMIT_PCT = 90
"""From this share of the machine limit or of the cores on, that is called what limits it."""
COSTLIER = 1.15
"""From this factor on, more CPU time per image than with the fewest workers is named."""


def curves(
    campaign: Mapping[str, Any], table: pd.DataFrame, summaries: Sequence[ContestantSummary]
) -> Iterator[ScalingCurve]:
    """Yield the curve of each contestant of the campaign's table `scaling`. `summaries`: in the main variant."""
    scaling = campaign.get("scaling") or {}
    contestants = {c["name"]: c for c in campaign["contestants"]}
    own = Variant(consumer=scaling.get("consumer", MAIN.consumer))
    rows = {n: of_variant(table, replace(own, track="scaling", workers=n)) for n in scaling.get("workers", ())}
    main = of_variant(table, own)
    for each in summaries:
        if each.name not in scaling.get("contestants", ()):
            continue
        points = {workers: summary(contestants[each.name], some) for workers, some in rows.items()}
        if len(numbers := main[main["contestant"] == each.name]["workers"].dropna()):
            points[int(numbers.iloc[0])] = each if own == MAIN else summary(contestants[each.name], main)
        ascending = dict(sorted(points.items()))
        said = reading(ascending) if own == MAIN else keeping_busy.reading(ascending)
        yield ScalingCurve(main=each, points=ascending, reading=said, trains=own != MAIN)


def reading(points: Mapping[int, ContestantSummary]) -> str:
    """Return where a contestant stops growing, and at which limit. `points`: by number of workers, ascending."""
    measured = {workers: point for workers, point in points.items() if point.speeds}
    if len(measured) < 2:  # noqa: PLR2004 - nothing to compare
        return "It was not measured with two numbers of workers."
    top = max(point.median for point in measured.values())
    workers, best = next((n, point) for n, point in measured.items() if point.median * GROWS >= top)
    fewest, most = min(measured), max(measured)
    first = measured[fewest]
    gain = f"{shown(best.median)} images/s, {shown(best.median / first.median)} times those of {fewest}"
    if workers == most:
        return f"It grows up to {most} workers, the most that were measured: {gain}."
    end = measured[most]
    falls = f" With {most} it is {shown(100 * (1 - end.median / top))} % slower." if end.median * GROWS < top else ""
    where = "It does not grow beyond 1 worker" if workers == 1 else f"It stops growing at {workers} workers: {gain}"
    return f"{where}; {_limit(best)}{_costlier(first, best, fewest)}.{falls}"


def _limit(point: ContestantSummary) -> str:
    """Return what limits a contestant where it stops growing."""
    of_limit, of_cores = (point.medians.get(name, 0.0) for name in ("pct_of_bound", "cpu_load_pct"))
    if of_limit >= AT_LIMIT_PCT:
        return f"it reaches {of_limit:.0f} % of the machine limit, {point.bound_by}"
    if of_cores >= AT_LIMIT_PCT:
        return f"the cores are {of_cores:.0f} % busy"
    return f"the loader itself holds it back: the cores are {of_cores:.0f} % busy, and no machine limit is near"


def _costlier(first: ContestantSummary, best: ContestantSummary, fewest: int) -> str:
    """Return by how much the CPU time per image has grown, where it did: workers wait for memory, or for each other."""
    cost, before = (point.medians.get("cpu_s_per_1k_images") for point in (best, first))
    if not (cost and before) or cost < COSTLIER * before:
        return ""
    return f"; an image takes {shown(cost / before)} times the CPU time that it takes with {fewest}"
