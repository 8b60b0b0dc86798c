"""Count the cores that may be used, and measure what all processes together did on them and how fast they were."""

import hashlib
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

from loaderbench.machine import cgroup

_WORK = bytes(4 << 20)
_ROUNDS = 15


def allowed_cores() -> int:
    """Return how many cores this process may run on, whatever a CPU quota says."""
    return len(os.sched_getaffinity(0))


def usable_cores() -> float:
    """Return how many cores' time this process may use: its allowed cores, or less under the CPU quota of a cgroup."""
    allowed = allowed_cores()
    return min(allowed, cgroup.quota_cores() or allowed)


def core_count() -> int:
    """Return how many workers use that time: `usable_cores` rounded up, as 1.5 cores' time keeps two of them busy."""
    return math.ceil(usable_cores())


@dataclass(frozen=True)
class Cores:
    """Totals since the machine's start, over the cores that this process may use."""

    busy_s: float
    """Seconds spent running anything in this machine."""
    steal_s: float
    """Seconds that this machine wanted and the hypervisor gave to another."""
    thermal_events: int | None
    """How often these cores were slowed for their heat. None if the kernel does not report it."""
    quota_events: int | None
    """How often the cgroups that this process is in had used up their CPU quota. None if it cannot be read."""


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
    return Cores(busy * tick_s, steal * tick_s, _thermal_events(names), cgroup.throttle_events())


def _thermal_events(names: set[str]) -> int | None:
    counts = [Path("/sys/devices/system/cpu", name, "thermal_throttle/core_throttle_count") for name in names]
    return sum(int(count.read_text()) for count in counts) if all(count.exists() for count in counts) else None


def canary_s() -> float:
    """Return the shortest time that one core takes for a fixed piece of work, of a few tries.

    Compared before and after a trial, it shows a change of the clock frequency or a neighbour on the same core.
    """
    return min(_work_s() for _ in range(_ROUNDS))


def _work_s() -> float:
    start = time.perf_counter()
    hashlib.sha256(_WORK).digest()
    return time.perf_counter() - start
