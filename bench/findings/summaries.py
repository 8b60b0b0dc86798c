"""Summaries of contestants over blocks: the ranking, and each of the other variants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from loaderbench.campaign.pixel_values import delivers
from loaderbench.campaign.tuning import Search
from loaderbench.campaign.variant import MAIN, Variant, variants
from loaderbench.findings import training
from loaderbench.findings.comparison import (
    LEAST_DIFFERENCE,
    RANKING_BLOCKS,
    Comparison,
    Ratio,
    compare,
    compare_all,
    least_difference,
)
from loaderbench.findings.crossover import DeliveryCurve
from loaderbench.findings.findings import (
    ColdStart,
    ConsumerSummary,
    ContestantSummary,
    TransportSummary,
    TunedSummary,
)
from loaderbench.findings.trials import DERIVED, by_block, of_variant, ok_rows, paired_ratio
from loaderbench.records.certificates import Certificate, unranked_reason
from loaderbench.records.record import MEDIANS

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The comparison of all contestants in the main variant."""

    summaries: tuple[ContestantSummary, ...]
    speeds: pd.DataFrame
    """Images/s by block and contestant."""
    compared: Mapping[tuple[str, str], Comparison]
    """Every two contestants that are no controls, those that are not ranked too."""
    twin_ratios: Mapping[str, Ratio | None]
    """Ratio of each A/A control to the reference, by name; None without a common block."""
    least: float
    """See `comparison.least_difference`."""


