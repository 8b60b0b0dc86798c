"""Who is fastest, by how much, and how sure is that? Pure statistics over a campaign's rows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from loaderbench.campaign import tuning
from loaderbench.campaign.disturbances import disturbances, flags
from loaderbench.campaign.pixel_values import delivers
from loaderbench.findings import controls, replication, training
from loaderbench.findings.comparison import RANKING_BLOCKS, compare, compare_all, least_difference, ratio
from loaderbench.findings.crossover import DeliveryCurve, crossovers
from loaderbench.findings.findings import (
    MEDIANS,
    START_PHASES,
    Analysis,
    ColdStart,
    ConsumerSummary,
    ContestantSummary,
    Failure,
    TransportSummary,
    TunedSummary,
)
from loaderbench.records.certificates import unranked_reason
from loaderbench.records.record import HEADER, STREAM_TABLES, TRANSPORTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from loaderbench.findings.comparison import Comparison, Ratio
    from loaderbench.records.certificates import Certificate
    from loaderbench.records.record import Record


def analyse(
    records: Sequence[Record],
    campaign: Mapping[str, Any],
    certified: Mapping[str, Certificate] | None = None,
    curves: Mapping[str, DeliveryCurve] | None = None,
) -> Analysis:
    """Analyse the rows of a campaign, which is given as `env.json` keeps it. `certified`: certificates by contestant.
    `curves`: by trial, of those whose data was in a bucket.

    A trial that has several rows counts by its latest; their failures are all kept. Of several attempts at a block the
    one with the fewest failed and then the fewest disturbed trials counts, the earliest of equals; speeds have no say.
    """
    chosen = _quietest(records)
    everywhere = _loads(chosen)
    loads = everywhere[everywhere["consumer"].isin(["", "hungry"]) & (everywhere["transport"] == "")]
    good = _good(loads)
    at_best = good["track"] == "best"
    warm, cold = good[(good["cache"] != "cold") & ~at_best], good[good["cache"] == "cold"]
    same = loads[loads["track"] != "best"]
    names = [c["name"] for c in campaign["contestants"]]
    competing = [c["name"] for c in _competing(campaign)]
    speeds = _by_block(warm, "images_per_s")
    reference = campaign["reference"]
    twins = [c["name"] for c in campaign["contestants"] if c["control"] == "twin" and c["name"] in speeds]
    twin_ratio = _ratio(speeds[twins[0]], speeds[reference]) if twins and reference in speeds else None
    least = least_difference(twin_ratio)
    others = {
        c["name"]: _apart(c, campaign) or unranked_reason(c["name"], reference, certified or {})
        for c in _competing(campaign)
    }
    everything = compare_all(speeds[[name for name in competing if name in speeds]], least)
    ranked = [name for name in competing if name in speeds and not others[name]]
    compared = compare_all(speeds[ranked], least) if any(others.values()) else everything
    everyone = (_summary(c, same[same["cache"] != "cold"], warm, compared, reference) for c in _competing(campaign))
    summaries = sorted(
        (_set_apart(s, others[s.name], everything.get((s.name, reference))) for s in everyone),
        key=lambda s: (not s.speeds, bool(s.unranked_reason), _fastest_first(s)),
    )
    searches = tuning.searches(records, campaign)
    ok = [record for record in records if record.kind == "load" and record.status == "ok"]
    flagged = tuple((record, signs) for record in ok if (signs := flags(record)))
    fastest = max((s.median for s in summaries if s.speeds), default=None)
    writes = tuple({r.format: r for r in records if r.kind == "write"}.values())
    limits, counted = _limits(records, chosen), frozenset(_good(everywhere)["trial"])
    taken = frozenset(good["trial"])
    further = [name for feeding in feedings(campaign).values() for name in feeding["contestants"]]
    further += [name for using in transports(campaign).values() for name in using]
    fetched = tuple(_fetched(campaign, everywhere, curves or {}))
    blocks = campaign["timing"]["blocks"]
    states = len(names) + len(campaign["cold"]) + len(campaign["best"]) + len(further)
    return Analysis(
        reference=reference,
        summaries=tuple(summaries),
        certified=bool(certified),
        cold_starts=tuple(_colds(campaign, summaries, same, cold)),
        tuned=tuple(
            _bests(campaign, summaries, loads[loads["track"] == "best"], speeds, searches=searches, least=least)
        ),
        by_consumer=tuple(_fed(campaign, everywhere)),
        lightning=tuple(training.under_lightning(_good(everywhere))),
        by_transport=fetched,
        crossovers=crossovers(_curves_by_block(everywhere, fetched, curves or {})),
        limits=limits,
        limits_missing={r.title: r.reason for r in records if r.kind == "limit" and r.title not in limits},
        least_difference=least,
        writes=writes,
        failures=_failures(records),
        blocks=blocks,
        planned=blocks * states,
        recorded=int((everywhere["contestant"].isin(names) & everywhere["block"].between(1, blocks)).sum()),
        gpu_reason="; ".join(sorted({part for reason in good["gpu_reason"] for part in reason.split("; ")} - {""})),
        controls=(
            *controls.judge(campaign, [r for r in chosen if r.trial in taken], twin_ratio, fastest),
            *controls.network_controls([r for r in chosen if r.trial in counted and r.transport]),
        ),
        flagged=flagged,
        counted=counted,
        quiet=len(ok) - len(flagged),
        replications=replication.replications(campaign, everything, writes),
        setup_effects=replication.setup_effects(campaign, everything, writes),
    )


def _set_apart(summary: ContestantSummary, reason: str, against: Comparison | None) -> ContestantSummary:
    """Give a contestant of other work that reason and no rank. To the reference of other work, too, there is a ratio,
    which is no matter of rank.
    """
    if against and not summary.reference:
        summary = replace(summary, reference=replace(against, p=None, verdict="unresolved"))
    return replace(summary, unranked_reason=reason, rank=None) if reason else summary


def _apart(contestant: Mapping[str, Any], campaign: Mapping[str, Any]) -> str:
    """Return why the campaign itself sets a contestant apart, or nothing; before schema 5 it could not."""
    asked, own = delivers(campaign["work"]), delivers(campaign["work"], contestant.get("work"))
    return contestant.get("apart") or (f"delivers {own} in place of {asked}" if own != asked else "")


def _fastest_first(summary: ContestantSummary) -> float:
    return -summary.medians.get("images_per_s", 0)


def _competing(campaign: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [c for c in campaign["contestants"] if not c["control"]]


def _quietest(records: Sequence[Record]) -> list[Record]:
    """Return the latest load rows of each block's attempt that counts."""
    attempts: dict[int | None, dict[int, dict[str, Record]]] = {}
    for record in records:
        if record.kind == "load":
            attempts.setdefault(record.block, {}).setdefault(record.attempt or 1, {})[record.trial] = record
    chosen: list[Record] = []
    for by_attempt in attempts.values():
        most = max(len(rows) for rows in by_attempt.values())
        whole = [rows for _, rows in sorted(by_attempt.items()) if len(rows) == most]
        chosen += min(whole, key=_trouble_in).values()
    return chosen


