"""Judge the controls of a campaign in every block: whether the harness measured what is known beforehand."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loaderbench.campaign.variant import Variant, variants
from loaderbench.findings.comparison import LEAST_DIFFERENCE, Ratio
from loaderbench.records.record import Record

SPEED_TOLERANCE = 0.02
CPU_TOLERANCE = 0.03
READ_TOLERANCE = 0.05
MEMORY_TOLERANCE = 0.05
CEILING_SHARE = 0.02
"""Maximum share of the fastest contestant's time that the harness may take."""
STALL_TOLERANCE_PCT = 5.0
"""Percentage points by which a data stall may differ from the predicted one."""
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
    """The worst of all blocks, and the blocks without a value; an empty string if there was no trial."""
    passed: bool | None
    """None if it did not fail, but could not be read in every block."""


Values = Mapping[int | None, float | None]
"""What was measured, by block; None where it could not be read, also because the trial failed."""


def judge(
    campaign: Mapping[str, Any], counted: Sequence[Record], twins: Mapping[str, Ratio | None], fastest: Values
) -> tuple[ControlResult, ...]:
    """Judge the loaders of a campaign, as `env.json` keeps it, that are controls.

    `counted`: its rows of the main variant that count, of any status. `twins`: ratio of each A/A control to
    the reference. `fastest`: highest images/s of the contestants, by block.
    """
    rows = {c["name"]: [row for row in counted if row.contestant == c["name"]] for c in campaign["contestants"]}
    idle = [row for c in campaign["contestants"] if c["control"] == "ceiling" for row in rows[c["name"]]]
    results: list[ControlResult] = []
    for contestant in campaign["contestants"]:
        title, own = contestant["title"], rows[contestant["name"]]
        match contestant["control"]:
            case "twin":
                results.append(_twin(title, own, twins.get(contestant["name"])))
            case "ceiling":
                results.append(_ceiling(title, own, fastest))
            case "known":
                results += _known(title, contestant["options"], own, idle, campaign.get("work", {}))
    return tuple(results)


def network_controls(fetching: Sequence[Record]) -> Iterator[ControlResult]:
    """Judge the counted bytes and the rate limit of the network, by ok rows of trials with their data in a bucket."""
    if not fetching:
        return
    read = [
        row for row in fetching if row.network_bytes is not None and (row.transport != "download" or row.size_bytes)
    ]
    shares = [(row.network_bytes or 0) / (row.size_bytes or 1) for row in read if row.transport == "download"]
    past = [f"0 bytes in {row.trial}" for row in read if row.network_bytes == 0]
    measured = [f"{min(shares):.3f} to {max(shares):.3f} times"] if shares else ["more than 0 bytes"] * bool(read)
    yield _control(
        "Bytes over the network",
        f"every trial takes some, and every download those of its format, or up to {100 * NETWORK_OVERHEAD:g} % more",
        "; ".join(past or measured),
        not past and all(1 <= share <= 1 + NETWORK_OVERHEAD for share in shares),
        [row.trial for row in fetching if row not in read],
    )
    limited = {row.trial: _rates_mib_per_s(row) for row in fetching if row.network_rate_mib_per_s}
    if limited:
        limit = next(row.network_rate_mib_per_s for row in fetching if row.network_rate_mib_per_s) or 0
        most = max((rate for rates in limited.values() for rate in rates), default=0)
        yield _control(
            "Rate of the network",
            f"at most {limit:g} MiB/s in every download and epoch, within {100 * NETWORK_RATE_TOLERANCE:g} %",
            f"{most:.3g} MiB/s at most" if most else "",
            most <= limit * (1 + NETWORK_RATE_TOLERANCE),
            [trial for trial, rates in limited.items() if not rates],
        )


def stall_controls(campaign: Mapping[str, Any], counted: Sequence[Record]) -> Iterator[ControlResult]:
    """Judge the data stall of training on loaders of known speed, which the speed on one cached batch predicts.

    `counted`: the rows that count, of any status.
    """
    train = Variant(consumer="train")
    names, work = variants(campaign).get(train, ()), campaign.get("work", {})
    for contestant in campaign["contestants"]:
        if contestant["control"] == "known" and contestant["name"] in names:
            own = [row for row in counted if row.contestant == contestant["name"] and Variant.of(row) == train]
            yield _stall(contestant["title"], contestant["options"]["images_per_s"] * _processes(work), own)


def _stall(title: str, images_per_s: float, rows: Sequence[Record]) -> ControlResult:
    """Judge the data stall of training on a loader of this speed."""
    stalls = {row.block: _stalls_pct(row, images_per_s) for row in rows}
    worst = max(filter(None, stalls.values()), key=lambda pair: abs(pair[0] - pair[1]), default=(0.0, 0.0))
    known = f"the data stall that {images_per_s:,g} images/s cause, ± {STALL_TOLERANCE_PCT:g} points in every block"
    measured = f"{worst[0]:.1f} % of the time instead of {worst[1]:.1f} %" if any(stalls.values()) else ""
    unread = _unread({block: pair and pair[0] for block, pair in stalls.items()})
    return _control(title, known, measured, abs(worst[0] - worst[1]) <= STALL_TOLERANCE_PCT, unread)


