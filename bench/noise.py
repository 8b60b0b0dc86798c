"""Was a trial disturbed? The rules, on a trial's own columns. A marked trial stays; it is shown with its marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.records import Record

STEAL_PCT = 0.5
OTHER_CPU_PCT = 2.0
CANARY_DRIFT_PCT = 3.0
HALF_DRIFT_PCT = 3.0
BANK_BIAS_PCT = 5.0


def marks(record: Record) -> tuple[str, ...]:
    """Return what speaks against an `ok` trial's quiet, each in a few words."""
    if record.status != "ok" or record.kind != "load":
        return ()
    measured = (
        ("the hypervisor took {:.1f} % of the cores", record.steal_pct, STEAL_PCT),
        ("other processes used {:.1f} % of the cores", record.other_cpu_pct, OTHER_CPU_PCT),
        ("the cores' own speed changed by {:+.1f} %", record.canary_drift_pct, CANARY_DRIFT_PCT),
        ("the window's halves lie {:+.1f} % apart", record.half_drift_pct, HALF_DRIFT_PCT),
        ("prepared batches may weigh {:.1f} %", record.bank_bias_bound_pct, BANK_BIAS_PCT),
    )
    found = [text.format(value) for text, value, limit in measured if value is not None and abs(value) > limit]
    if record.cache_state != "warm":
        found.append("a warm page cache is not proven")
    return tuple(found)