def _trouble_in(rows: Mapping[str, Record]) -> tuple[int, int]:
    """Return how many trials of an attempt have no speed, and how many were disturbed."""
    failed = sum(row.status != "ok" for row in rows.values())
    return failed, sum(bool(disturbances(row)) for row in rows.values())


def _loads(chosen: Sequence[Record]) -> pd.DataFrame:
    rows = pd.DataFrame([vars(r) for r in chosen], columns=list(HEADER)).sort_values("block", kind="stable")
    rows = rows.astype({"block": int} | dict.fromkeys(MEDIANS, float)).copy()  # astype leaves each column apart
    # Before taking medians: the median of the sums, not the sum of medians. Empty if a phase is.
    return rows.assign(start_s=rows[list(START_PHASES)].sum(axis=1, skipna=False))


def _good(loads: pd.DataFrame) -> pd.DataFrame:
    return loads[(loads["status"] == "ok") & loads["images_per_s"].notna()]


def _summary(
    contestant: Mapping[str, Any],
    loads: pd.DataFrame,
    good: pd.DataFrame,
    compared: Mapping[tuple[str, str], Comparison],
    reference: str,
) -> ContestantSummary:
    name = contestant["name"]
    rows = good[good["contestant"] == name]
    medians = rows[[*MEDIANS, "start_s"]].median().dropna()
    return ContestantSummary(
        name=name,
        title=contestant["title"],
        adapter=contestant["loader"],
        format=contestant["format"],
        memory_format=_all(rows["memory_format"]),
        batch_memory=_all(rows["batch_memory"]),
        speeds=tuple(rows["images_per_s"]),
        medians={str(column): float(value) for column, value in medians.items()},
        bound_by=_all(rows["bound_by"]),
        rank=_rank(name, compared) if compared and len(rows) >= RANKING_BLOCKS else None,
        faster_than=frozenset(other for (one, other), c in compared.items() if one == name and c.verdict == "faster"),
        reference=compared.get((name, reference)),
        trouble=_trouble(loads[loads["contestant"] == name]),
    )