def _stalls_pct(row: Record, images_per_s: float) -> tuple[float, float] | None:
    """Return the measured data stall and the one that this speed must cause, in %; None if either is unknown."""
    cached = row.warm_cached_images_per_s
    if row.status != "ok" or row.starved_pct is None or not cached:
        return None
    return row.starved_pct, max(0.0, 100 * (1 - images_per_s / cached))


def _processes(work: Mapping[str, Any]) -> int:
    """Return the number of ranks or jobs. Each has a loader."""
    return int(work.get("ranks", 1) * work.get("jobs", 1))


def _rates_mib_per_s(row: Record) -> list[float]:
    """Return the rates of its download and of its first two epochs; none if nothing came in the first."""
    spans = [(row.network_epoch1_bytes, row.download_s or row.epoch1_s), (row.network_epoch2_bytes, row.epoch2_s)]
    rates = [size_bytes / _MIB / seconds for size_bytes, seconds in spans if size_bytes and seconds]
    return rates if row.network_epoch1_bytes else []


def _twin(title: str, rows: Sequence[Record], ratio: Ratio | None) -> ControlResult:
    expected = f"the 95 % interval of its ratio to the reference overlaps 1 ± {100 * LEAST_DIFFERENCE:g} %"
    if ratio is None or ratio.low is None or ratio.high is None:
        return ControlResult(title, expected, "", None)
    measured = f"{ratio.mean:.3f} times, 95 % interval {ratio.low:.3f} to {ratio.high:.3f}"
    most = 1 + LEAST_DIFFERENCE
    held = ratio.low <= most and ratio.high >= 1 / most
    return _control(title, expected, measured, held, _unread(_by_block(rows, lambda row: row.images_per_s)))


def _ceiling(title: str, rows: Sequence[Record], fastest: Values) -> ControlResult:
    expected = f"the harness takes at most {100 * CEILING_SHARE:g} % of the fastest contestant's time in every block"
    speeds = _by_block(rows, lambda row: row.images_per_s)
    shares = {block: _quotient(fastest.get(block), speed) for block, speed in speeds.items()}
    share, block = max(((share, block) for block, share in shares.items() if share), default=(0.0, None))
    batches_per_s = (speeds.get(block) or 0) / (rows[0].batch_size or 1) if rows else 0
    measured = f"{100 * share:.2f} %, at {batches_per_s:,.0f} empty batches/s" if share else ""
    return _control(title, expected, measured, share <= CEILING_SHARE, _unread(shares))


def _quotient(one: float | None, other: float | None) -> float | None:
    return one / other if one and other else None


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
    options = {name: value * _processes(work) for name, value in options.items() if name in _COSTS}
    speeds = _by_block(rows, lambda row: row.images_per_s)
    yield _within(title, "images/s", options["images_per_s"], SPEED_TOLERANCE, speeds)
    if cores := sum(options.get(name, 0) for name in _CORES):
        used = _by_block(rows, lambda row: row.cores_used)
        yield _within(title, "cores used by the process, its child and grandchild", cores, CPU_TOLERANCE, used)
    if read_mib := options.get("read_mib"):
        # Nothing is read if the files are in memory, or if the counter cannot be read: nobody knows which.
        read = _by_block(rows, lambda row: (row.read_bytes or 0) / _MIB or None)
        yield _within(title, "MiB read from the disk", read_mib, READ_TOLERANCE, read)
    if shared_mib := options.get("shared_mib"):
        own, without = (_by_block(some, lambda row: row.anon_memory_mib) for some in (rows, idle))
        held = {block: used - bare if used and (bare := without.get(block)) else None for block, used in own.items()}
        yield _within(title, "MiB shared with its child, counted once", shared_mib, MEMORY_TOLERANCE, held)


def _by_block(rows: Sequence[Record], column: Callable[[Record], float | None]) -> Values:
    return {row.block: column(row) if row.status == "ok" else None for row in rows}


def _unread(values: Values) -> list[str]:
    return [f"block {block}" for block, value in sorted(values.items(), key=str) if value is None]


def _within(title: str, what: str, expected: float, tolerance: float, values: Values) -> ControlResult:
    known = f"{expected:,g} {what}, within {100 * tolerance:g} % in every block"
    worst = max((v for v in values.values() if v is not None), key=lambda v: abs(v / expected - 1), default=expected)
    off = worst / expected - 1
    read = any(value is not None for value in values.values())
    measured = f"{worst:,.6g} ({100 * off:+.1f} %)" if read else ""
    return _control(title, known, measured, abs(off) <= tolerance, _unread(values))


def _control(title: str, expected: str, measured: str, held: bool, unread: Sequence[str]) -> ControlResult:  # noqa: FBT001
    """Return a result; what held, but could not be read everywhere, has not passed."""
    said = "; ".join(filter(None, [measured, f"unread in {', '.join(unread)}" if unread else ""]))
    return ControlResult(title, expected, said, (None if unread or not measured else True) if held else False)
