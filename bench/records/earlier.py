"""Columns that earlier schemas computed or named differently."""

import numpy as np

from loaderbench.records.timeline import NS_PER_S, Timeline, rate

_READY_SHARE = 0.5
"""A batch was prefetched if it came after the pause within this share of the usual interval."""
RENAMED_IN = 6
"""The schema from which on rows have the new names."""
RENAMED = {
    "later_epochs_images_per_s": "sustained_images_per_s",
    "epoch_gap_s": "epoch_end_s",
    "prefetched_images": "bank_images",
    "prefetch_bias_bound_pct": "bank_bias_bound_pct",
    "window_drift_pct": "half_drift_pct",
    "memory_mib": "peak_memory_mib",
    "anon_memory_mib": "peak_anon_memory_mib",
    "write_synced_s": "write_s",
    "warm_cached_images_per_s": "cached_images_per_s",
    "stall_vs_warm_cached_pct": "stall_vs_cached_pct",
}
"""Newer columns, and those of earlier rows that are shown in their place. The last two came within schema 7."""


def columns(times: Timeline) -> dict[str, float | int | None]:
    """Return the columns that rows before schema 6 have, as they were computed then; 0 epochs for ranks or jobs.

    Epochs and the gaps between them include the harness's pause. Prefetched images end with their epoch, or with the
    first batch that had to be waited for. The halves of
    the window are equally long.
    """
    asked, exits, images = (np.array(values) for values in (times.asked_ns, times.exits_ns, times.images))
    (first, last), begins = times.window, times.epochs
    middle = int(np.searchsorted(exits, (exits[first] + exits[last]) // 2))
    drift = None
    if first < middle < last:
        drift = 100 * (rate(images, exits, middle, last) / rate(images, exits, first, middle) - 1)
    gaps_ns = [exits[begin] - exits[begin - 1] for begin in begins[1:]]
    ready = None
    if times.paused is not None:
        limit_ns = _READY_SHARE * (exits[last] - exits[first]) / (last - first)
        slow = np.flatnonzero((exits - asked)[times.paused :] > limit_ns)
        ready = int(images[times.paused : times.paused + int(slow[0])].sum()) if len(slow) else None
    window_images = int(images[first + 1 : last + 1].sum())
    several = len(begins) > 2  # noqa: PLR2004 - the second epoch ends where the third begins
    return {
        "sustained_images_per_s": rate(images, exits, begins[1] - 1, begins[-1] - 1) if several else None,
        "epoch_end_s": float(np.mean(gaps_ns)) / NS_PER_S if gaps_ns else None,
        "bank_images": ready,
        "bank_bias_bound_pct": None if ready is None else 100 * ready / window_images,
        "half_drift_pct": drift,
        "window_epochs": sum(first < begin <= last for begin in begins),
    }