def _all(texts: pd.Series[str]) -> str:
    return ", ".join(sorted(set(texts) - {""}))


def _rank(name: str, compared: Mapping[tuple[str, str], Comparison]) -> tuple[int, int]:
    """Rank behind those that are faster, before those that are slower."""
    verdicts = [comparison.verdict for (one, _), comparison in compared.items() if one == name]
    return 1 + verdicts.count("slower"), 1 + len(verdicts) - verdicts.count("faster")


def _colds(
    campaign: Mapping[str, Any], summaries: Sequence[ContestantSummary], loads: pd.DataFrame, cold: pd.DataFrame
) -> list[ColdStart]:
    contestants = {c["name"]: c for c in _competing(campaign)}
    first_epochs = {
        cache: _by_block(rows, "epoch1_images_per_s")
        for cache, rows in (("cold", cold), ("warm", loads[(loads["cache"] != "cold") & (loads["status"] == "ok")]))
    }
    found = []
    for warm in summaries:
        if warm.name in campaign["cold"]:
            states = cold[cold["contestant"] == warm.name]["cache_state"].value_counts()
            both = warm.name in first_epochs["cold"] and warm.name in first_epochs["warm"]
            found.append(
                ColdStart(
                    warm=warm,
                    cold=_summary(contestants[warm.name], loads[loads["cache"] == "cold"], cold, {}, ""),
                    states=", ".join(f"{state} ({count})" for state, count in states.items()),
                    ratio=_ratio(first_epochs["cold"][warm.name], first_epochs["warm"][warm.name]) if both else None,
                )
            )
    return found