def competing(campaign: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the contestants of a campaign, as `env.json` keeps it, that are no controls."""
    return [contestant for contestant in campaign["contestants"] if not contestant["control"]]


def ranking(campaign: Mapping[str, Any], table: pd.DataFrame, certified: Mapping[str, Certificate]) -> Ranking:
    """Compare and rank all contestants by their trials in the main variant."""
    rows, reference = of_variant(table, MAIN), campaign["reference"]
    speeds = by_block(ok_rows(rows), "images_per_s")
    twins = [c["name"] for c in campaign["contestants"] if c["control"] == "twin"]
    measured = [name for name in twins if {name, reference} <= {*speeds}]
    twin_ratios = {name: paired_ratio(speeds[name], speeds[reference]) for name in measured}
    least = max(map(least_difference, twin_ratios.values()), default=LEAST_DIFFERENCE)
    found = [
        replace(summary(c, rows, _apart(c, campaign, certified, MAIN.track)), other_images=_other_images(c, campaign))
        for c in competing(campaign)
    ]
    compared = compare_all(speeds[[s.name for s in found if s.speeds]], least)
    ranked = _ranked(found, speeds, compared, reference, least)
    return Ranking(summaries=tuple(ranked), speeds=speeds, compared=compared, twin_ratios=twin_ratios, least=least)


def _apart(
    contestant: Mapping[str, Any], campaign: Mapping[str, Any], certified: Mapping[str, Certificate], track: str
) -> str:
    """Return how a contestant's work differs, by the campaign or its certificate, or an empty string."""
    requested, own = delivers(campaign["work"]), delivers(campaign["work"], contestant.get("work"))
    return (
        contestant.get("apart")  # new in schema 5
        or (f"delivers {own} instead of {requested}" if own != requested else "")
        or unranked_reason(contestant["name"], campaign["reference"], certified, track)
    )


def _other_images(contestant: Mapping[str, Any], campaign: Mapping[str, Any]) -> str:
    """Return how its stored images differ from the reference's in size or JPEG quality, or an empty string."""
    formats = {c["name"]: f for c in campaign["contestants"] for f in campaign["formats"] if f["name"] == c["format"]}
    own, reference = formats[contestant["name"]], formats[campaign["reference"]]
    if "original" in {own["mode"], reference["mode"]}:  # certificates tell
        return ""
    sides = [f"at most {f['max_side']} px" if f["max_side"] else "full size" for f in (own, reference)]
    if sides[0] != sides[1]:
        return f"it crops images of {sides[0]} instead of {sides[1]}"
    if own["mode"] != "raw" and own["quality"] != reference["quality"]:
        return f"its images are JPEG of quality {own['quality']} instead of {reference['quality']}"
    return ""


def _ranked(
    summaries: Sequence[ContestantSummary],
    speeds: pd.DataFrame,
    everything: Mapping[tuple[str, str], Comparison],
    reference: str,
    least: float,
) -> list[ContestantSummary]:
    """Return the summaries with ranks: ranked ones first, then unranked ones, then those without a speed.

    `speeds`: images/s by block and contestant. `everything`: all that have a speed, compared.
    """
    among = [s.name for s in summaries if s.is_ranked]
    all_ranked = len(among) == sum(bool(s.speeds) for s in summaries)
    compared = everything if all_ranked else compare_all(speeds[among], least)
    found = [
        replace(
            s,
            rank=_rank(s.name, among, compared) if s.name in among and len(s.speeds) >= RANKING_BLOCKS else None,
            faster_than=frozenset(
                o for o in among if (s.name, o) in compared and compared[s.name, o].verdict == "faster"
            ),
            reference=compared.get((s.name, reference)) or _untested(everything.get((s.name, reference))),
        )
        for s in summaries
    ]
    return sorted(found, key=lambda s: (not s.speeds, bool(s.unranked_reason), -s.medians.get("images_per_s", 0)))


def _rank(name: str, among: Sequence[str], compared: Mapping[tuple[str, str], Comparison]) -> tuple[int, int]:
    """Return the best and the worst place: behind those that are faster, before those that are slower.

    A pair that no test could compare leaves both orders open.
    """
    verdicts = [compared[name, other].verdict for other in among if (name, other) in compared]
    return 1 + verdicts.count("slower"), len(among) - verdicts.count("faster")


def _untested(comparison: Comparison | None) -> Comparison | None:
    """Return a comparison across different work, which has a ratio but no test."""
    return replace(comparison, p=None, verdict="unresolved") if comparison else None


def summary(contestant: Mapping[str, Any], rows: pd.DataFrame, apart: str = "") -> ContestantSummary:
    """Return the summary of a contestant over its rows of one variant, without a rank."""
    name = contestant["name"]
    own = rows[rows["contestant"] == name]
    ok = ok_rows(own)
    medians = ok[[*MEDIANS, *DERIVED]].median().dropna()
    return ContestantSummary(
        name=name,
        title=contestant["title"],
        adapter=contestant["loader"],
        format=contestant["format"],
        memory_format=_all(ok["memory_format"]),
        batch_memory=_all(ok["batch_memory"]),
        speeds=tuple(ok["images_per_s"]),
        medians={str(column): float(value) for column, value in medians.items()},
        bound_by=_all(ok["bound_by"]),
        bound_reason="; ".join(sorted(set(ok["bound_reason"]) - {""})),
        apart=apart,
        trouble=_trouble(own),
    )


def _all(texts: Iterable[str]) -> str:
    return ", ".join(sorted(set(texts) - {""}))


def _trouble(rows: pd.DataFrame) -> str:
    bad = rows[(rows["status"] != "ok") | rows["images_per_s"].isna()]
    if bad.empty:
        return ""
    last = bad.iloc[-1]
    return f"{last['status']}: {last['reason'] or 'without a speed'}"


def cold_starts(
    campaign: Mapping[str, Any], table: pd.DataFrame, warm: Sequence[ContestantSummary]
) -> Iterator[ColdStart]:
    """Yield the cold trials of each contestant beside its summary in the main variant, in the order of those."""
    contestants = {c["name"]: c for c in competing(campaign)}
    rows = of_variant(table, Variant(cache="cold"))
    ok, ok_warm = ok_rows(rows), ok_rows(of_variant(table, MAIN))
    for each in warm:
        if each.name in campaign["cold"]:
            cold, of_warm = (some[some["contestant"] == each.name].set_index("block") for some in (ok, ok_warm))
            states = cold["cache_state"].value_counts()
            added_s = (cold["epoch1_s"] - of_warm["epoch1_s"]).median()
            yield ColdStart(
                warm=each,
                cold=summary(contestants[each.name], rows),
                states=", ".join(f"{state} ({count})" for state, count in states.items()),
                ratio=paired_ratio(cold["epoch1_images_per_s"], of_warm["epoch1_images_per_s"]),
                added_s=None if np.isnan(added_s) else float(added_s),
            )


def tuned(
    campaign: Mapping[str, Any],
    table: pd.DataFrame,
    main: Ranking,
    searches: Mapping[str, Search],
    certified: Mapping[str, Certificate],
) -> list[TunedSummary]:
    """Rank the tuned contestants among themselves, and compare each with itself at shared settings within blocks."""
    variant = Variant(track="best")
    rows = of_variant(table, variant)
    speeds = by_block(ok_rows(rows), "images_per_s")
    logs = (speeds / main.speeds[[name for name in main.speeds if name in speeds]]).apply(np.log)
    gains = compare({(str(name), "shared"): log for name, log in logs.items()}, main.least)
    contestants = {c["name"]: c for c in competing(campaign)}
    shared = {s.name: s for s in main.summaries if s.name in searches}
    found = [
        summary({**c, "title": campaign["best"][name]["title"]}, rows, _apart(c, campaign, certified, variant.track))
        for name in shared
        if (c := contestants[name])
    ]
    compared = compare_all(speeds, main.least)
    return [
        TunedSummary(shared=shared[s.name], tuned=s, gain=gains.get((s.name, "shared")), search=searches[s.name])
        for s in _ranked(found, speeds, compared, campaign["reference"], main.least)
    ]


def by_consumer(campaign: Mapping[str, Any], table: pd.DataFrame) -> list[ConsumerSummary]:
    """Return the summaries with each consumer but the default one, the fastest contestants first."""
    contestants, found = {c["name"]: c for c in competing(campaign)}, []
    for variant, chosen in variants(campaign).items():
        if variant.consumer == MAIN.consumer or variant.workers:
            continue
        names = [name for name in chosen if name in contestants]
        rows = of_variant(table, variant)
        ok = ok_rows(rows[rows["contestant"].isin(names)])
        outliers, loss_blocks = training.outlier_losses(ok), training.blocks_compared(ok)
        speed = "fed_images_per_s" if variant.consumer == "paced" else "images_per_s"
        of_consumer = [
            ConsumerSummary(
                consumer=variant.consumer,
                summary=summary(contestants[name], rows),
                curve=_demand_curve(ok[ok["contestant"] == name]["demand_curve"]),
                outlier_losses=outliers.get(name, ()),
                loss_blocks=loss_blocks,
            )
            for name in names
        ]
        found += sorted(of_consumer, key=lambda each: -each.summary.medians.get(speed, 0))
    return found


def _demand_curve(texts: Iterable[str]) -> tuple[tuple[float, float], ...]:
    points = [point.split() for text in texts for point in text.split("; ") if point]
    return tuple(sorted((float(demand), float(busy)) for demand, busy in points))


def by_transport(
    campaign: Mapping[str, Any], table: pd.DataFrame, curves: Mapping[str, DeliveryCurve]
) -> Iterator[TransportSummary]:
    """Yield the summaries of contestants whose data came from a bucket. `curves`: by trial."""
    contestants = {c["name"]: c for c in competing(campaign)}
    for variant, names in variants(campaign).items():
        rows = of_variant(table, variant)
        for name in names if variant.transport else ():
            own = ok_rows(rows[rows["contestant"] == name])
            limited = own[own["cache_mib"].notna() & own["cache_peak_mib"].notna()]
            held = bool((limited["cache_peak_mib"] <= limited["cache_mib"]).all())
            yield TransportSummary(
                transport=variant.transport,
                summary=summary(contestants[name], rows),
                curves=tuple(curves[trial] for trial in own["trial"] if trial in curves),
                bound_held=held if len(limited) else None,
            )


def curves_by_block(table: pd.DataFrame, curves: Mapping[str, DeliveryCurve]) -> list[dict[str, DeliveryCurve]]:
    """Return, for each block, the delivery curves by the contestant's title with its transport. `curves`: by trial."""
    rows = table[table["trial"].isin(list(curves))]
    return [
        {row["variant"].titled(row["title"]): curves[row["trial"]] for _, row in in_block.iterrows()}
        for _, in_block in rows.groupby("block")
    ]
