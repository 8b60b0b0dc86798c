"""Find contestants that became slower between two runs of the performance suite.

Absolute speeds of two runs are never compared. In each round of a run, the contestant's speed is divided by that of the
reference, which ran just before. A contestant became slower if even the upper end of its new ratio's one-sided 95 %
interval (Student's t on the logarithms) lies more than `tolerance` below the old ratio. A contestant that is missing
from the later run fails the comparison too.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loaderbench.findings.comparison import mean_interval

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

    @property
    def failed(self) -> bool:
        """Whether it fails the comparison."""
        return self.slower or self.now is None

    def __str__(self) -> str:
        if self.now is None or self.now_at_most is None:
            return f"{self.contestant}: MISSING from the later run"
        if self.before is None:
            return f"{self.contestant}: only in the later run"
        change_pct = 100 * (self.now / self.before - 1)
        return (
            f"{self.contestant}: {'SLOWER' if self.slower else 'ok'}, {self.before:.3f} -> {self.now:.3f} times the "
            f"reference ({change_pct:+.1f} %, at most {100 * (self.now_at_most / self.before - 1):+.1f} %)"
        )


def compare(earlier: Path, later: Path, tolerance: float) -> list[SpeedChange]:
    """Compare two files that `make perf` saved. Raises ValueError if they cannot be compared."""
    before, now = _log_ratios(earlier), _log_ratios(later)
    references = {reference for _, reference in before.keys() | now.keys()}
    if len(references) > 1:
        raise ValueError(f"{earlier} and {later} have different references: {', '.join(sorted(references))}")
    return [_change(key[0], before.get(key), now.get(key), tolerance) for key in sorted(before | now)]


def _change(name: str, before: Sequence[float] | None, now: Sequence[float] | None, tolerance: float) -> SpeedChange:
    old = math.exp(mean_interval(before)[0]) if before else None
    if not now:
        return SpeedChange(name, old, None, None, slower=False)
    mean, _, high = mean_interval(now, CONFIDENCE)
    assert high is not None
    most = math.exp(high)
    return SpeedChange(name, old, math.exp(mean), most, slower=old is not None and most < old * (1 - tolerance))


def _log_ratios(path: Path) -> dict[tuple[str, str], list[float]]:
    """Return the logarithm of each round's ratio, by contestant and reference. Raises ValueError."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        found = {
            (info["contestant"], info["reference"]): [
                math.log(info["images_per_lap"] / lap_s / reference)
                for lap_s, reference in zip(benchmark["stats"]["data"], info["reference_images_per_s"], strict=True)
            ]
            for benchmark in content["benchmarks"]
            for info in [benchmark["extra_info"]]
        }
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); name a file that `make perf` saved") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} was not saved by `make perf` ({type(error).__name__}: {error})") from None
    if single := [contestant for (contestant, _), logs in found.items() if len(logs) < 2]:  # noqa: PLR2004 - no spread
        raise ValueError(f"{path} has fewer than 2 rounds of {', '.join(single)}; run make perf again")
    return found
