"""Was the machine quiet? What the cores did in all, whoever used them, and how fast they were."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

_WORK = bytes(4 << 20)
_ROUNDS = 15


@dataclass(frozen=True)
class Cores:
    """Seconds since the machine's start, summed over the cores that this process may use."""

    busy_s: float
    """Running anything in this machine."""
    steal_s: float
    """Wanted by this machine and given to another by the hypervisor."""
    throttle_events: int
    """How often a core was slowed for its heat, or this process's cgroup had used up its quota, where told."""


def cores() -> Cores:
    """Return what the allowed cores did, from /proc/stat, in steps of one tick."""
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    busy = steal = 0
    names = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name in names:
            user, nice, system, _idle, _iowait, irq, softirq, stolen = map(int, ticks[:8])
            busy += user + nice + system + irq + softirq
            steal += stolen
    return Cores(busy * tick_s, steal * tick_s, _heat_events(names) + _quota_events())


def _heat_events(names: set[str]) -> int:
    counts = (Path("/sys/devices/system/cpu", name, "thermal_throttle/core_throttle_count") for name in names)
    return sum(int(count.read_text()) for count in counts if count.exists())


def _quota_events() -> int:
    try:
        lines = Path("/sys/fs/cgroup/cpu.stat").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("nr_throttled "))


def canary_s() -> float:
    """Return the shortest time that one core takes for a fixed piece of work, of a few tries.

    Read before and after a trial, it tells of a change of clock frequency or of a neighbour on the same core.
    """
    return min(_work_s() for _ in range(_ROUNDS))


def _work_s() -> float:
    start = time.perf_counter()
    hashlib.sha256(_WORK).digest()
    return time.perf_counter() - start
