"""Compare contestants within blocks: ratios with intervals, and exact tests corrected for all pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

if TYPE_CHECKING:
    import pandas as pd

RANKING_BLOCKS = 6
"""With fewer common blocks no test can reach `SIGNIFICANCE`, so a comparison is only descriptive."""
SIGNIFICANCE = 0.05
LEAST_DIFFERENCE = 0.02
"""Smaller differences are called ties even if they are significant."""
_EXACT_BLOCKS = 12
_RANDOM_FLIPS = 8192

Verdict = Literal["faster", "slower", "tie", "unresolved"]


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Ratio of two speeds within blocks: geometric mean and 95 % interval."""

    mean: float
    low: float | None
    """None with fewer than 2 common blocks, because one block has no spread."""
    high: float | None
    blocks: int

    def __str__(self) -> str:
        return f"{self.mean:.3f}" + ("" if self.low is None else f" [{self.low:.3f}, {self.high:.3f}]")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The comparison of one contestant with another."""

    ratio: Ratio
    p: float | None
    """p of the sign-flip test, corrected for all pairs; None with fewer than `RANKING_BLOCKS` common blocks."""
    verdict: Verdict


def ratio(logs: Sequence[float]) -> Ratio | None:
    """Return the ratio with its 95 % t interval, of at least one logarithm; None without any. `logs`: one per block."""
    if not logs:
        return None
    mean, low, high = (None if end is None else math.exp(end) for end in mean_interval(logs))
    assert mean
    return Ratio(mean=mean, low=low, high=high, blocks=len(logs))


def mean_interval(values: Sequence[float], quantile: float = 0.975) -> tuple[float, float | None, float | None]:
    """Return the mean of at least one value, and the ends of Student's t interval; None if there is only one value.

    `quantile`: 0.975 gives a two-sided 95 % interval, and 0.95 two ends that are one-sided 95 % intervals.
    """
    mean = fmean(values)
    if len(values) < 2:  # noqa: PLR2004 - one has no spread
        return mean, None, None
    half = float(stdtrit(len(values) - 1, quantile)) * stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def least_difference(twins: Ratio | None) -> float:
    """Return the smallest detectable difference, as a share: 2 %, or the half-width of the A/A interval if wider."""
    if twins is None or twins.low is None or twins.high is None:
        return LEAST_DIFFERENCE
    return max(LEAST_DIFFERENCE, math.sqrt(twins.high / twins.low) - 1)


def compare_all(speeds: pd.DataFrame, least: float) -> dict[tuple[str, str], Comparison]:
    """Compare all contestants that have a common block, in both directions.

    `speeds`: images/s, one row per block, one column per contestant. `least`: see `least_difference`.
    """
    logs = speeds.apply(np.log)
    return compare({(one, other): (logs[one] - logs[other]) for one, other in combinations(logs.columns, 2)}, least)


def compare(differences: Mapping[tuple[str, str], pd.Series[float]], least: float) -> dict[tuple[str, str], Comparison]:
    """Compare pairs, in both directions, corrected for all of them.

    `differences`: of the logarithms of the two speeds, by block. `least`: see `least_difference`.
    """
    tested = {pair: column for pair, column in differences.items() if column.count() >= RANKING_BLOCKS}
    p = dict(zip(tested, corrected_p(np.column_stack(list(tested.values()))), strict=True)) if tested else {}
    compared: dict[tuple[str, str], Comparison] = {}
    for (one, other), column in differences.items():
        for pair, sign in (((one, other), 1), ((other, one), -1)):
            if quotient := ratio((sign * column.dropna()).tolist()):
                known = float(p[one, other]) if (one, other) in p else None
                compared[pair] = Comparison(ratio=quotient, p=known, verdict=_verdict(quotient, known, least))
    return compared


def corrected_p(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return, for each column, the two-sided p of a sign-flip test that its rows are symmetric about zero.

    The correction for all columns is the step-down of Westfall and Young (Resampling-Based Multiple Testing, 1993,
    algorithm 2.8). It flips the signs of whole blocks, which preserves the dependence between columns. Holm's
    correction ignores it and could not resolve any of 45 pairs in 8 blocks, since 45 x 2 / 2^8 > 1. The statistic is
    the mean over the root mean square. The test is exact up to 12 blocks, and uses 8,192 random flips beyond.

    `differences`: blocks x pairs; NaN where a block lacks one of the two.
    """
    counts = (~np.isnan(differences)).sum(axis=0)
    known = np.nan_to_num(differences)
    scale = np.sqrt(counts * (known**2).sum(axis=0))
    sums = np.abs(_flips(len(known)) @ known)
    # Rounding makes values equal that differ only by the order of summation.
    statistics = np.round(np.divide(sums, scale, out=np.zeros_like(sums), where=scale > 0), 12)
    order = np.argsort(-statistics[0], kind="stable")
    most = np.maximum.accumulate(statistics[:, order[::-1]], axis=1)[:, ::-1]  # of a pair and all weaker pairs
    stepped = np.maximum.accumulate((most >= statistics[0, order]).mean(axis=0))
    p = np.empty(len(order))
    p[order] = stepped
    return p


def _flips(blocks: int) -> NDArray[np.float64]:
    """Return rows of signs. The first row is all positive."""
    if blocks <= _EXACT_BLOCKS:
        return np.array(list(product((1.0, -1.0), repeat=blocks)))
    flips = np.random.default_rng(0).choice((1.0, -1.0), (_RANDOM_FLIPS, blocks))
    flips[0] = 1
    return flips


def _verdict(quotient: Ratio, p: float | None, least: float) -> Verdict:
    if p is None or quotient.low is None or quotient.high is None:
        return "unresolved"
    if quotient.low >= 1 / (1 + least) and quotient.high <= 1 + least:
        return "tie"
    if p > SIGNIFICANCE or 1 / (1 + least) < quotient.mean < 1 + least:
        return "unresolved"
    return "faster" if quotient.mean > 1 else "slower"
