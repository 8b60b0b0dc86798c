"""Rules that flag a trial by its own columns. A flagged trial still counts; it is shown with its flags."""

from collections.abc import Iterable

from loaderbench.records.record import Record

STEAL_PCT = 0.5
OTHER_CPU_PCT = 2.0
OTHER_CORE_PCT = 25.0
"""Of one core: the limit where `OTHER_CPU_PCT` of all cores is more than that."""
CANARY_DRIFT_PCT = 5.0
WINDOW_DRIFT_PCT = 3.0
WINDOW_DRIFT_ERRORS = 2.0
"""Standard errors that the drift may have on top: chance exceeds them in one trial of twenty."""
MAJOR_FAULTS = 20
"""In a warm window. A library's page may still have to be read when it is first used."""
PREFETCH_BIAS_PCT = 5.0
BEYOND_LIMIT_PCT = 102.0
"""Of the machine limit: what exceeds it by more did less work, or the limit is wrong."""


def disturbances(record: Record) -> tuple[str, ...]:
    """Return the signs from outside that something else disturbed an `ok` trial.

    Only these decide whether a block is run again and which attempt at it counts: what a contestant itself does, such
    as becoming slower or failing, must not choose among its own rows.
    """
    if record.status != "ok" or record.kind not in {"load", "tune"}:
        return ()
    # With the data in a bucket, the other end of the network may be on this machine.
    other_cpu_pct = None if record.transport else record.other_cpu_pct
    measured = (
        ("the hypervisor took {:.1f} % of the cores", record.steal_pct, STEAL_PCT),
        ("other processes used {:.1f} % of the cores", other_cpu_pct, _other_cpu_limit_pct(record)),
        ("the time of a fixed piece of work changed by {:+.1f} %", record.canary_drift_pct, CANARY_DRIFT_PCT),
    )
    return _beyond(measured)


def _beyond(measured: Iterable[tuple[str, float | None, float]]) -> tuple[str, ...]:
    return tuple(text.format(value) for text, value, limit in measured if value is not None and abs(value) > limit)


def flags(record: Record) -> tuple[str, ...]:
    """Return all doubts about the figures of an `ok` trial: disturbances, and what the trial itself shows."""
    if record.status != "ok" or record.kind not in {"load", "tune"}:
        return ()
    warm = record.cache == "warm"
    measured = (
        (
            "the halves of the window differ by {:+.1f} %",
            record.window_drift_pct if warm else None,
            _drift_limit(record),
        ),
        ("{} page faults had to read", record.major_faults if warm else None, MAJOR_FAULTS),
        ("cores were slowed for their heat {} times", record.thermal_throttle_events, 0),
        ("a CPU quota was used up {} times", record.quota_throttle_events, 0),
        ("the cores were slowed or held back {} times", record.throttle_events, 0),
        ("it reaches {:,.0f} % of the machine limit", record.pct_of_bound, BEYOND_LIMIT_PCT),
        ("prefetching may account for {:.1f} % of images/s", record.prefetch_bias_bound_pct, PREFETCH_BIAS_PCT),
    )
    found = [*disturbances(record), *_beyond(measured)]
    if record.gpu_throttle:
        found.append(f"the GPU was slowed: {record.gpu_throttle}")
    if record.cache_state == "unproven":
        found.append(_unverified(record))
    return tuple(found)


def _unverified(record: Record) -> str:
    """Return what is known of a page cache whose state is unproven."""
    read_bytes = record.window_read_bytes if record.cache == "warm" else record.read_bytes
    seen = (
        ("{:.0f} % of the format in it before the trial", record.resident_pct),
        ("{:.0f} % after it", record.resident_after_pct),
        ("{:,} bytes read", read_bytes),
    )
    known = ", ".join(text.format(value) for text, value in seen if value is not None)
    return f"the {record.cache} page cache is not verified" + (f": {known}" if known else "")


def _other_cpu_limit_pct(record: Record) -> float:
    """Return the share of the allowed cores that other processes may use; of many cores, a part of one."""
    if not (record.cpu_load_pct and record.cores_used):
        return OTHER_CPU_PCT
    usable_cores = 100 * record.cores_used / record.cpu_load_pct
    return min(OTHER_CPU_PCT, OTHER_CORE_PCT / usable_cores)


def _drift_limit(record: Record) -> float:
    """Return by how many percent the halves of the window may differ."""
    if record.window_drift_error_pct is not None:
        return WINDOW_DRIFT_PCT + WINDOW_DRIFT_ERRORS * record.window_drift_error_pct
    if not (record.window_images and record.batch_size and record.workers):
        return WINDOW_DRIFT_PCT
    # Before schema 6: workers end together, so one half may hold a batch more of each.
    return WINDOW_DRIFT_PCT + 100 * record.workers / (record.window_images / record.batch_size / 2)
