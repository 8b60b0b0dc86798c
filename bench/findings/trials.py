"""The trials of a campaign that count, as a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from loaderbench.campaign.disturbances import disturbances
from loaderbench.campaign.variant import Variant
from loaderbench.findings.comparison import Ratio, ratio
from loaderbench.findings.findings import START_PHASES, Failure
from loaderbench.records.record import HEADER, MEDIANS, Record

if TYPE_CHECKING:
    import pandas as pd


DERIVED = ("start_s", "file_backed_mib", "context_switches_per_s", "read_mb_per_s")
"""What follows from several columns of a trial: the sum of `START_PHASES`, the memory that files back, and rates."""


def counted_rows(records: Iterable[Record]) -> list[Record]:
    """Return the latest row of each trial in the attempt at each block that counts.

    That is the attempt with the fewest disturbed trials among the complete ones. Ties go to the earliest attempt. What
    the contestants did in it, failures and speeds, is no criterion.
    """
    attempts: dict[int | None, dict[int, dict[str, Record]]] = {}
    for record in records:
        if record.kind == "load":
            attempts.setdefault(record.block, {}).setdefault(record.attempt or 1, {})[record.trial] = record
    counted: list[Record] = []
    for by_attempt in attempts.values():
        most = max(len(rows) for rows in by_attempt.values())
        complete = [rows for _, rows in sorted(by_attempt.items()) if len(rows) == most]
        counted += min(complete, key=lambda rows: sum(bool(disturbances(row)) for row in rows.values())).values()
    return counted


def trial_table(counted: Sequence[Record]) -> pd.DataFrame:
    """Return the rows as a table with more columns: `variant`, and those in `DERIVED`."""
    import pandas as pd

    rows = pd.DataFrame([vars(row) for row in counted], columns=list(HEADER))
    rows = rows.astype({"block": int} | dict.fromkeys(MEDIANS, float)).copy()  # astype leaves each column apart
    rows = rows.assign(
        # Computed for each trial, because the sum of medians is not the median of sums. Empty if a part is.
        start_s=rows[list(START_PHASES)].sum(axis=1, skipna=False),
        file_backed_mib=rows["memory_mib"] - rows["anon_memory_mib"],
        context_switches_per_s=rows["context_switches"] / rows["window_s"],
        read_mb_per_s=rows["window_read_bytes"] / rows["window_s"] / 1e6,
        variant=pd.Series([Variant.of(row) for row in counted], dtype=object),
    )
    return rows.sort_values("block", kind="stable")


def of_variant(table: pd.DataFrame, variant: Variant) -> pd.DataFrame:
    """Return the rows of one variant."""
    return table[table["variant"] == variant]


def ok_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with a speed."""
    return table[(table["status"] == "ok") & table["images_per_s"].notna()]


def by_block(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the values of a column, one row per block and one column per contestant."""
    return rows.pivot_table(index="block", columns="contestant", values=column)


def paired_ratio(one: pd.Series[float], other: pd.Series[float]) -> Ratio | None:
    """Return the ratio of two columns of `by_block`; what slows a whole block cancels."""
    return ratio([math.log(quotient) for quotient in (one / other).dropna()])


def machine_limits(records: Iterable[Record], counted: Sequence[Record]) -> dict[str, float]:
    """Return the median images/s of each step over the attempts that count, fastest first."""
    import pandas as pd

    attempts = {(row.block, row.attempt) for row in counted}
    limits = (r for r in records if r.kind == "limit" and r.status == "ok" and (r.block, r.attempt) in attempts)
    rows = pd.DataFrame([(r.title, r.images_per_s) for r in limits], columns=["step", "images_per_s"])
    medians = rows.groupby("step")["images_per_s"].median().sort_values(ascending=False)
    return {str(step): float(value) for step, value in medians.items()}


def failures(records: Iterable[Record]) -> tuple[Failure, ...]:
    """Return the rows that are not ok, those of one contestant and variant for one reason together.

    A missing machine limit is no failure.
    """
    found: dict[tuple[object, ...], list[Record]] = {}
    for row in records:
        if row.status != "ok" and (row.kind, row.status) != ("limit", "unavailable"):
            title = Variant.of(row).titled(row.title) if row.kind == "load" else row.title
            key = (row.kind, row.contestant or row.format, title, row.status, row.reason)
            found.setdefault(key, []).append(row)
    return tuple(
        Failure(
            kind=rows[0].kind,
            title=str(title),
            status=rows[0].status,
            reason=rows[0].reason,
            rows=len(rows),
            blocks=tuple(sorted({row.block for row in rows if row.block is not None})),
        )
        for (_, _, title, *_), rows in found.items()
    )