def feedings(campaign: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the tables of the consumers but for the hungry one, by name; campaigns of schema 3 have none."""
    return {name: feeding for name, feeding in campaign.get("consumers", {}).items() if feeding}


def _fed(campaign: Mapping[str, Any], loads: pd.DataFrame) -> list[ConsumerSummary]:
    found = []
    for consumer, feeding in feedings(campaign).items():
        rows = loads[loads["consumer"] == consumer]
        good = _good(rows)
        apart, loss_blocks = training.outlier_losses(good), training.blocks_compared(good)
        worth = "fed_images_per_s" if consumer == "paced" else "images_per_s"
        of_consumer = [
            ConsumerSummary(
                consumer=consumer,
                summary=_summary(contestant, rows, good, {}, ""),
                curve=_curve(good[good["contestant"] == contestant["name"]]["demand_curve"]),
                outlier_losses=apart.get(contestant["name"], ()),
                loss_blocks=loss_blocks,
            )
            for contestant in _competing(campaign)
            if contestant["name"] in feeding["contestants"]
        ]
        found += sorted(of_consumer, key=lambda fed: -fed.summary.medians.get(worth, 0))
    return found


def transports(campaign: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
    """Return who has the data in a bucket, by how it comes; campaigns of earlier schemas have none."""
    stream = campaign.get("stream") or {}
    return {transport: stream.get(table, ()) for transport, table in STREAM_TABLES.items()}


def _fetched(
    campaign: Mapping[str, Any], loads: pd.DataFrame, curves: Mapping[str, DeliveryCurve]
) -> Iterator[TransportSummary]:
    for transport, names in transports(campaign).items():
        rows = loads[loads["transport"] == transport]
        good = _good(rows)
        for contestant in _competing(campaign):
            if contestant["name"] in names:
                own = good[good["contestant"] == contestant["name"]]
                kept = own[own["cache_mib"].notna()]
                yield TransportSummary(
                    transport=transport,
                    summary=_summary(contestant, rows, good, {}, ""),
                    curves=tuple(curves[trial] for trial in own["trial"] if trial in curves),
                    bound_held=bool((kept["cache_peak_mib"] <= kept["cache_mib"]).all()) if len(kept) else None,
                )


def _curves_by_block(
    loads: pd.DataFrame, fetched: Sequence[TransportSummary], curves: Mapping[str, DeliveryCurve]
) -> list[dict[str, DeliveryCurve]]:
    """Return the curves by block and title."""
    titles = {(f.summary.name, f.transport): f.title for f in fetched}
    rows = loads[loads["trial"].isin(list(curves))]
    return [
        {
            titles[row["contestant"], row["transport"]]: curves[row["trial"]]
            for _, row in of_block.iterrows()
            if (row["contestant"], row["transport"]) in titles
        }
        for _, of_block in rows.groupby("block")
    ]


def _curve(texts: Iterable[str]) -> tuple[tuple[float, float], ...]:
    points = [point.split() for text in texts for point in text.split("; ") if point]
    return tuple(sorted((float(demand), float(busy)) for demand, busy in points))


def _bests(  # noqa: PLR0913 - all that it follows from
    campaign: Mapping[str, Any],
    summaries: Sequence[ContestantSummary],
    loads: pd.DataFrame,
    same_speeds: pd.DataFrame,
    *,
    searches: Mapping[str, tuning.Search],
    least: float,
) -> list[TunedSummary]:
    """Rank those at their best among themselves, and hold each against itself at equal settings, block by block."""
    good = _good(loads)
    speeds = _by_block(good, "images_per_s")
    compared = compare_all(speeds, least)
    logs = (speeds / same_speeds[[name for name in same_speeds if name in speeds]]).apply(np.log)
    gains = compare({(str(name), "same"): log for name, log in logs.items()}, least)
    found = []
    for same in summaries:
        if same.name in searches:
            [contestant] = [c for c in _competing(campaign) if c["name"] == same.name]
            called = {**contestant, "title": campaign["best"][same.name]["title"]}
            best = _summary(called, loads, good, compared, campaign["reference"])
            gain = gains.get((same.name, "same"))
            found.append(TunedSummary(shared=same, tuned=best, gain=gain, search=searches[same.name]))
    return sorted(found, key=lambda b: _fastest_first(b.tuned))


def _by_block(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    return rows.pivot_table(index="block", columns="contestant", values=column)


def _ratio(one: pd.Series[float], other: pd.Series[float]) -> Ratio | None:
    """Pair by block, so that what slows a whole block cancels."""
    return ratio([math.log(quotient) for quotient in (one / other).dropna()])


def _limits(records: Sequence[Record], chosen: Sequence[Record]) -> dict[str, float]:
    attempts = {(record.block, record.attempt) for record in chosen}
    limits = (r for r in records if r.kind == "limit" and r.status == "ok" and (r.block, r.attempt) in attempts)
    rows = pd.DataFrame(
        [(r.title, r.images_per_s) for r in limits],
        columns=["step", "images_per_s"],
    )
    medians = rows.groupby("step")["images_per_s"].median().sort_values(ascending=False)
    return {str(step): float(value) for step, value in medians.items()}


def _trouble(rows: pd.DataFrame) -> str:
    bad = rows[rows["status"] != "ok"]
    if bad.empty:
        return ""
    last = bad.iloc[-1]
    return f"{last['status']}: {last['reason']}" if last["reason"] else str(last["status"])


def _failures(records: Sequence[Record]) -> tuple[Failure, ...]:
    blocks: dict[tuple[str, str, str, str], list[int]] = {}
    for r in records:
        if r.status != "ok" and (r.kind, r.status) != ("limit", "unavailable"):
            title = f"{r.title}, at its best" if r.track == "best" else r.title
            title += f", {TRANSPORTS[r.transport]}" if r.transport else ""
            found = blocks.setdefault((r.kind, title, r.status, r.reason), [])
            if r.block is not None:
                found.append(r.block)
    return tuple(
        Failure(kind=kind, title=title, status=status, reason=reason, blocks=tuple(sorted(found)))
        for (kind, title, status, reason), found in blocks.items()
    )
