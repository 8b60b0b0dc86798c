"""Did the harness give back what is known beforehand? The controls of a campaign, judged."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.analysis import Ratio
    from bench.records import Record

SPEED_TOLERANCE = 0.02
CPU_TOLERANCE = 0.03
CEILING_SHARE = 0.02
"""The harness may take at most this share of the fastest contestant's time."""
_CORES = ("own_cores", "child_cores", "grandchild_cores")


@dataclass(frozen=True)
class Verdict:
    """One thing that was known, and what came out."""

    title: str
    expected: str
    measured: str
    held: bool | None
    """None if it was not measured."""


def judge(
    campaign: Mapping[str, Any], good: Sequence[Record], ratios: Mapping[str, Ratio], fastest: float | None
) -> tuple[Verdict, ...]:
    """Judge the controls of a campaign as `env.json` keeps it.

    `good`: its ok load rows. `ratios`: to the reference, by contestant. `fastest`: the highest median images/s.
    """
    judges = {"twin": _twin, "ceiling": _ceiling, "known": _known}
    verdicts: list[Verdict] = []
    for contestant in campaign["contestants"]:
        if kind := contestant["control"]:
            rows = [row for row in good if row.contestant == contestant["name"]]
            verdicts += judges[kind](contestant, rows, ratios.get(contestant["name"]), fastest)
    return tuple(verdicts)


def _twin(contestant: Mapping[str, Any], _: Sequence[Record], ratio: Ratio | None, __: float | None) -> list[Verdict]:
    expected = "1 times the reference"
    if ratio is None or ratio.low is None or ratio.high is None:
        return [Verdict(contestant["title"], expected, "", None)]
    measured = f"{ratio.mean:.3f} times, 95 % interval {ratio.low:.3f} to {ratio.high:.3f}"
    return [Verdict(contestant["title"], expected, measured, ratio.low <= 1 <= ratio.high)]


def _ceiling(
    contestant: Mapping[str, Any], rows: Sequence[Record], _: Ratio | None, fastest: float | None
) -> list[Verdict]:
    expected = f"the harness takes at most {100 * CEILING_SHARE:g} % of the fastest contestant's time"
    speeds = [row.images_per_s for row in rows if row.images_per_s]
    if not speeds or fastest is None:
        return [Verdict(contestant["title"], expected, "", None)]
    share = fastest / median(speeds)
    batches_per_s = median(speeds) / (rows[0].batch_size or 1)
    measured = f"{100 * share:.2f} %, at {batches_per_s:,.0f} empty batches/s"
    return [Verdict(contestant["title"], expected, measured, share <= CEILING_SHARE)]


def _known(contestant: Mapping[str, Any], rows: Sequence[Record], _: Ratio | None, __: float | None) -> list[Verdict]:
    options = contestant["options"]
    return [
        _within(
            contestant["title"], "images/s", options["images_per_s"], SPEED_TOLERANCE, [r.images_per_s for r in rows]
        ),
        _within(
            contestant["title"],
            "cores used, by the process, its child and grandchildren",
            sum(options.get(name, 0) for name in _CORES),
            CPU_TOLERANCE,
            [r.cores_used for r in rows],
        ),
    ]


def _within(title: str, what: str, expected: float, tolerance: float, values: Sequence[float | None]) -> Verdict:
    known = f"{expected:,g} {what}, within {100 * tolerance:g} %"
    found = [value for value in values if value is not None]
    if not found:
        return Verdict(title, known, "", None)
    middle = median(found)
    return Verdict(
        title, known, f"{middle:,.6g} ({100 * (middle / expected - 1):+.1f} %)", abs(middle / expected - 1) <= tolerance
    )
