"""Was a trial disturbed? The rules, on a trial's own columns. A marked trial stays; it is shown with its marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loaderbench.records.record import Record

STEAL_PCT = 0.5
OTHER_CPU_PCT = 2.0
OTHER_CORE_PCT = 25.0
"""Of one core: the limit where the share above is more than that."""
CANARY_DRIFT_PCT = 5.0
HALF_DRIFT_PCT = 3.0
MAJOR_FAULTS = 20
"""In a warm window. A page of a library that is used for the first time may still have to be read."""
BANK_BIAS_PCT = 5.0


def disturbances(record: Record) -> tuple[str, ...]:
    """Return the signs that something from outside disturbed an `ok` trial, in a few words each.

    Of these another run may be free.
    """
    if record.status != "ok" or record.kind not in {"load", "tune"}:
        return ()
    warm = record.cache == "warm"
    measured = (
        ("the hypervisor took {:.1f} % of the cores", record.steal_pct, STEAL_PCT),
        # The other end of a network may be on this machine.
        (
            "other processes used {:.1f} % of the cores",
            None if record.transport else record.other_cpu_pct,
            _other_cpu_pct(record),
        ),
        ("the cores' own speed changed by {:+.1f} %", record.canary_drift_pct, CANARY_DRIFT_PCT),
        ("the window's halves lie {:+.1f} % apart", record.half_drift_pct if warm else None, _half_drift_pct(record)),
        ("{} page faults had to read", record.major_faults if warm else None, MAJOR_FAULTS),
    )
    return tuple(text.format(value) for text, value, limit in measured if value is not None and abs(value) > limit)


def flags(record: Record) -> tuple[str, ...]:
    """Return all that speaks against an `ok` trial's figure: disturbances, and what another run would hardly mend."""
    if record.status != "ok" or record.kind not in {"load", "tune"}:
        return ()
    found = list(disturbances(record))
    if record.throttle_events:
        found.append(f"the cores were slowed or held back {record.throttle_events} times")
    if record.gpu_throttle:
        found.append(f"the GPU was slowed: {record.gpu_throttle}")
    if record.cache_state == "unproven":
        found.append(f"a {record.cache} page cache is not proven")
    if (record.bank_bias_bound_pct or 0) > BANK_BIAS_PCT:
        found.append(f"prepared batches may weigh {record.bank_bias_bound_pct:.1f} %")
    return tuple(found)


def _other_cpu_pct(record: Record) -> float:
    """Return which share of the cores others may use: of many cores, no more than a part of one."""
    if not (record.cpu_load_pct and record.cores_used):
        return OTHER_CPU_PCT
    allowed_cores = 100 * record.cores_used / record.cpu_load_pct
    return min(OTHER_CPU_PCT, OTHER_CORE_PCT / allowed_cores)


def _half_drift_pct(record: Record) -> float:
    """Return how far apart the halves may lie. Workers finish together, so a half may hold a batch per worker more."""
    if not (record.window_images and record.batch_size and record.workers):
        return HALF_DRIFT_PCT
    batches = record.window_images / record.batch_size
    return HALF_DRIFT_PCT + 100 * record.workers / (batches / 2)
