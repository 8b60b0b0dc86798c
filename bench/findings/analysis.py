"""What the rows of a campaign say: the ranking, every other comparison, controls and failures. Pure functions."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loaderbench.campaign import tuning
from loaderbench.campaign.disturbances import flags
from loaderbench.campaign.variant import MAIN, Variant, variants
from loaderbench.findings import controls, replication, scaling, summaries, titles, training
from loaderbench.findings.crossover import DeliveryCurve, crossovers
from loaderbench.findings.findings import Analysis
from loaderbench.findings.trials import counted_rows, failures, machine_limits, of_variant, ok_rows, trial_table
from loaderbench.records.certificates import Certificate
from loaderbench.records.record import Record


def analyse(
    records: Sequence[Record],
    campaign: Mapping[str, Any],
    certified: Mapping[str, Certificate] | None = None,
    curves: Mapping[str, DeliveryCurve] | None = None,
) -> Analysis:
    """Analyse the rows of a campaign.

    `campaign`: as `env.json` keeps it. `certified`: certificates by contestant. `curves`: delivery curves by trial, of
    those whose data was in a bucket. See `trials.counted_rows` for the rows that count.
    """
    records, campaign = titles.retitled(records, campaign), titles.distinct(campaign)
    counted = counted_rows(records)
    table = trial_table(counted)
    ok = ok_rows(table)
    main = summaries.ranking(campaign, table, certified or {})
    limits = machine_limits(records, counted)
    writes = tuple({r.format: r for r in records if r.kind == "write"}.values())
    flagged = [(r, flags(r)) for r in records if r.kind == "load" and r.status == "ok"]
    names, blocks = variants(campaign)[MAIN], campaign["timing"]["blocks"]
    return Analysis(
        reference=campaign["reference"],
        summaries=main.summaries,
        certified=bool(certified),
        cold_starts=tuple(summaries.cold_starts(campaign, table, main.summaries)),
        tuned=tuple(summaries.tuned(campaign, table, main, tuning.searches(records, campaign), certified or {})),
        scaling=tuple(scaling.curves(campaign, table, main.summaries)),
        by_consumer=tuple(summaries.by_consumer(campaign, table)),
        lightning=tuple(training.under_lightning(ok)),
        by_transport=tuple(summaries.by_transport(campaign, table, curves or {})),
        crossovers=crossovers(summaries.curves_by_block(table, curves or {})),
        limits=limits,
        limits_missing={r.title: r.reason for r in records if r.kind == "limit" and r.title not in limits},
        least_difference=main.least,
        writes=writes,
        failures=failures(records),
        blocks=blocks,
        planned=blocks * sum(map(len, variants(campaign).values())),
        recorded=int((table["contestant"].isin(names) & table["block"].between(1, blocks)).sum()),
        not_begun=tuple(c["title"] for c in campaign["contestants"] if c["name"] not in set(table["contestant"])),
        gpu_reason=_reasons(of_variant(ok, MAIN)["gpu_reason"]),
        controls=_controls(campaign, counted, main),
        flagged=tuple((record, signs) for record, signs in flagged if signs),
        counted=frozenset(ok["trial"]),
        quiet=sum(not signs for _, signs in flagged),
        replications=replication.replications(campaign, main.compared, writes),
        setup_effects=replication.setup_effects(campaign, main.compared, writes),
    )


def _reasons(texts: Iterable[str]) -> str:
    """Return the distinct reasons of several texts, each a list separated by `; `."""
    return "; ".join(sorted({reason for text in texts for reason in text.split("; ")} - {""}))


def _controls(
    campaign: Mapping[str, Any], counted: Sequence[Record], main: summaries.Ranking
) -> tuple[controls.ControlResult, ...]:
    """Return the results of all controls. `counted`: the rows that count."""
    possible = [s.name for s in main.summaries if s.speeds and not s.beyond_limit]
    fastest = main.speeds[possible].max(axis=1).dropna()
    fetching = [row for row in counted if row.transport and row.status == "ok"]
    return (
        *controls.judge(
            campaign,
            [row for row in counted if Variant.of(row) == MAIN],
            main.twin_ratios,
            dict(zip(map(int, fastest.index), fastest.tolist(), strict=True)),
        ),
        *controls.stall_controls(campaign, counted),
        *controls.network_controls(fetching),
    )
