"""Measure what all processes together did on the allowed cores, and how fast the cores were."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

_WORK = bytes(4 << 20)
_ROUNDS = 15
_CGROUPS, _MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Cores:
    """Totals since the machine's start, over the cores that this process may use."""

    busy_s: float
    """Seconds spent running anything in this machine."""
    steal_s: float
    """Seconds that this machine wanted and the hypervisor gave to another."""
    throttle_events: int | None
    """How often a core was slowed for its heat, or a cgroup of this process had used up its quota.

    None if the kernel reports neither.
    """


def cores() -> Cores:
    """Return the totals of the allowed cores, from /proc/stat, in steps of one tick."""
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    busy = steal = 0
    names = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name in names:
            user, nice, system, _idle, _iowait, irq, softirq, stolen = map(int, ticks[:8])
            busy += user + nice + system + irq + softirq
            steal += stolen
    events = [*_heat_events(names), *_quota_events()]
    return Cores(busy * tick_s, steal * tick_s, sum(events) if events else None)


def _heat_events(names: set[str]) -> list[int]:
    counts = (Path("/sys/devices/system/cpu", name, "thermal_throttle/core_throttle_count") for name in names)
    return [int(count.read_text()) for count in counts if count.exists()]


def _quota_events() -> list[int]:
    """Return how often each cgroup that this process is in, from its own up to the root, was throttled (cgroup v2)."""
    own = next((line[3:] for line in _MEMBERSHIP.read_text().splitlines() if line.startswith("0::")), "/")
    folder = _CGROUPS / own.lstrip("/")
    counts = (path / "cpu.stat" for path in (folder, *folder.parents) if path.is_relative_to(_CGROUPS))
    lines = [line for count in counts if count.exists() for line in count.read_text().splitlines()]
    return [int(line.split()[1]) for line in lines if line.startswith("nr_throttled ")]


def canary_s() -> float:
    """Return the shortest time that one core takes for a fixed piece of work, of a few tries.

    Compared before and after a trial, it shows a change of the clock frequency or a neighbour on the same core.
    """
    return min(_work_s() for _ in range(_ROUNDS))


def _work_s() -> float:
    start = time.perf_counter()
    hashlib.sha256(_WORK).digest()
    return time.perf_counter() - start
