"""Judge the controls of a campaign: whether the harness measured what is known beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from loaderbench.findings.comparison import LEAST_DIFFERENCE, Ratio
from loaderbench.records.record import Record

SPEED_TOLERANCE = 0.02
CPU_TOLERANCE = 0.03
READ_TOLERANCE = 0.05
MEMORY_TOLERANCE = 0.05
CEILING_SHARE = 0.02
"""Maximum share of the fastest contestant's time that the harness may take."""
NETWORK_RATE_TOLERANCE = 0.02
NETWORK_OVERHEAD = 0.1
"""Maximum share that requests, headers and encryption may add to a download, for files of 10 KiB and more."""
_MIB = 1 << 20
_CORES = ("own_cores", "child_cores", "grandchild_cores")
_COSTS = {*_CORES, "images_per_s", "read_mib", "shared_mib"}


@dataclass(frozen=True)
class ControlResult:
    """One known value, and its measurement."""

    title: str
    expected: str
    measured: str
    passed: bool | None
    """None if it was not measured."""


def judge(
    campaign: Mapping[str, Any], good: Sequence[Record], twins: Ratio | None, fastest: float | None
) -> tuple[ControlResult, ...]:
    """Judge the loaders of a campaign, as `env.json` keeps it, that are controls.

    `good`: its ok load rows. `twins`: ratio of the A/A control to the reference. `fastest`: highest median images/s.
    """
    rows = {c["name"]: [row for row in good if row.contestant == c["name"]] for c in campaign["contestants"]}
    idle = [row for c in campaign["contestants"] if c["control"] == "ceiling" for row in rows[c["name"]]]
    results: list[ControlResult] = []
    for contestant in campaign["contestants"]:
        title, own = contestant["title"], rows[contestant["name"]]
        match contestant["control"]:
            case "twin":
                results.append(_twin(title, twins))
            case "ceiling":
                results.append(_ceiling(title, own, fastest))
            case "known":
                results += _known(title, contestant["options"], own, idle, campaign.get("work", {}))
    return tuple(results)


def network_controls(fetching: Sequence[Record]) -> Iterator[ControlResult]:
    """Judge the counted bytes and the rate limit of the network, by ok rows of trials with their data in a bucket."""
    times = [
        row.network_bytes / row.size_bytes
        for row in fetching
        if row.transport == "download" and row.network_bytes is not None and row.size_bytes
    ]
    if times:
        yield ControlResult(
            "Bytes over the network",
            f"every download takes the bytes of its format, or up to {100 * NETWORK_OVERHEAD:g} % more",
            f"{min(times):.3f} to {max(times):.3f} times",
            min(times) >= 1 and max(times) <= 1 + NETWORK_OVERHEAD,
        )
    limits = [row.network_rate_mib_per_s for row in fetching if row.network_rate_mib_per_s]
    rates = [rate for row in fetching for rate in _rates_mib_per_s(row)]
    if limits and rates:
        yield ControlResult(
            "Rate of the network",
            f"at most {limits[0]:g} MiB/s in every download and epoch, within {100 * NETWORK_RATE_TOLERANCE:g} %",
            f"{max(rates):.3g} MiB/s at most",
            max(rates) <= limits[0] * (1 + NETWORK_RATE_TOLERANCE),
        )


def _rates_mib_per_s(row: Record) -> Iterator[float]:
    """Yield the rates of its download and of its first two epochs."""
    spans = [(row.network_epoch1_bytes, row.download_s or row.epoch1_s), (row.network_epoch2_bytes, row.epoch2_s)]
    for size_bytes, seconds in spans:
        if size_bytes and seconds:
            yield size_bytes / _MIB / seconds


def _twin(title: str, twins: Ratio | None) -> ControlResult:
    expected = f"the 95 % interval of its ratio to the reference overlaps 1 ± {100 * LEAST_DIFFERENCE:g} %"
    if twins is None or twins.low is None or twins.high is None:
        return ControlResult(title, expected, "", None)
    measured = f"{twins.mean:.3f} times, 95 % interval {twins.low:.3f} to {twins.high:.3f}"
    most = 1 + LEAST_DIFFERENCE
    return ControlResult(title, expected, measured, twins.low <= most and twins.high >= 1 / most)


def _ceiling(title: str, rows: Sequence[Record], fastest: float | None) -> ControlResult:
    expected = f"the harness takes at most {100 * CEILING_SHARE:g} % of the fastest contestant's time"
    speeds = [row.images_per_s for row in rows if row.images_per_s]
    if not speeds or fastest is None:
        return ControlResult(title, expected, "", None)
    share = fastest / median(speeds)
    batches_per_s = median(speeds) / (rows[0].batch_size or 1)
    measured = f"{100 * share:.2f} %, at {batches_per_s:,.0f} empty batches/s"
    return ControlResult(title, expected, measured, share <= CEILING_SHARE)


def _known(
    title: str,
    options: Mapping[str, Any],
    rows: Sequence[Record],
    idle: Sequence[Record],
    work: Mapping[str, Any],
) -> Iterator[ControlResult]:
    """Judge a loader of known speed and cost.

    `idle`: rows of the null loader, whose memory is subtracted. `work`: the campaign's; each rank or job has such a
    loader.
    """
    processes = work.get("ranks", 1) * work.get("jobs", 1)
    options = {name: value * processes for name, value in options.items() if name in _COSTS}
    yield _within(title, "images/s", options["images_per_s"], SPEED_TOLERANCE, [r.images_per_s for r in rows])
    if cores := sum(options.get(name, 0) for name in _CORES):
        used = [r.cores_used for r in rows]
        yield _within(title, "cores used by the process, its child and grandchild", cores, CPU_TOLERANCE, used)
    if read_mib := options.get("read_mib"):
        # If the files are in memory, there is no disk to read, and nothing to judge.
        read = [r.read_bytes / _MIB for r in rows if r.read_bytes]
        yield _within(title, "MiB read from the disk", read_mib, READ_TOLERANCE, read)
    if shared_mib := options.get("shared_mib"):
        without = [r.peak_anon_memory_mib for r in idle if r.peak_anon_memory_mib]
        held = [r.peak_anon_memory_mib - median(without) for r in rows if r.peak_anon_memory_mib and without]
        yield _within(title, "MiB shared with its child, counted once", shared_mib, MEMORY_TOLERANCE, held)


def _within(title: str, what: str, expected: float, tolerance: float, values: Sequence[float | None]) -> ControlResult:
    known = f"{expected:,g} {what}, within {100 * tolerance:g} %, median over blocks"
    found = [value for value in values if value is not None]
    if not found:
        return ControlResult(title, known, "", None)
    middle = median(found)
    return ControlResult(
        title, known, f"{middle:,.6g} ({100 * (middle / expected - 1):+.1f} %)", abs(middle / expected - 1) <= tolerance
    )
