"""Has a contestant become slower between two runs of the performance suite?

Absolute speeds of two runs are never compared. Each run has, round by round, the ratio of the contestant's speed to
that of the reference, which ran just before it; a contestant has become slower if even the upper end of its new ratio's
one-sided 95 % interval (Student's t on the logarithms) lies more than `tolerance` below the old ratio.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from pathlib import Path

CONFIDENCE = 0.95


@dataclass(frozen=True)
class SpeedChange:
    """One contestant's ratio to the reference, before and now."""

    contestant: str
    before: float | None
    """None if the contestant was not in the earlier run."""
    now: float | None
    """None if the contestant is not in the later run."""
    now_at_most: float | None
    """Upper end of the one-sided interval of `now`."""
    slower: bool

    def __str__(self) -> str:
        """Say it in a line."""
        if self.before is None or self.now is None or self.now_at_most is None:
            return f"{self.contestant}: only in the {'later' if self.before is None else 'earlier'} run"
        change_pct = 100 * (self.now / self.before - 1)
        verdict = "SLOWER" if self.slower else "ok"
        return (
            f"{self.contestant}: {verdict}, {self.before:.3f} -> {self.now:.3f} times the reference "
            f"({change_pct:+.1f} %, at most {100 * (self.now_at_most / self.before - 1):+.1f} %)"
        )


def compare(earlier: Path, later: Path, tolerance: float) -> list[SpeedChange]:
    """Compare two files that `make perf` saved. Raises ValueError if they cannot be compared."""
    before, now = _log_ratios(earlier), _log_ratios(later)
    references = {reference for _, reference in before.keys() | now.keys()}
    if len(references) > 1:
        message = f"{earlier} and {later} have different references: {', '.join(sorted(references))}"
        raise ValueError(message)
    return [_change(name, before.get(key), now.get(key), tolerance) for key in sorted(before | now) for name in key[:1]]


def _change(name: str, before: list[float] | None, now: list[float] | None, tolerance: float) -> SpeedChange:
    old = None if before is None else float(np.exp(np.mean(before)))
    if now is None:
        return SpeedChange(name, old, None, None, slower=False)
    error = stats.sem(now) * stats.t.ppf(CONFIDENCE, len(now) - 1)
    new, most = float(np.exp(np.mean(now))), float(np.exp(np.mean(now) + error))
    return SpeedChange(name, old, new, most, slower=old is not None and most < old * (1 - tolerance))


def _log_ratios(path: Path) -> dict[tuple[str, str], list[float]]:
    """Return, by contestant and reference, the logarithm of each round's ratio."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        return {
            (info["contestant"], info["reference"]): [
                float(np.log(info["images_per_lap"] / lap_s / reference))
                for lap_s, reference in zip(benchmark["stats"]["data"], info["reference_images_per_s"], strict=True)
            ]
            for benchmark in content["benchmarks"]
            for info in [benchmark["extra_info"]]
        }
    except (KeyError, ValueError) as error:
        message = f"{path} was not saved by `make perf` ({type(error).__name__}: {error})"
        raise ValueError(message) from None
