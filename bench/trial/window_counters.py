"""Read the counters of CPU, disk and noise at both edges of the window, and return their columns of `Record`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from loaderbench.machine.cores import Cores, allowed_cores, cores, usable_cores
from loaderbench.machine.counters import Counters, difference, processes, tree_counters, tree_seconds


@dataclass(frozen=True)
class CounterSample:
    """The counters at one edge of the window."""

    cpu_s: float
    counters: Counters
    cores: Cores

    @classmethod
    def read(cls) -> Self:
        """Read all counters; CPU time first, because it is compared with the length of the window."""
        tree = processes()
        return cls(tree_seconds(tree), tree_counters(tree), cores())


def columns(opened: CounterSample, closed: CounterSample, window_s: float, images: float) -> dict[str, Any]:
    """Return the columns of `Record` for a window of this length, in which `images` images came."""
    cpu_s = closed.cpu_s - opened.cpu_s
    others_s = closed.cores.busy_s - opened.cores.busy_s - cpu_s
    allowed = allowed_cores()
    return {
        "cpu_s": cpu_s,
        "cpu_load_pct": 100 * cpu_s / window_s / usable_cores(),
        "cores_used": cpu_s / window_s,
        "cpu_s_per_1k_images": 1000 * cpu_s / images,
        "other_cpu_pct": 100 * max(0.0, others_s) / window_s / allowed,
        "steal_pct": 100 * (closed.cores.steal_s - opened.cores.steal_s) / window_s / allowed,
        "window_read_bytes": difference(opened.counters.read_bytes, closed.counters.read_bytes),
        "major_faults": closed.counters.major_faults - opened.counters.major_faults,
        "context_switches": closed.counters.context_switches - opened.counters.context_switches,
        "thermal_throttle_events": difference(opened.cores.thermal_events, closed.cores.thermal_events),
        "quota_throttle_events": difference(opened.cores.quota_events, closed.cores.quota_events),
    }
